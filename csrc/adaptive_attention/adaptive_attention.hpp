// Softmax attention that sharpens itself by the entropy of its weights.
#pragma once

#include "cpu/isa.hpp"
#include "cpu/tensor.hpp"

namespace pyseq {

// query and out (B, H, T, D), key and value (B, G, S, D), of one dtype; the last query stands at
// the last key. measures (4, B, H, T) float32: of s = scale <q, k> the largest <q, k>, ln sum e^(s
// - max), the entropy in nats, and ln sum e^(beta (s - max)). beta is the polynomial in the
// entropy, highest power first, where that is above 1 and the entropy above `least_entropy`,
// else 1.
struct AdaptiveAttention {
  Tensor query;
  Tensor key;
  Tensor value;
  Tensor out;
  Tensor measures;
  float scale;
  const float* coefficients;
  int64_t degree;  // coefficients less one
  float least_entropy;
  bool causal;
  int threads;
};

PYSEQ_FOR_EVERY_ISA(adaptive_attention, AdaptiveAttention)

void adaptive_attention(const AdaptiveAttention& arguments);

}  // namespace pyseq
