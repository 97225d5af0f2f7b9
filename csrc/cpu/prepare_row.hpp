// Normalises, weights and rotates one row; for sources compiled once per instruction set.
#pragma once

#include "cpu/preparation.hpp"
#include "cpu/vector.hpp"

namespace pyseq::PYSEQ_ISA {

// x^2 summed; n is a multiple of kLanes.
PYSEQ_INLINE float sum_of_squares(const float* x, int64_t n) {
  Floats total = {};
  for (int64_t i = 0; i < n; i += kLanes) total += load(x + i) * load(x + i);
  return sum(total);
}

// A row of D features, padded with zeros to `padded`, a multiple of kLanes, at a position.
inline void prepare_row(float* x, int64_t D, int64_t padded, const Preparation& to_do,
                        int64_t position) {
  if (to_do.norm == Norm::kLayer) {
    Floats total = {};
    for (int64_t i = 0; i < padded; i += kLanes) total += load(x + i);
    const float mean = sum(total) / static_cast<float>(D);
    for (int64_t i = 0; i < D; ++i) x[i] -= mean;
  }
  if (to_do.norm != Norm::kNone) {
    const float squares = sum_of_squares(x, padded);
    float factor;
    if (to_do.norm == Norm::kL2) {
      const float length = sqrtf(squares);
      factor = 1 / (length < to_do.eps ? to_do.eps : length);
    } else {
      factor = 1 / sqrtf(squares / static_cast<float>(D) + to_do.eps);
    }
    for (int64_t i = 0; i < padded; i += kLanes) store(x + i, load(x + i) * factor);
  }
  if (to_do.gain.data != nullptr) {
    const auto* gain = static_cast<const float*>(to_do.gain.data);
    for (int64_t i = 0; i < D; ++i) x[i] *= gain[i];
  }
  if (to_do.cos.data != nullptr) {
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
        store(x + i, first * load(cos + i) - second * load(sin + i));
        store(x + half + i, second * load(cos + i) + first * load(sin + i));
      }
    }
    for (; i < half; ++i) {
      const float first = x[i];
      const float second = x[half + i];
      const float c = cos[i * cos_step];
      const float s = sin[i * sin_step];
      x[i] = first * c - second * s;
      x[half + i] = second * c + first * s;
    }
  }
}

}  // namespace pyseq::PYSEQ_ISA
