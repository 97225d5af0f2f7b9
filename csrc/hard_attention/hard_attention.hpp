// Each query copies the value of its highest-scoring key.
#pragma once

#include "cpu/isa.hpp"
#include "cpu/tensor.hpp"

namespace pyseq {

// query and out (B, H, T, D), key and value (B, G, S, D), of one dtype; index (B, H, T) int64. The
// last query stands at the last key. Scores are products in float32; the lowest of equal ones wins,
// NaN never does. A query that sees no key gives zeros and -1; one all of whose scores are NaN
// gives NaN and -1. S is below 2^31.
struct HardAttention {
  Tensor query;
  Tensor key;
  Tensor value;
  Tensor out;
  Tensor index;
  bool causal;
  int threads;
};

// grad (B, H, T, D) of the output; grad_value (B, G, S, D): each row of grad, added up in float32
// where its output was copied from.
struct HardAttentionCopyBackward {
  Tensor grad;
  Tensor index;
  Tensor grad_value;
  int threads;
};

PYSEQ_FOR_EVERY_ISA(hard_attention, HardAttention)
PYSEQ_FOR_EVERY_WIDTH(hard_attention_copy_backward, HardAttentionCopyBackward)

void hard_attention(const HardAttention& arguments);
void hard_attention_copy_backward(const HardAttentionCopyBackward& arguments);

}  // namespace pyseq
