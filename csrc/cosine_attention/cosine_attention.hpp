// Softmax attention over normalised, weighted and rotated queries and keys.
#pragma once

#include "cpu/attention_backward.hpp"
#include "cpu/isa.hpp"
#include "cpu/preparation.hpp"
#include "cpu/tensor.hpp"

namespace pyseq {

// query and out (B, H, T, D), key and value (B, G, S, D), of one dtype; scale (H,) float32, and lse
// (B, H, T) float32, the logits' log-sum-exp. The last query stands at the last key. A query sees
// the first `prefix` keys and, of the others, those that `causal` and `window` (0: none) leave.
// Where |logits| have a bound the softmax needs no running maximum.
struct CosineAttention {
  Tensor query;
  Tensor key;
  Tensor value;
  Tensor scale;
  Tensor out;
  Tensor lse;
  Preparation prepare_query;
  Preparation prepare_key;
  bool causal;
  int64_t window;
  int64_t prefix;
  float logit_bound;  // promised by the caller; 0: nothing is
  int threads;
};

struct CosineAttentionBackward {
  AttentionBackward all;
  Tensor out;
  Tensor lse;
};

PYSEQ_FOR_EVERY_ISA(cosine_attention, CosineAttention)
PYSEQ_FOR_EVERY_ISA(cosine_attention_backward, CosineAttentionBackward)

void cosine_attention(const CosineAttention& arguments);
void cosine_attention_backward(const CosineAttentionBackward& arguments);

}  // namespace pyseq
