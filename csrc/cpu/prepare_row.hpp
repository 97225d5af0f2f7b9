// Normalises, weights and rotates one row; for sources compiled once per instruction set.
#pragma once

#include "cpu/preparation.hpp"
#include "cpu/vector.hpp"

namespace pyseq::PYSEQ_ISA {

// n is a multiple of kLanes.
PYSEQ_INLINE float dot(const float* a, const float* b, int64_t n) {
  Floats total = {};
  for (int64_t i = 0; i < n; i += kLanes) total += load(a + i) * load(b + i);
  return sum(total);
}

// Normalises a row of D features, padded with zeros to `padded`, a multiple of kLanes; returns what
// it was multiplied by (for "layer" after its mean was taken off).
inline float normalise_row(float* x, int64_t D, int64_t padded, const Preparation& to_do) {
  if (to_do.norm == Norm::kNone) return 1;
  if (to_do.norm == Norm::kLayer) {
    Floats total = {};
    for (int64_t i = 0; i < padded; i += kLanes) total += load(x + i);
    const float mean = sum(total) / static_cast<float>(D);
    for (int64_t i = 0; i < D; ++i) x[i] -= mean;
  }
  const float squares = dot(x, x, padded);
  float factor;
  if (to_do.norm == Norm::kL2) {
    const float length = sqrtf(squares);
    factor = 1 / (length < to_do.eps ? to_do.eps : length);
  } else {
    factor = 1 / sqrtf(squares / static_cast<float>(D) + to_do.eps);
  }
  for (int64_t i = 0; i < padded; i += kLanes) store(x + i, load(x + i) * factor);
  return factor;
}

inline void multiply_by_gain(float* x, int64_t D, const Preparation& to_do) {
  if (to_do.gain.data == nullptr) return;
  const auto* gain = static_cast<const float*>(to_do.gain.data);
  for (int64_t i = 0; i < D; ++i) x[i] *= gain[i];
}

// Rotates the pairs (i, i + D / 2) by the angles of a position, or back by them.
template <bool kBack>
inline void rotate_row(float* x, int64_t D, const Preparation& to_do, int64_t position) {
  if (to_do.cos.data == nullptr) return;
  const auto* cos = reinterpret_cast<const float*>(to_do.cos.at(position));
  const auto* sin = reinterpret_cast<const float*>(to_do.sin.at(position));
  const int64_t cos_step = to_do.cos.stride[1];
  const int64_t sin_step = to_do.sin.stride[1];
  const int64_t half = D / 2;
  int64_t i = 0;
  if (cos_step == 1 && sin_step == 1) {
    for (; i + kLanes <= half; i += kLanes) {
      const Floats first = load(x + i);
      const Floats second = load(x + half + i);
      const Floats c = load(cos + i);
      const Floats s = kBack ? -load(sin + i) : load(sin + i);
      store(x + i, first * c - second * s);
      store(x + half + i, second * c + first * s);
    }
  }
  for (; i < half; ++i) {
    const float first = x[i];
    const float second = x[half + i];
    const float c = cos[i * cos_step];
    const float s = kBack ? -sin[i * sin_step] : sin[i * sin_step];
    x[i] = first * c - second * s;
    x[half + i] = second * c + first * s;
  }
}

// All of it: x as it enters the product.
inline void prepare_row(float* x, int64_t D, int64_t padded, const Preparation& to_do,
                        int64_t position) {
  normalise_row(x, D, padded, to_do);
  multiply_by_gain(x, D, to_do);
  rotate_row<false>(x, D, to_do, position);
}

// Makes of the gradient of a normalised row, `unit`, that of the row which `factor` normalised.
inline void through_norm(float* d, const float* unit, float factor, int64_t D, int64_t padded,
                         const Preparation& to_do) {
  if (to_do.norm == Norm::kNone) return;
  float along = dot(d, unit, padded);
  if (to_do.norm != Norm::kL2) along /= static_cast<float>(D);
  // There the factor does not depend on the row.
  if (to_do.norm == Norm::kL2 && factor >= 1 / to_do.eps) along = 0;
  Floats total = {};
  for (int64_t i = 0; i < padded; i += kLanes) {
    const Floats found = (load(d + i) - load(unit + i) * along) * factor;
    store(d + i, found);
    total += found;
  }
  if (to_do.norm != Norm::kLayer) return;
  const float mean = sum(total) / static_cast<float>(D);
  for (int64_t i = 0; i < D; ++i) d[i] -= mean;
}

}  // namespace pyseq::PYSEQ_ISA
