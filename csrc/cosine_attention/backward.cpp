// The gradient of cosine_attention for one instruction set.
#include "cosine_attention/cosine_attention.hpp"
#include "cpu/attention_gradient.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

// P = e^(logit - lse) and dS = P (dP - <dO, O>). With kMeasure lse and <dO, O> are found again in a
// sweep of its own: those of a forward that multiplied in another way are rounded in another way.
template <bool kMeasure>
class SoftmaxWeights {
 public:
  static constexpr bool kMeasures = kMeasure;

  struct Row {
    float lse;    // in units of ln 2
    float delta;  // <dO, O>
    float mean;   // of its scores, before the scale
    float rest;   // sum of dS, which only rounding keeps from 0
    float mass;   // sum of P, which only rounding of scores in the forward keeps from 1
  };

  explicit SoftmaxWeights(const CosineAttentionBackward& x) : x_(x) {}

  bool begin(Row& row, int64_t b, int64_t h, int64_t t, const float* grad, float* out) const {
    const float lse = *reinterpret_cast<const float*>(x_.lse.at(b, h, t));
    const int64_t D = x_.all.query.shape[3];
    load_row(x_.out.at(b, h, t), x_.out.dtype, x_.out.stride[3], D, out);
    float delta = 0;
    for (int64_t d = 0; !kMeasure && d < D; ++d) delta += grad[d] * out[d];
    row = {static_cast<float>(double{lse} * 1.4426950408889634), delta, 0, 0, 0};
    return all_finite(&lse, 1);
  }

  template <bool kMasked>
  PYSEQ_INLINE void measure(Row& row, const Seen& seen, int64_t first, int64_t width, float scale,
                            const float* scores, const float* d_weights) const {
    Floats mass = {};
    Floats delta = {};
    for (int64_t j = 0; j < width; j += kLanes) {
      const Floats weight = weight_of<kMasked>(row, seen, first + j, scale, load(scores + j));
      mass += weight;
      delta += weight * load(d_weights + j);
    }
    row.mass += sum(mass);
    row.delta += sum(delta);
  }

  void measured(Row& row) const {
    if (!(row.mass > 0)) return;
    row.delta /= row.mass;
    row.lse += log2f(row.mass);
    row.mass = 0;
  }

  template <bool kMasked>
  PYSEQ_INLINE void differentiate(Row& row, const Seen& seen, int64_t first, int64_t width,
                                  float scale, float* weights, float* scores) const {
    // The weight of a single key is 1, whatever its score; rounding would not leave 0 of it.
    const float moves = seen.count() == 1 ? 0 : 1;
    Floats mass = {};
    Floats mean = {};
    Floats rest = {};
    for (int64_t j = 0; j < width; j += kLanes) {
      const Floats score = load(weights + j);
      const Floats weight = weight_of<kMasked>(row, seen, first + j, scale, score);
      const Floats found = weight * (load(scores + j) - row.delta) * moves;
      mass += weight;
      mean += weight * score;
      rest += found;
      store(weights + j, weight);
      store(scores + j, found);
    }
    row.mass += sum(mass);
    row.mean += sum(mean);
    row.rest += sum(rest);
  }

  float excess(const Row& row) const { return row.mass > 0 ? row.mass : 1; }

  // Around the mean score: what rounding left of delta drops out.
  float rest_of_scale(const Row& row) const {
    return row.mean * row.rest / (excess(row) * excess(row));
  }

 private:
  template <bool kMasked>
  PYSEQ_INLINE Floats weight_of(const Row& row, const Seen& seen, int64_t first, float scale,
                                Floats score) const {
    const Floats power = score * (scale * kLog2E) - row.lse;
    const Floats weight = exp2<7>(maximum(power, broadcast(kVanished)));
    if constexpr (!kMasked) return weight;
    return seen.hidden(first) ? Floats{} : weight;
  }

  const CosineAttentionBackward& x_;
};

template <bool kMeasure>
void run(const CosineAttentionBackward& x) {
  const SoftmaxWeights<kMeasure> weights(x);
  AttentionGradient<SoftmaxWeights<kMeasure>>(x.all, weights).run();
}

}  // namespace

void cosine_attention_backward(const CosineAttentionBackward& x) {
#if defined(__AMX_BF16__)
  if (x.all.query.dtype == DType::kFloat32) return run<true>(x);
#endif
  run<false>(x);
}

}  // namespace pyseq::PYSEQ_ISA
