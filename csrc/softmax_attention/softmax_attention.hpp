// Softmax attention for narrow heads, with dropout of its weights.
#pragma once

#include "cpu/isa.hpp"
#include "cpu/tensor.hpp"

namespace pyseq {

// Which weights are kept: weight s of query t of head h of entry b is a function of the seed and of
// (b, h, t, s).
struct WeightDropout {
  int64_t seed;
  int32_t dropped;  // of 65536
};

// query and out (B, H, T, D), key and value (B, G, S, D), of one floating dtype and any strides;
// lengths (B,) int64, keys from there on are hidden, or absent. measures (2, B, H, T) float32: the
// largest <q, k> and ln sum e^(scale (<q, k> - largest)); 0 where a query sees no key, NaN where it
// sees a NaN or an infinity. The last query stands at the last key. No size is 0.
struct SoftmaxAttention {
  Tensor query;
  Tensor key;
  Tensor value;
  Tensor lengths;
  Tensor out;
  Tensor measures;
  float scale;  // above 0
  bool causal;
  WeightDropout dropout;
  int threads;
};

// grad, of out, has any strides; gradients are like what they are of, and absent where not wanted.
struct SoftmaxAttentionBackward {
  Tensor grad;
  Tensor query;
  Tensor key;
  Tensor value;
  Tensor lengths;
  Tensor out;
  Tensor measures;
  Tensor d_query;
  Tensor d_key;
  Tensor d_value;
  float scale;
  bool causal;
  WeightDropout dropout;
  int threads;
};

PYSEQ_FOR_EVERY_WIDTH(softmax_attention, SoftmaxAttention)
PYSEQ_FOR_EVERY_WIDTH(softmax_attention_backward, SoftmaxAttentionBackward)

void softmax_attention(const SoftmaxAttention& arguments);
void softmax_attention_backward(const SoftmaxAttentionBackward& arguments);

}  // namespace pyseq
