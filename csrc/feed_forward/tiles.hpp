// What the forward and the backward of feed_forward share: sizes, packed weights, activations.
//
// The hidden layer is made for a few tokens and kBlock features at a time, which stay in the first
// cache; vectors run over its features.
#pragma once

#include "cpu/dropout.hpp"
#include "cpu/float_panels.hpp"
#include "feed_forward/feed_forward.hpp"

namespace pyseq::PYSEQ_ISA {

inline constexpr int64_t kBlock = kDropoutBlock;       // hidden features at once
inline constexpr int64_t kPanels = kBlock / kColumns;  // of a block
inline constexpr int64_t kTokens = 48;                 // at once: whole rows of the engine
static_assert(kBlock % kColumns == 0 && kTokens % FloatEngine::kRows == 0);

struct Sizes {
  Sizes(const Tensor& x, const Tensor& weight_out)
      : S(x.shape[0]),
        N(x.shape[1]),
        C(x.shape[2]),
        O(weight_out.shape[1]),
        F(weight_out.shape[2]) {}

  int64_t S, N, C, O, F;
  int64_t features = round_up(F, kBlock);
  int64_t in = round_up(C, kColumns);
  int64_t out = round_up(O, kColumns);
  int64_t tiles = (N + kTokens - 1) / kTokens;  // of a stack

  double multiply_adds() const { return double(S) * double(N) * double(F) * double(C + O); }
};

// The distribution function of a standard normal and e^(-z^2/2): Abramowitz and Stegun, 7.1.26.
// Error below 1e-7; what is left of the tail at negative z is right in relation to it.
struct Normal {
  explicit Normal(Floats z) {
    const Floats power = z * z * (-0.5F * kLog2E);
    density = exp2<7>(maximum(broadcast(kVanished), power));
    const Floats size = z < 0.0F ? -z : z;
    const Floats t = 1.0F / (1.0F + 0.231641888F * size);  // 0.3275911 / sqrt(2)
    Floats tail = broadcast(0.5F * 1.061405429F);
    tail = tail * t - 0.5F * 1.453152027F;
    tail = tail * t + 0.5F * 1.421413741F;
    tail = tail * t - 0.5F * 0.284496736F;
    tail = tail * t + 0.5F * 0.254829592F;
    tail *= t * density;
    below = z < 0.0F ? tail : 1.0F - tail;
  }
  Floats below;
  Floats density;  // times sqrt(2 pi)
};

template <bool kGelu>
PYSEQ_INLINE Floats activate(Floats z) {
  if constexpr (kGelu) return z * Normal(z).below;
  return maximum(Floats{}, z);  // z where it is NaN
}

// The activation, and its derivative.
template <bool kGelu>
PYSEQ_INLINE void activate(Floats z, Floats& active, Floats& slope) {
  if constexpr (kGelu) {
    constexpr float kDensity = 0.398942280F;  // 1 / sqrt(2 pi)
    const Normal normal(z);
    active = z * normal.below;
    slope = normal.below + z * normal.density * kDensity;
  } else {
    active = maximum(Floats{}, z);
    slope = z > 0.0F ? broadcast(1.0F) : Floats{};
  }
}

// Up to kTokens rows of x from token n on, (kTokens, row): what lies behind them is 0.
inline void load_tokens(const Tensor& x, int64_t s, int64_t n, int64_t count, int64_t columns,
                        int64_t row, float* to) {
  memset(to, 0, static_cast<size_t>(kTokens * row) * sizeof(float));
  for (int64_t i = 0; i < count; ++i) {
    load_row(x.at(s, n + i), x.dtype, x.stride[2], columns, to + i * row);
  }
}

inline void store_tokens(const float* from, int64_t row, int64_t columns, const Tensor& to,
                         int64_t s, int64_t n, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    store_row(from + i * row, to.dtype, to.stride[2], columns, to.at(s, n + i));
  }
}

inline void draw_rows(const Hidden& hidden, int64_t s, int64_t n, DropoutRow* rows) {
  const uint64_t key = key_below(static_cast<uint64_t>(hidden.seed), s);
  for (int64_t i = 0; i < kTokens; ++i) {
    rows[i] = DropoutRow(key_below(key, n + i), hidden.dropped);
  }
}

}  // namespace pyseq::PYSEQ_ISA
