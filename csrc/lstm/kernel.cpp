// lstm for one instruction set.
#include "lstm/tiles.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

struct Forward {
  const Lstm& x;
  const Sizes size{x.x, x.weight_hh};
  const int threads = useful_threads(x.threads, size.multiply_adds());
  // [x_t, h_(t-1)] of a row, with which one product makes all gates.
  const int64_t depth = size.I + size.H;
  const int64_t pitch = size.I + size.units;
  const int64_t of_panel = depth * kColumns;

  const int64_t of_gates = float_bytes(size.gates * depth);
  const int64_t of_bias = float_bytes(size.gates);
  const int64_t of_stack = of_gates + of_bias;
  const Buffer weights{size.S * of_stack};

  const int64_t of_state = float_bytes(kRows * pitch);
  const int64_t of_cell = float_bytes(kRows * size.units);
  const int64_t of_sums = float_bytes(kGates * kRows * kColumns);
  const int64_t scratch = 2 * of_state + of_cell + of_sums;
  const Buffer working{threads * scratch};

  void run() const {
    for_tasks(size.S, threads, [&](int64_t s, int) { pack_stack(s); });
    for_tasks(size.S * size.tiles, threads, [&](int64_t task, int worker) {
      go(task / size.tiles, task % size.tiles * kRows, worker);
    });
  }

 private:
  float* gates_of(int64_t s) const { return weights.as<float>(s * of_stack); }
  float* bias_of(int64_t s) const { return weights.as<float>(s * of_stack + of_gates); }

  // Panels of kColumns units: those of the four gates one after the other.
  void pack_stack(int64_t s) const {
    float* to = gates_of(s);
    float* bias = bias_of(s);
    memset(bias, 0, static_cast<size_t>(of_bias));
    for (int64_t u = 0; u < size.units; u += kColumns) {
      const int64_t there = smaller(kColumns, size.H - u);
      for (int64_t gate = 0; gate < kGates; ++gate, to += of_panel, bias += kColumns) {
        const int64_t first = gate * size.H + u;
        pack(reinterpret_cast<const float*>(x.weight_ih.at(s, first)), 1, size.I, size.I, there,
             size.I, kColumns, to);
        pack(reinterpret_cast<const float*>(x.weight_hh.at(s, first)), 1, size.H, size.H, there,
             size.H, kColumns, to + size.I * kColumns);
        memcpy(bias, x.bias.at(s, first), static_cast<size_t>(there) * sizeof(float));
      }
    }
  }

  void go(int64_t s, int64_t b, int worker) const {
    char* memory = working.as<char>(worker * scratch);
    float* now = reinterpret_cast<float*>(memory);
    float* next = reinterpret_cast<float*>(memory + of_state);
    float* cells = reinterpret_cast<float*>(memory + 2 * of_state);
    float* sums = reinterpret_cast<float*>(memory + 2 * of_state + of_cell);
    const int64_t count = smaller(kRows, size.B - b);
    memset(memory, 0, static_cast<size_t>(scratch));
    for (int64_t m = 0; m < count; ++m) {
      load_row(x.hidden.at(s, b + m), DType::kFloat32, 1, size.H, now + m * pitch + size.I);
      load_row(x.cell.at(s, b + m), DType::kFloat32, 1, size.H, cells + m * size.units);
    }
    for (int64_t t = 0; t < size.T; ++t) {
      for (int64_t m = 0; m < count; ++m) {
        load_row(x.x.at(s, b + m, t), x.x.dtype, x.x.stride[3], size.I, now + m * pitch);
      }
      float* tape = x.tape.data == nullptr ? nullptr
                                           : static_cast<float*>(x.tape.data) +
                                                 ((s * size.T + t) * size.B + b) * size.taped;
      for (int64_t u = 0; u < size.units; u += kColumns) {
        multiply(s, u, now, fitted(count), sums);
        step(u, count, sums, cells, next + size.I, tape);
      }
      for (int64_t m = 0; m < count; ++m) {
        store_row(next + m * pitch + size.I, x.outputs.dtype, x.outputs.stride[3], size.H,
                  x.outputs.at(s, b + m, t));
      }
      float* const done = now;
      now = next;
      next = done;
    }
    for (int64_t m = 0; m < count; ++m) {
      store_row(now + m * pitch + size.I, DType::kFloat32, 1, size.H, x.last_hidden.at(s, b + m));
      store_row(cells + m * size.units, DType::kFloat32, 1, size.H, x.last_cell.at(s, b + m));
    }
  }

  // The gates of kColumns units before their activations, (kGates, kRows, kColumns).
  void multiply(int64_t s, int64_t u, const float* now, int64_t rows, float* sums) const {
    for (int64_t gate = 0; gate < kGates; ++gate) {
      const int64_t panel = u / kColumns * kGates + gate;
      const Floats left = load(bias_of(s) + panel * kColumns);
      const Floats right = load(bias_of(s) + panel * kColumns + kLanes);
      float* to = sums + gate * kRows * kColumns;
      FloatEngine::for_rows({now, pitch, 0}, gates_of(s) + panel * of_panel, rows, depth,
                            [&](int64_t m, Floats one, Floats other) {
                              store(to + m * kColumns, one + left);
                              store(to + m * kColumns + kLanes, other + right);
                            });
    }
  }

  void step(int64_t u, int64_t count, const float* sums, float* cells, float* next,
            float* tape) const {
    constexpr int64_t kGate = kRows * kColumns;
    for (int64_t m = 0; m < count; ++m) {
      for (int64_t lane = 0; lane < kColumns; lane += kLanes) {
        const float* z = sums + m * kColumns + lane;
        const int64_t unit = u + lane;
        float* cell = cells + m * size.units + unit;
        const Floats i = sigmoid(load(z));
        const Floats f = sigmoid(load(z + kGate));
        const Floats g = tanh(load(z + 2 * kGate));
        const Floats o = sigmoid(load(z + 3 * kGate));
        const Floats c = f * load(cell) + i * g;
        store(cell, c);
        store(next + m * pitch + unit, o * tanh(c));
        if (tape == nullptr) continue;
        float* to = tape + m * size.taped + unit;
        const int64_t left = size.H - unit;
        store_some(to, i, left);
        store_some(to + size.H, f, left);
        store_some(to + 2 * size.H, g, left);
        store_some(to + 3 * size.H, o, left);
        store_some(to + 4 * size.H, c, left);
      }
    }
  }
};

}  // namespace

void lstm(const Lstm& x) { Forward{x}.run(); }

}  // namespace pyseq::PYSEQ_ISA
