// feed_forward for one instruction set.
#include "feed_forward/tiles.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

template <bool kGelu, bool kDrops>
struct Forward {
  const FeedForward& x;
  const Sizes size{x.x, x.weight_out};
  const int threads = useful_threads(x.threads, size.multiply_adds());
  const int64_t of_in = float_bytes(size.features * size.C);
  const int64_t of_bias = float_bytes(size.features);
  const int64_t of_out = float_bytes(size.features * size.out);
  const int64_t of_stack = of_in + of_bias + of_out;
  const Buffer weights{size.S * of_stack};
  const int64_t of_x = float_bytes(kTokens * size.C);
  const int64_t of_hidden = float_bytes(kTokens * kBlock);
  const int64_t of_sums = float_bytes(kTokens * size.out);
  const int64_t scratch = of_x + of_hidden + of_sums;
  const Buffer working{threads * scratch};

  void run() const {
    for_tasks(size.S, threads, [&](int64_t s, int) { pack_stack(s); });
    for_ranges(size.S * size.tiles, threads, [&](int64_t task, int worker) {
      transform(task / size.tiles, task % size.tiles * kTokens, worker);
    });
  }

 private:
  float* in_of(int64_t s) const { return weights.template as<float>(s * of_stack); }
  float* bias_of(int64_t s) const { return weights.template as<float>(s * of_stack + of_in); }
  float* out_of(int64_t s) const {
    return weights.template as<float>(s * of_stack + of_in + of_bias);
  }

  void pack_stack(int64_t s) const {
    const auto* in = reinterpret_cast<const float*>(x.weight_in.at(s));
    const auto* out = reinterpret_cast<const float*>(x.weight_out.at(s));
    pack(in, 1, size.C, size.C, size.F, size.C, size.features, in_of(s));
    pack(out, 1, size.F, size.F, size.O, size.features, size.out, out_of(s));
    float* bias = bias_of(s);
    memset(bias, 0, static_cast<size_t>(of_bias));
    memcpy(bias, x.bias_in.at(s), static_cast<size_t>(size.F) * sizeof(float));
  }

  void transform(int64_t s, int64_t n, int worker) const {
    auto* tokens = working.template as<float>(worker * scratch);
    auto* hidden = working.template as<float>(worker * scratch + of_x);
    auto* sums = working.template as<float>(worker * scratch + of_x + of_hidden);
    const int64_t count = smaller(kTokens, size.N - n);
    const int64_t rows = fitted(count);
    load_tokens(x.x, s, n, count, size.C, size.C, tokens);
    memset(sums, 0, static_cast<size_t>(of_sums));
    const auto* bias_out = reinterpret_cast<const float*>(x.bias_out.at(s));
    for (int64_t i = 0; i < count; ++i) {
      memcpy(sums + i * size.out, bias_out, static_cast<size_t>(size.O) * sizeof(float));
    }
    DropoutRow dropout[kTokens];
    if constexpr (kDrops) draw_rows(x.hidden, s, n, dropout);

    for (int64_t f = 0; f < size.features; f += kBlock) {
      for (int64_t p = 0; p < kPanels; ++p) {
        const int64_t first = f + p * kColumns;
        const Floats left = load(bias_of(s) + first);
        const Floats right = load(bias_of(s) + first + kLanes);
        float* to = hidden + p * kColumns;
        FloatEngine::for_rows({tokens, size.C, 0}, in_of(s) + first * size.C, rows, size.C,
                              [&](int64_t m, Floats one, Floats other) {
                                store(to + m * kBlock, activate<kGelu>(one + left));
                                store(to + m * kBlock + kLanes, activate<kGelu>(other + right));
                              });
      }
      if constexpr (kDrops) drop(dropout, f, rows, hidden);
      FloatEngine::multiply<true>({hidden, kBlock, 0},
                                  {out_of(s) + f * kColumns, size.features * kColumns, 0}, sums,
                                  size.out, rows, size.out, kBlock);
    }
    store_tokens(sums, size.out, size.O, x.out, s, n, count);
  }

  static PYSEQ_INLINE void drop(const DropoutRow* dropout, int64_t f, int64_t rows, float* hidden) {
    for (int64_t m = 0; m < rows; ++m, hidden += kBlock) {
      for (int64_t i = 0; i < kDropoutWords; i += kLanes) {
        const Words words = dropout[m].words(f / 2 + i);
        for (int half = 0; half < 2; ++half) {
          float* at = hidden + half * kDropoutWords + i;
          store(at, load(at) * dropout[m].factors(words, half));
        }
      }
    }
  }
};

}  // namespace

void feed_forward(const FeedForward& x) {
  if (x.hidden.dropped > 0) {
    x.hidden.gelu ? Forward<true, true>{x}.run() : Forward<false, true>{x}.run();
  } else {
    x.hidden.gelu ? Forward<true, false>{x}.run() : Forward<false, false>{x}.run();
  }
}

}  // namespace pyseq::PYSEQ_ISA
