// Softmax attention over normalised, weighted and rotated queries and keys.
#pragma once

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

// What went in and came out, the output's gradient, and the gradients; those that are absent are
// not wanted. grad_scale (H,), grad_query_gain and grad_key_gain (D,) are float32.
struct CosineAttentionBackward {
  Tensor grad;
  Tensor query;
  Tensor key;
  Tensor value;
  Tensor scale;
  Tensor out;
  Tensor lse;
  Tensor grad_query;
  Tensor grad_key;
  Tensor grad_value;
  Tensor grad_scale;
  Tensor grad_query_gain;
  Tensor grad_key_gain;
  Preparation prepare_query;
  Preparation prepare_key;
  bool causal;
  int64_t window;
  int64_t prefix;
  int threads;

  bool wants_query() const {
    return grad_query.data != nullptr || grad_scale.data != nullptr ||
           grad_query_gain.data != nullptr;
  }
  bool wants_key() const { return grad_key.data != nullptr || grad_key_gain.data != nullptr; }
  bool wants_value() const { return grad_value.data != nullptr; }
};

PYSEQ_FOR_EVERY_ISA(cosine_attention, CosineAttention)
PYSEQ_FOR_EVERY_ISA(cosine_attention_backward, CosineAttentionBackward)

void cosine_attention(const CosineAttention& arguments);
void cosine_attention_backward(const CosineAttentionBackward& arguments);

}  // namespace pyseq
