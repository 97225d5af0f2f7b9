// The gradient of adaptive_attention for one instruction set.
#include "adaptive_attention/adaptive_attention.hpp"
#include "cpu/attention_gradient.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

// With c the logit less the largest one, p = softmax(c), H its entropy and w = softmax(beta c):
//   dS = beta dW + dH (-p (ln p + H)), dW = w (dP - sum w dP), dH = beta'(H) sum dW c.
class SharpenedWeights {
 public:
  static constexpr bool kMeasures = true;

  struct Row {
    float best;       // the largest score
    float total;      // ln sum e^c
    float nats;       // H
    float sharpened;  // ln sum e^(beta c)
    float beta;
    float d_nats;  // dH
    float mass;    // sum w: 1 but for how the forward was rounded
    float delta;   // sum w dP
    float centre;  // sum w c
    float moment;  // sum w c dP
  };

  explicit SharpenedWeights(const AdaptiveAttentionBackward& x) : x_(x) {}

  bool begin(Row& row, int64_t b, int64_t h, int64_t t, const float* /*grad*/,
             float* /*scratch*/) const {
    float found[4];
    for (int64_t i = 0; i < 4; ++i) {
      found[i] = *reinterpret_cast<const float*>(x_.measures.at(i, b, h, t));
    }
    row = {found[0], found[1], found[2], found[3], x_.sharpness.beta(found[2]), 0, 0, 0, 0, 0};
    return all_finite(found, 4);
  }

  template <bool kMasked>
  PYSEQ_INLINE void measure(Row& row, const Seen& seen, int64_t first, int64_t width, float scale,
                            const float* scores, const float* d_weights) const {
    Floats mass = {};
    Floats delta = {};
    Floats centre = {};
    Floats moment = {};
    for (int64_t j = 0; j < width; j += kLanes) {
      const Floats centred = centred_of<kMasked>(row, seen, first + j, scale, scores + j);
      const Floats weight = weight_of(row, centred);
      const Floats part = weight * load(d_weights + j);
      mass += weight;
      delta += part;
      centre += weight * centred;
      moment += part * centred;
    }
    row.mass += sum(mass);
    row.delta += sum(delta);
    row.centre += sum(centre);
    row.moment += sum(moment);
  }

  void measured(Row& row) const {
    row.sharpened += logf(row.mass);
    row.delta /= row.mass;
    row.centre /= row.mass;
    row.moment /= row.mass;
    row.d_nats = x_.sharpness.slope(row.nats) * kLn2 * (row.moment - row.delta * row.centre);
  }

  template <bool kMasked>
  PYSEQ_INLINE void differentiate(Row& row, const Seen& seen, int64_t first, int64_t width,
                                  float scale, float* weights, float* scores) const {
    // The weight of a single key is 1, whatever its score; rounding would not leave 0 of it.
    const float moves = seen.count() == 1 ? 0 : 1;
    for (int64_t j = 0; j < width; j += kLanes) {
      const Floats centred = centred_of<kMasked>(row, seen, first + j, scale, weights + j);
      const Floats weight = weight_of(row, centred);
      const Floats p = exp2<7>(maximum(centred - row.total * kLog2E, broadcast(kVanished)));
      const Floats log_p = centred * kLn2 - row.total;  // wrong where p is 0, and multiplied by it
      const Floats sharpened = row.beta * weight * (load(scores + j) - row.delta);
      store(weights + j, weight);
      store(scores + j, (sharpened - row.d_nats * p * (log_p + row.nats)) * moves);
    }
  }

  float excess(const Row& /*row*/) const { return 1; }
  float rest_of_scale(const Row& /*row*/) const { return 0; }

 private:
  // c in units of ln 2; kVanished of a key that is hidden or has no mass.
  template <bool kMasked>
  PYSEQ_INLINE Floats centred_of(const Row& row, const Seen& seen, int64_t first, float scale,
                                 const float* scores) const {
    const Floats found = (load(scores) - row.best) * (scale * kLog2E);
    const Floats centred = maximum(found, broadcast(kVanished));
    if constexpr (!kMasked) return centred;
    return seen.hidden(first) ? broadcast(kVanished) : centred;
  }

  PYSEQ_INLINE Floats weight_of(const Row& row, Floats centred) const {
    const Floats power = row.beta * centred - row.sharpened * kLog2E;
    return exp2<7>(maximum(power, broadcast(kVanished)));
  }

  const AdaptiveAttentionBackward& x_;
};

}  // namespace

void adaptive_attention_backward(const AdaptiveAttentionBackward& x) {
  const SharpenedWeights weights(x);
  AttentionGradient<SharpenedWeights>(x.all, weights).run();
}

}  // namespace pyseq::PYSEQ_ISA
