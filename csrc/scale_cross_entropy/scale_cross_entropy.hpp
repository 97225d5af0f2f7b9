// Cross-entropies at several scales from logits that never exist together, and their gradients.
#pragma once

#include "cpu/isa.hpp"
#include "cpu/tensor.hpp"

namespace pyseq {

// logits = hidden weight^T + bias, summed in float32: hidden (N, C), weight (V, C), bias (V,) or
// absent, of one floating dtype; targets (N,) int64. At scale s symbol i falls in bin i // s.
// scales, each below V, are `scale_count` numbers.
struct ScaleLogits {
  Tensor hidden;
  Tensor weight;
  Tensor bias;
  Tensor targets;
  const int64_t* scales;
  int64_t scale_count;
  int threads;
};

// losses (scales, N) and masses (2, 1 + scales, N) are contiguous float32. A mass is a maximum,
// [0], and a sum of exp(logit - maximum), [1]: of all symbols, then of the target's bin at each
// scale. A target outside the alphabet has an infinite loss.
struct ScaleCrossEntropy {
  ScaleLogits logits;
  Tensor losses;
  Tensor masses;
};

// grad (scales, N) and the forward's masses are contiguous float32. The gradients, each absent
// where not wanted, are float32, N and V of them rounded up to multiples of 16, C to 32; rows are
// contiguous. A row whose grads are all 0 reaches nothing, whatever it holds.
struct ScaleCrossEntropyBackward {
  ScaleLogits logits;
  Tensor grad;
  Tensor masses;
  Tensor d_hidden;
  Tensor d_weight;
  Tensor d_bias;
};

PYSEQ_FOR_EVERY_ISA(scale_cross_entropy, ScaleCrossEntropy)
PYSEQ_FOR_EVERY_ISA(scale_cross_entropy_backward, ScaleCrossEntropyBackward)

void scale_cross_entropy(const ScaleCrossEntropy& arguments);
void scale_cross_entropy_backward(const ScaleCrossEntropyBackward& arguments);

}  // namespace pyseq
