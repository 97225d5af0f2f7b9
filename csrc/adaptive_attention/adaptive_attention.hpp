// Softmax attention that sharpens itself by the entropy of its weights.
#pragma once

#include "cpu/attention_backward.hpp"
#include "cpu/isa.hpp"
#include "cpu/tensor.hpp"

namespace pyseq {

// beta of an entropy in nats: a polynomial, highest power first, where that is above 1 and the
// entropy above `least_entropy`, else 1.
struct Sharpness {
  const float* coefficients;
  int64_t count;
  float least_entropy;

  float beta(float nats) const { return acts(nats) ? polynomial(nats) : 1; }
  float slope(float nats) const {
    float found = 0;
    for (int64_t i = 0; i < count - 1; ++i) {
      found = found * nats + static_cast<float>(count - 1 - i) * coefficients[i];
    }
    return acts(nats) ? found : 0;
  }

 private:
  bool acts(float nats) const { return nats > least_entropy && polynomial(nats) > 1; }
  float polynomial(float nats) const {
    float found = 0;
    for (int64_t i = 0; i < count; ++i) found = found * nats + coefficients[i];
    return found;
  }
};

// query and out (B, H, T, D), key and value (B, G, S, D), of one dtype; the last query stands at
// the last key. measures (4, B, H, T) float32, with s = scale <q, k>: the largest <q, k>,
// ln sum e^(s - max s), the entropy in nats, and ln sum e^(beta (s - max s)); NaN where the query
// sees a NaN or an infinity, 0 where it sees no key.
struct AdaptiveAttention {
  Tensor query;
  Tensor key;
  Tensor value;
  Tensor out;
  Tensor measures;
  float scale;  // above 0
  Sharpness sharpness;
  bool causal;
  int threads;
};

struct AdaptiveAttentionBackward {
  AttentionBackward all;  // no gradient of the scale
  Tensor measures;
  Sharpness sharpness;
};

PYSEQ_FOR_EVERY_ISA(adaptive_attention, AdaptiveAttention)
PYSEQ_FOR_EVERY_WIDTH(adaptive_attention_backward, AdaptiveAttentionBackward)

void adaptive_attention(const AdaptiveAttention& arguments);
void adaptive_attention_backward(const AdaptiveAttentionBackward& arguments);

}  // namespace pyseq
