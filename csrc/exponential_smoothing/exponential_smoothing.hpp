// Exponential smoothing over time, and its gradient.
#pragma once

#include "cpu/isa.hpp"
#include "cpu/tensor.hpp"

namespace pyseq {

// values and out (B, T, H, D), of one floating dtype and any strides; alpha (H,) and initial (H, D)
// contiguous float32. out_t is alpha values_t + (1 - alpha) out_(t-1) before it is rounded, and
// out_(-1) is initial.
struct ExponentialSmoothing {
  Tensor values;
  Tensor alpha;
  Tensor initial;
  Tensor out;
  int threads;
};

// grad, of out, and d_values are like values, d_alpha and d_initial like alpha and initial; those
// that are not wanted are absent. T is at least 1.
struct ExponentialSmoothingBackward {
  Tensor grad;
  Tensor values;
  Tensor alpha;
  Tensor initial;
  Tensor d_values;
  Tensor d_alpha;
  Tensor d_initial;
  int threads;
};

PYSEQ_FOR_EVERY_WIDTH(exponential_smoothing, ExponentialSmoothing)
PYSEQ_FOR_EVERY_WIDTH(exponential_smoothing_backward, ExponentialSmoothingBackward)

void exponential_smoothing(const ExponentialSmoothing& arguments);
void exponential_smoothing_backward(const ExponentialSmoothingBackward& arguments);

}  // namespace pyseq
