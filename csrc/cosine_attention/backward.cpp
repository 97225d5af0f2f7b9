// The gradient of cosine_attention for one instruction set.
#include "cosine_attention/cosine_attention.hpp"
#include "cpu/attention_gradient.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

// P = e^(logit - lse) and dS = P (dP - <dO, O>).
class SoftmaxWeights {
 public:
  static constexpr bool kMeasures = false;

  struct Row {
    float lse;    // in units of ln 2
    float delta;  // <dO, O>
    float mean;   // of its scores, before the scale
    float rest;   // sum of dS, which only rounding keeps from 0
  };

  explicit SoftmaxWeights(const CosineAttentionBackward& x) : x_(x) {}

  bool begin(Row& row, int64_t b, int64_t h, int64_t t, const float* grad, float* out) const {
    const float lse = *reinterpret_cast<const float*>(x_.lse.at(b, h, t));
    const int64_t D = x_.all.query.shape[3];
    load_row(x_.out.at(b, h, t), x_.out.dtype, x_.out.stride[3], D, out);
    // In the order in which dP is summed, so that both are the same where there is one key.
    float delta = 0;
    for (int64_t d = 0; d < D; ++d) delta += grad[d] * out[d];
    row = {static_cast<float>(double{lse} * 1.4426950408889634), delta, 0, 0};
    return all_finite(&lse, 1);
  }

  template <bool kMasked>
  PYSEQ_INLINE void differentiate(Row& row, const Seen& seen, int64_t first, int64_t width,
                                  float scale, float* weights, float* scores) const {
    const float factor = scale * kLog2E;
    // The weight of a single key is 1, whatever its score; rounding would not leave 0 of it.
    const float moves = seen.count() == 1 ? 0 : 1;
    Floats mean = {};
    Floats rest = {};
    for (int64_t j = 0; j < width; j += kLanes) {
      const Floats score = load(weights + j);
      const Floats power = maximum(score * factor - row.lse, broadcast(kVanished));
      Floats weight = exp2<7>(power);
      if constexpr (kMasked) weight = seen.hidden(first + j) ? Floats{} : weight;
      const Floats found = weight * (load(scores + j) - row.delta) * moves;
      mean += weight * score;
      rest += found;
      store(weights + j, weight);
      store(scores + j, found);
    }
    row.mean += sum(mean);
    row.rest += sum(rest);
  }

  // Around the mean score: what rounding left of delta drops out.
  float rest_of_scale(const Row& row) const { return row.mean * row.rest; }

 private:
  const CosineAttentionBackward& x_;
};

}  // namespace

void cosine_attention_backward(const CosineAttentionBackward& x) {
  const SoftmaxWeights weights(x);
  AttentionGradient<SoftmaxWeights>(x.all, weights).run();
}

}  // namespace pyseq::PYSEQ_ISA
