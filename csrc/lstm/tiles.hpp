// What the forward and the backward of lstm share: sizes, activations, rows of gates.
//
// Rows of a batch never meet, so a task takes a few rows of one model through all of time: their
// states stay in the first cache and the model's weights in the second.
#pragma once

#include "cpu/float_panels.hpp"
#include "lstm/lstm.hpp"

namespace pyseq::PYSEQ_ISA {

inline constexpr int64_t kGates = 4;  // i, f, g, o
inline constexpr int64_t kTaped = 5;  // and the cell
inline constexpr int64_t kRows = 24;  // of a batch at once: whole rows of the engine
static_assert(kRows % FloatEngine::kRows == 0);

struct Sizes {
  Sizes(const Tensor& x, const Tensor& weight_hh)
      : S(x.shape[0]), B(x.shape[1]), T(x.shape[2]), I(x.shape[3]), H(weight_hh.shape[2]) {}

  int64_t S, B, T, I, H;
  int64_t inputs = round_up(I, kColumns);
  int64_t units = round_up(H, kColumns);
  int64_t gates = kGates * units;           // of a packed row: each gate is padded
  int64_t taped = kTaped * H;               // of a row of the tape, which is not
  int64_t tiles = (B + kRows - 1) / kRows;  // of a stack

  double multiply_adds() const {
    return double(S) * double(B) * double(T) * double(kGates * H) * double(I + H);
  }
};

// 2^x - 1 = scale * rest + (scale - 1) for x from -126 to 0: its relative error is small also where
// it is nearly 0. NaN stays NaN. The polynomial is that of exp2 without its 1.
struct PowerOfTwo {
  explicit PowerOfTwo(Floats x) {
    constexpr float kShifter = 12582912.0F;  // 1.5 * 2^23: the sum's last bits are round(x)
    const Floats shifted = x + kShifter;
    const Floats r = x - (shifted - kShifter);
    Floats y = broadcast(0x1.41d2b8p-13F);
    y = y * r + 0x1.5f4638p-10F;
    y = y * r + 0x1.3b2dc0p-7F;
    y = y * r + 0x1.c6aed2p-5F;
    y = y * r + 0x1.ebfbdap-3F;
    y = y * r + 0x1.62e430p-1F;
    rest = y * r;
    scale = (Floats)(((Words)shifted + 127) << 23);
  }
  Floats rest;
  Floats scale;
};

inline constexpr int32_t kSign = INT32_MIN;

// -factor |x|, but not below -126.
PYSEQ_INLINE Floats falling(Floats x, float factor) {
  return maximum(broadcast(-126.0F), (Floats)((Ints)x | kSign) * factor);
}

// Relative error below 5e-7 + 1e-7 |x| down to 2^-126, which nothing is below.
PYSEQ_INLINE Floats sigmoid(Floats x) {
  const PowerOfTwo power(falling(x, kLog2E));
  const Floats e = power.scale * power.rest + power.scale;
  const Floats above = 1.0F / (1.0F + e);
  return x < 0.0F ? e * above : above;
}

// Relative error below 5e-7, also near 0.
PYSEQ_INLINE Floats tanh(Floats x) {
  const PowerOfTwo power(falling(x, 2 * kLog2E));
  const Floats less = power.scale * power.rest + (power.scale - 1.0F);  // e^(-2|x|) - 1
  const Floats size = -less / (2.0F + less);
  return (Floats)((Ints)size | ((Ints)x & kSign));
}

// A vector at `from`, of which only `left` elements may be there; others are 0.
PYSEQ_INLINE Floats load_some(const float* from, int64_t left) {
  if (left >= kLanes) return load(from);
  Floats x = {};
  memcpy(&x, from, static_cast<size_t>(left > 0 ? left : 0) * sizeof(float));
  return x;
}

PYSEQ_INLINE void store_some(float* to, Floats x, int64_t left) {
  if (left >= kLanes) {
    store(to, x);
  } else if (left > 0) {
    memcpy(to, &x, static_cast<size_t>(left) * sizeof(float));
  }
}

}  // namespace pyseq::PYSEQ_ISA
