// What the gradients of all attentions are made from, and where they go.
#pragma once

#include "cpu/preparation.hpp"
#include "cpu/tensor.hpp"

namespace pyseq {

// grad of the output, what went in, and the gradients; those that are absent are not wanted.
// grad_scale (H,), grad_query_gain and grad_key_gain (D,) are float32. window 0: none.
struct AttentionBackward {
  Tensor grad;
  Tensor query;
  Tensor key;
  Tensor value;
  Tensor scale;  // (H,) float32
  Tensor grad_query;
  Tensor grad_key;
  Tensor grad_value;
  Tensor grad_scale;
  Tensor grad_query_gain;
  Tensor grad_key_gain;
  Preparation prepare_query;
  Preparation prepare_key;
  bool causal = false;
  int64_t window = 0;
  int64_t prefix = 0;
  int threads = 1;

  bool wants_query() const {
    return grad_query.data != nullptr || grad_scale.data != nullptr ||
           grad_query_gain.data != nullptr;
  }
  bool wants_key() const { return grad_key.data != nullptr || grad_key_gain.data != nullptr; }
  bool wants_value() const { return grad_value.data != nullptr; }
};

}  // namespace pyseq
