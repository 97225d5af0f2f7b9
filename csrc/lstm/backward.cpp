// The gradient of lstm for one instruction set.
//
// Time runs backwards. With z the gates before their activations, at a step
//   dc += dh o (1 - tanh(c)^2), dz = (dc g i', dc c_(t-1) f', dc i g', dh tanh(c) o'),
//   [dx, dh_(t-1)] = [W_ih, W_hh]^T dz, dc_(t-1) = dc f,
// and the weights' gradients are sums of dz [x, h_(t-1)]^T, made for the rows of a few steps at
// once. Tiles of a stack are cut into parts, whatever the number of threads; a part has sums of its
// own, which are added in the end in the same order, so that the bits are always the same.
#include "lstm/tiles.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

// Parts of a stack, and how many bytes their sums may take.
constexpr int64_t kParts = 8;
constexpr int64_t kMostBytes = int64_t{64} << 20;
constexpr int64_t kSteps = 4;  // of which the weights' gradients are made at once

struct Backward {
  const LstmBackward& x;
  const Sizes size{x.x, x.weight_hh};
  const int threads = useful_threads(x.threads, 2 * size.multiply_adds());
  const bool sums_wanted =
      x.d_weight_ih.data != nullptr || x.d_weight_hh.data != nullptr || x.d_bias.data != nullptr;
  const int64_t width = size.inputs + size.units;  // of [x, h], padded

  const int64_t of_stack = float_bytes(size.gates * width);
  const Buffer weights{size.S * of_stack};

  const int64_t of_weights = float_bytes(size.gates * width);
  const int64_t of_bias = float_bytes(size.gates);
  const int64_t of_part = of_weights + of_bias;
  const int64_t parts = parts_of();  // of a stack
  const int64_t part_tiles = (size.tiles + parts - 1) / parts;
  const Buffer sums{sums_wanted ? size.S * parts * of_part : 1};

  // A line more than the gates: else their rows would meet in a few sets of the first cache.
  const int64_t pitch = size.gates + kColumns;
  const int64_t of_dz = float_bytes(kSteps * kRows * pitch);
  const int64_t of_inputs = float_bytes(kSteps * kRows * width);
  const int64_t of_units = float_bytes(kRows * size.units);
  const int64_t of_d_x = float_bytes(kRows * size.inputs);
  const int64_t of_row = float_bytes(larger(size.inputs, size.units));
  const int64_t scratch = of_dz + of_inputs + 3 * of_units + of_d_x + of_row + of_bias;
  const Buffer working{threads * scratch};

  void run() const {
    for_tasks(size.S, threads, [&](int64_t s, int) { pack_stack(s); });
    for_tasks(size.S * parts, threads, [&](int64_t task, int worker) {
      const int64_t first = task % parts * part_tiles;
      const int64_t last = smaller(first + part_tiles, size.tiles);
      if (sums_wanted) memset(sums.as<char>(task * of_part), 0, static_cast<size_t>(of_part));
      for (int64_t tile = first; tile < last; ++tile) {
        Tile(*this, task / parts, tile * kRows, task, worker).run();
      }
    });
    if (!sums_wanted) return;
    for_tasks(size.S * kGates, threads,
              [&](int64_t task, int) { add_parts(task / kGates, task % kGates); });
  }

 private:
  int64_t parts_of() const {
    const int64_t affordable = larger(kMostBytes / of_part, 1);
    return smaller(smaller(kParts, affordable), size.tiles);
  }

  float* weights_of(int64_t s) const { return weights.as<float>(s * of_stack); }
  float* d_weights_of(int64_t part) const { return sums.as<float>(part * of_part); }
  float* d_bias_of(int64_t part) const { return sums.as<float>(part * of_part + of_weights); }

  // Panels of kColumns inputs, then of kColumns units, with a row for each gate of each unit.
  void pack_stack(int64_t s) const {
    float* to = weights_of(s);
    const auto pack_columns = [&](const Tensor& weight, int64_t columns) {
      for (int64_t column = 0; column < columns; column += kColumns) {
        for (int64_t gate = 0; gate < kGates; ++gate, to += size.units * kColumns) {
          pack(reinterpret_cast<const float*>(weight.at(s, gate * size.H, column)), columns, 1,
               size.H, columns - column, size.units, kColumns, to);
        }
      }
    };
    pack_columns(x.weight_ih, size.I);
    pack_columns(x.weight_hh, size.H);
  }

  // A tile of rows on its way back through time.
  struct Tile {
    const Backward& all;
    const LstmBackward& x;
    const Sizes& size;
    const int64_t s, b, part;
    const int64_t count, rows;
    float *dz, *inputs, *d_h, *d_c, *tanh_c, *d_x, *row, *d_bias;
    const float* initial_hidden;
    const float* initial_cell;

    Tile(const Backward& backward, int64_t stack, int64_t first, int64_t part_of, int worker)
        : all(backward),
          x(backward.x),
          size(backward.size),
          s(stack),
          b(first),
          part(part_of),
          count(smaller(kRows, size.B - first)),
          rows(fitted(count)) {
      char* memory = all.working.as<char>(worker * all.scratch);
      memset(memory, 0, static_cast<size_t>(all.scratch));
      const auto take = [&](int64_t bytes) {
        auto* taken = reinterpret_cast<float*>(memory);
        memory += bytes;
        return taken;
      };
      dz = take(all.of_dz);
      inputs = take(all.of_inputs);
      d_h = take(all.of_units);
      d_c = take(all.of_units);
      tanh_c = take(all.of_units);
      d_x = take(all.of_d_x);
      row = take(all.of_row);
      d_bias = take(all.of_bias);
      initial_hidden = reinterpret_cast<const float*>(x.hidden.at(s, b));
      initial_cell = reinterpret_cast<const float*>(x.cell.at(s, b));
    }

    void run() const {
      load_states(x.grad_hidden, d_h);
      load_states(x.grad_cell, d_c);
      const float* last = tape_at(size.T - 1) + 4 * size.H;
      for (int64_t m = 0; m < count; ++m) {
        for (int64_t u = 0; u < size.units; u += kLanes) {
          const Floats c = load_some(last + m * size.taped + u, size.H - u);
          store(tanh_c + m * size.units + u, tanh(c));
        }
      }
      int64_t held = 0;
      for (int64_t t = size.T - 1; t >= 0; --t) {
        if (all.sums_wanted) load_inputs(t, held);
        float* here = dz + held * rows * all.pitch;
        step(t, held, here);
        const Rows<float> gates{here, all.pitch, 0};
        const int64_t panel = size.gates * kColumns;
        const float* weights = all.weights_of(s);
        if (x.d_x.data != nullptr) {
          FloatEngine::multiply<false>(gates, {weights, panel, 0}, d_x, size.inputs, rows,
                                       size.inputs, size.gates);
          for (int64_t m = 0; m < count; ++m) {
            store_row(d_x + m * size.inputs, x.d_x.dtype, x.d_x.stride[3], size.I,
                      x.d_x.at(s, b + m, t));
          }
        }
        FloatEngine::multiply<false>(gates, {weights + size.inputs * size.gates, panel, 0}, d_h,
                                     size.units, rows, size.units, size.gates);
        if (++held == kSteps || t == 0) {
          if (all.sums_wanted) add_up(held * rows);
          held = 0;
        }
      }
      store_states(d_h, x.d_hidden);
      store_states(d_c, x.d_cell);
    }

   private:
    const float* tape_at(int64_t t) const {
      return static_cast<const float*>(x.tape.data) + ((s * size.T + t) * size.B + b) * size.taped;
    }

    void load_states(const Tensor& from, float* to) const {
      for (int64_t m = 0; m < count && from.data != nullptr; ++m) {
        load_row(from.at(s, b + m), DType::kFloat32, 1, size.H, to + m * size.units);
      }
    }

    void store_states(const float* from, const Tensor& to) const {
      for (int64_t m = 0; m < count && to.data != nullptr; ++m) {
        store_row(from + m * size.units, DType::kFloat32, 1, size.H, to.at(s, b + m));
      }
    }

    // A row of [x, h] of a held step: panels hold the rows of all held steps.
    float* input_at(int64_t column, int64_t held, int64_t m) const {
      return inputs + column * kSteps * kRows + (held * rows + m) * kColumns;
    }

    void load_inputs(int64_t t, int64_t held) const {
      for (int64_t m = 0; m < count; ++m) {
        load_row(x.x.at(s, b + m, t), x.x.dtype, x.x.stride[3], size.I, row);
        for (int64_t column = 0; column < size.inputs; column += kColumns) {
          memcpy(input_at(column, held, m), row + column, kColumns * sizeof(float));
        }
      }
      memset(row, 0, static_cast<size_t>(all.of_row));
    }

    // Of the gradients of h_t and c_t those of z and of c_(t-1), and h_(t-1).
    void step(int64_t t, int64_t held, float* here) const {
      const float* tape = tape_at(t);
      const float* before = t > 0 ? tape_at(t - 1) : nullptr;
      for (int64_t m = 0; m < count; ++m) {
        if (x.grad_outputs.data != nullptr) {
          load_row(x.grad_outputs.at(s, b + m, t), x.grad_outputs.dtype, x.grad_outputs.stride[3],
                   size.H, row);
        }
        for (int64_t u = 0; u < size.units; u += kLanes) {
          const int64_t left = size.H - u;
          const float* at = tape + m * size.taped + u;
          const Floats i = load_some(at, left);
          const Floats f = load_some(at + size.H, left);
          const Floats g = load_some(at + 2 * size.H, left);
          const Floats o = load_some(at + 3 * size.H, left);
          Floats c_before, h_before;
          float* tanh_at = tanh_c + m * size.units + u;
          const Floats tanh_now = load(tanh_at);
          if (before != nullptr) {
            const float* at_before = before + m * size.taped + u;
            c_before = load_some(at_before + 4 * size.H, left);
            const Floats tanh_before = tanh(c_before);
            h_before = load_some(at_before + 3 * size.H, left) * tanh_before;
            store(tanh_at, tanh_before);
          } else {
            c_before = load_some(initial_cell + m * size.H + u, left);
            h_before = load_some(initial_hidden + m * size.H + u, left);
          }
          store(input_at(size.inputs + u / kColumns * kColumns, held, m) + u % kColumns, h_before);

          const Floats dh = load(d_h + m * size.units + u) + load(row + u);
          float* cell = d_c + m * size.units + u;
          const Floats dc = load(cell) + dh * o * (1.0F - tanh_now * tanh_now);
          store(cell, dc * f);
          const Floats d_gates[kGates] = {
              dc * g * (i * (1.0F - i)),
              dc * c_before * (f * (1.0F - f)),
              dc * i * (1.0F - g * g),
              dh * tanh_now * (o * (1.0F - o)),
          };
          for (int64_t gate = 0; gate < kGates; ++gate) {
            const int64_t column = gate * size.units + u;
            store(here + m * all.pitch + column, d_gates[gate]);
            store(d_bias + column, load(d_bias + column) + d_gates[gate]);
          }
        }
      }
      memset(row, 0, static_cast<size_t>(all.of_row));
    }

    // Adds what `held_rows` rows of the held steps give the weights' and the bias's gradients.
    void add_up(int64_t held_rows) const {
      FloatEngine::multiply<true>({dz, 1, 0, all.pitch}, {inputs, kSteps * kRows * kColumns, 0},
                                  all.d_weights_of(part), all.width, size.gates, all.width,
                                  held_rows);
      float* total = all.d_bias_of(part);
      for (int64_t gate = 0; gate < size.gates; gate += kLanes) {
        store(total + gate, load(total + gate) + load(d_bias + gate));
        store(d_bias + gate, Floats{});
      }
    }
  };

  // The gradients of one gate's weights and biases.
  void add_parts(int64_t s, int64_t gate) const {
    const auto add = [&](const float* from, int64_t columns, void* data) {
      auto* to = static_cast<float*>(data);
      for (int64_t j = 0; j < columns; ++j) {
        float total = 0;
        for (int64_t part = 0; part < parts; ++part) {
          total += from[part * (of_part / int64_t{sizeof(float)}) + j];
        }
        to[j] = total;
      }
    };
    for (int64_t u = 0; u < size.H; ++u) {
      const int64_t to = gate * size.H + u;
      const float* from = d_weights_of(s * parts) + (gate * size.units + u) * width;
      if (x.d_weight_ih.data != nullptr) add(from, size.I, x.d_weight_ih.at(s, to));
      if (x.d_weight_hh.data != nullptr) add(from + size.inputs, size.H, x.d_weight_hh.at(s, to));
    }
    if (x.d_bias.data != nullptr) {
      add(d_bias_of(s * parts) + gate * size.units, size.H, x.d_bias.at(s, gate * size.H));
    }
  }
};

}  // namespace

void lstm_backward(const LstmBackward& x) { Backward{x}.run(); }

}  // namespace pyseq::PYSEQ_ISA
