// The gradient of feed_forward for one instruction set.
//
// The hidden layer is made again, block by block. With h = f act(z), z = W_in x + b_in, and f what
// dropout multiplies with:
//   dW_out = dy h^T, dz = f act'(z) W_out^T dy, dW_in = dz x^T, db_in = sum dz, dx = W_in^T dz.
// The tokens of a stack are cut into parts, whatever the number of threads; a part has sums of its
// own, which are added in the end in the same order, so that the bits are always the same.
#include "feed_forward/tiles.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

// Parts of all stacks together, and how many bytes their sums may take.
constexpr int64_t kParts = 16;
constexpr int64_t kMostBytes = int64_t{256} << 20;

template <bool kGelu, bool kDrops>
struct Backward {
  const FeedForwardBackward& x;
  const Sizes size{x.x, x.weight_out};
  const int threads = useful_threads(x.threads, 3 * size.multiply_adds());
  // Rows of tokens and of their gradients, which are also the columns of A in the weights' sums.
  const int64_t C = fitted(size.C);
  const int64_t O = fitted(size.O);

  const int64_t of_in = float_bytes(size.features * size.C);
  const int64_t of_in_rows = float_bytes(size.features * size.in);
  const int64_t of_out = float_bytes(size.features * size.O);
  const int64_t of_bias = float_bytes(size.features);
  const int64_t of_stack = of_in + of_in_rows + of_out + of_bias;
  const Buffer weights{size.S * of_stack};

  const int64_t of_d_in = float_bytes(size.features * C);
  const int64_t of_d_out = float_bytes(size.features * O);
  const int64_t of_part = of_d_in + of_d_out + of_bias + float_bytes(size.O);
  const int64_t parts = parts_of();  // of a stack
  const int64_t part_tiles = (size.tiles + parts - 1) / parts;
  const Buffer sums{size.S * parts * of_part};

  const int64_t of_x = float_bytes(kTokens * C);
  const int64_t of_grad = float_bytes(kTokens * O);
  const int64_t of_hidden = float_bytes(kTokens * kBlock);
  const int64_t of_d_x = float_bytes(kTokens * size.in);
  const int64_t scratch = of_x + of_grad + 2 * of_hidden + of_d_x;
  const Buffer working{threads * scratch};

  void run() const {
    for_tasks(size.S, threads, [&](int64_t s, int) { pack_stack(s); });
    for_tasks(size.S * parts, threads, [&](int64_t task, int worker) {
      const int64_t first = task % parts * part_tiles;
      const int64_t last = smaller(first + part_tiles, size.tiles);
      memset(sums.as<char>(task * of_part), 0, static_cast<size_t>(of_part));
      for (int64_t tile = first; tile < last; ++tile) {
        differentiate(task / parts, tile * kTokens, task, worker);
      }
    });
    for_tasks(size.S * (size.features / kBlock), threads, [&](int64_t task, int) {
      const int64_t blocks = size.features / kBlock;
      add_parts(task / blocks, task % blocks * kBlock);
    });
    for (int64_t s = 0; s < size.S && x.d_bias_out.data != nullptr; ++s) add_parts_of_bias(s);
  }

 private:
  int64_t parts_of() const {
    const int64_t wanted = (kParts + size.S - 1) / size.S;
    const int64_t affordable = larger(kMostBytes / (size.S * of_part), 1);
    return smaller(smaller(wanted, affordable), size.tiles);
  }

  float* in_of(int64_t s) const { return weights.template as<float>(s * of_stack); }
  float* in_rows_of(int64_t s) const { return weights.template as<float>(s * of_stack + of_in); }
  float* out_of(int64_t s) const {
    return weights.template as<float>(s * of_stack + of_in + of_in_rows);
  }
  float* bias_of(int64_t s) const {
    return weights.template as<float>(s * of_stack + of_in + of_in_rows + of_out);
  }

  float* d_in_of(int64_t part) const { return sums.template as<float>(part * of_part); }
  float* d_out_of(int64_t part) const { return sums.template as<float>(part * of_part + of_d_in); }
  float* d_bias_of(int64_t part) const {
    return sums.template as<float>(part * of_part + of_d_in + of_d_out);
  }
  float* d_bias_out_of(int64_t part) const {
    return sums.template as<float>(part * of_part + of_d_in + of_d_out + of_bias);
  }

  void pack_stack(int64_t s) const {
    const auto* in = reinterpret_cast<const float*>(x.weight_in.at(s));
    const auto* out = reinterpret_cast<const float*>(x.weight_out.at(s));
    pack(in, 1, size.C, size.C, size.F, size.C, size.features, in_of(s));
    pack(in, size.C, 1, size.F, size.C, size.features, size.in, in_rows_of(s));
    pack(out, size.F, 1, size.O, size.F, size.O, size.features, out_of(s));
    float* bias = bias_of(s);
    memset(bias, 0, static_cast<size_t>(of_bias));
    memcpy(bias, x.bias_in.at(s), static_cast<size_t>(size.F) * sizeof(float));
  }

  void differentiate(int64_t s, int64_t n, int64_t part, int worker) const {
    char* memory = working.template as<char>(worker * scratch);
    auto* tokens = reinterpret_cast<float*>(memory);
    auto* grads = reinterpret_cast<float*>(memory + of_x);
    auto* hidden =
        reinterpret_cast<float*>(memory + of_x + of_grad);  // (kPanels, kTokens, kColumns)
    auto* d_hidden = reinterpret_cast<float*>(memory + of_x + of_grad + of_hidden);
    auto* d_tokens = reinterpret_cast<float*>(memory + of_x + of_grad + 2 * of_hidden);
    const int64_t count = smaller(kTokens, size.N - n);
    const int64_t rows = fitted(count);
    load_tokens(x.x, s, n, count, size.C, C, tokens);
    load_tokens(x.grad, s, n, count, size.O, O, grads);
    memset(d_tokens, 0, static_cast<size_t>(of_d_x));
    float* d_bias_out = d_bias_out_of(part);
    for (int64_t o = 0; o < size.O; ++o) {
      float sum = 0;
      for (int64_t i = 0; i < count; ++i) sum += grads[i * O + o];
      d_bias_out[o] += sum;
    }
    DropoutRow dropout[kTokens];
    if constexpr (kDrops) draw_rows(x.hidden, s, n, dropout);

    constexpr int64_t kPanel = kTokens * kColumns;
    for (int64_t f = 0; f < size.features; f += kBlock) {
      for (int64_t p = 0; p < kPanels; ++p) {
        const int64_t first = f + p * kColumns;
        const Floats left = load(bias_of(s) + first);
        const Floats right = load(bias_of(s) + first + kLanes);
        float* z = hidden + p * kPanel;
        FloatEngine::for_rows({tokens, C, 0}, in_of(s) + first * size.C, rows, size.C,
                              [&](int64_t m, Floats one, Floats other) {
                                store(z + m * kColumns, one + left);
                                store(z + m * kColumns + kLanes, other + right);
                              });
        FloatEngine::multiply<false>({grads, O, 0}, {out_of(s) + first * size.O, 0, 0},
                                     d_hidden + p * kPanel, kColumns, rows, kColumns, size.O);
      }
      gate(dropout, f, rows, hidden, d_hidden, d_bias_of(part) + f);
      for (int64_t p = 0; p < kPanels; ++p) {
        const int64_t first = f + p * kColumns;
        const float* h = hidden + p * kPanel;
        const float* dz = d_hidden + p * kPanel;
        FloatEngine::multiply<true>({tokens, 1, 0, C}, {dz, 0, 0}, d_in_of(part) + first * C,
                                    kColumns, C, kColumns, rows);
        FloatEngine::multiply<true>({grads, 1, 0, O}, {h, 0, 0}, d_out_of(part) + first * O,
                                    kColumns, O, kColumns, rows);
        if (x.d_x.data == nullptr) continue;
        FloatEngine::multiply<true>({dz, kColumns, 0},
                                    {in_rows_of(s) + first * kColumns, size.features * kColumns, 0},
                                    d_tokens, size.in, rows, size.in, kColumns);
      }
    }
    if (x.d_x.data != nullptr) store_tokens(d_tokens, size.in, size.C, x.d_x, s, n, count);
  }

  // Of z and the gradient of h makes h and the gradient of z, in place, and adds the latter up.
  static PYSEQ_INLINE void gate(const DropoutRow* dropout, int64_t f, int64_t rows, float* hidden,
                                float* d_hidden, float* d_bias) {
    for (int64_t i = 0; i < kDropoutWords; i += kLanes) {
      Floats total[2] = {};
      for (int64_t m = 0; m < rows; ++m) {
        Words words = {};
        if constexpr (kDrops) words = dropout[m].words(f / 2 + i);
        for (int half = 0; half < 2; ++half) {
          const int64_t feature = half * kDropoutWords + i;
          const int64_t at = (feature / kColumns * kTokens + m) * kColumns + feature % kColumns;
          Floats active, slope;
          activate<kGelu>(load(hidden + at), active, slope);
          if constexpr (kDrops) {
            const Floats factor = dropout[m].factors(words, half);
            active *= factor;
            slope *= factor;
          }
          const Floats dz = slope * load(d_hidden + at);
          total[half] += dz;
          store(hidden + at, active);
          store(d_hidden + at, dz);
        }
      }
      for (int half = 0; half < 2; ++half) {
        float* to = d_bias + half * kDropoutWords + i;
        store(to, load(to) + total[half]);
      }
    }
  }

  // The gradients of the weights of kBlock hidden features, from f on.
  void add_parts(int64_t s, int64_t f) const {
    for (int64_t first = f; first < f + kBlock && first < size.F; first += kColumns) {
      const int64_t columns = smaller(kColumns, size.F - first);
      const auto add = [&](float* (Backward::*of)(int64_t) const, int64_t at, float* to,
                           int64_t step) {
        float total[kColumns] = {};
        for (int64_t part = s * parts; part < (s + 1) * parts; ++part) {
          const float* from = (this->*of)(part) + at;
          for (int64_t j = 0; j < kColumns; ++j) total[j] += from[j];
        }
        for (int64_t j = 0; j < columns; ++j) to[j * step] = total[j];
      };
      for (int64_t c = 0; c < size.C && x.d_weight_in.data != nullptr; ++c) {
        auto* to = reinterpret_cast<float*>(x.d_weight_in.at(s, first, c));
        add(&Backward::d_in_of, first * C + c * kColumns, to, size.C);
      }
      for (int64_t o = 0; o < size.O && x.d_weight_out.data != nullptr; ++o) {
        auto* to = reinterpret_cast<float*>(x.d_weight_out.at(s, o, first));
        add(&Backward::d_out_of, first * O + o * kColumns, to, 1);
      }
      if (x.d_bias_in.data != nullptr) {
        add(&Backward::d_bias_of, first, reinterpret_cast<float*>(x.d_bias_in.at(s, first)), 1);
      }
    }
  }

  void add_parts_of_bias(int64_t s) const {
    auto* to = reinterpret_cast<float*>(x.d_bias_out.at(s));
    for (int64_t o = 0; o < size.O; ++o) {
      float total = 0;
      for (int64_t part = s * parts; part < (s + 1) * parts; ++part) {
        total += d_bias_out_of(part)[o];
      }
      to[o] = total;
    }
  }
};

}  // namespace

void feed_forward_backward(const FeedForwardBackward& x) {
  if (x.hidden.dropped > 0) {
    x.hidden.gelu ? Backward<true, true>{x}.run() : Backward<false, true>{x}.run();
  } else {
    x.hidden.gelu ? Backward<true, false>{x}.run() : Backward<false, false>{x}.run();
  }
}

}  // namespace pyseq::PYSEQ_ISA
