// The patches of a series, normalised; for sources compiled once per instruction set. A Call is any
// struct of arguments with samples, center, spread and stride.
#pragma once

#include "cpu/vector.hpp"

namespace pyseq::PYSEQ_ISA {

template <typename Sample>
void widen_samples(const char* from, int64_t stride, int64_t n, float* to) {
  const auto* x = reinterpret_cast<const Sample*>(from);
  if (stride == 1) {
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(x[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(x[i * stride]);
  }
}

inline void load_samples(const Tensor& samples, int64_t b, int64_t t, int64_t n, float* to) {
  const char* from = samples.at(b, t);
  if (samples.dtype == DType::kUint16) {
    widen_samples<uint16_t>(from, samples.stride[1], n, to);
  } else if (samples.dtype == DType::kInt16) {
    widen_samples<int16_t>(from, samples.stride[1], n, to);
  } else {
    load_row(from, samples.dtype, samples.stride[1], n, to);
  }
}

// n samples of row b from sample t on, normalised; `to` has room for whole vectors.
template <typename Call>
void normalise(const Call& x, int64_t b, int64_t t, int64_t n, float* to) {
  const int64_t T = x.samples.shape[1];
  const int64_t there = T - t < n ? T - t : n;
  load_samples(x.samples, b, t, there, to);
  if (there < n) {
    float last;
    load_samples(x.samples, b, T - 1, 1, &last);
    for (int64_t i = there; i < n; ++i) to[i] = last;
  }
  const Floats center = broadcast(*reinterpret_cast<const float*>(x.center.at(b)));
  const Floats spread = broadcast(*reinterpret_cast<const float*>(x.spread.at(b)));
  for (int64_t i = 0; i < n; i += kLanes) store(to + i, (load(to + i) - center) / spread);
}

// Calls body(i, n, samples) for the patches first + i to first + i + n - 1, which lie in one row:
// patch i + k starts at samples[k * stride].
template <typename Call, typename Body>
PYSEQ_INLINE void for_runs(const Call& x, int64_t N, int64_t P, int64_t first, int64_t count,
                           float* samples, const Body& body) {
  for (int64_t i = 0; i < count;) {
    const int64_t n = (first + i) % N;
    const int64_t run = N - n < count - i ? N - n : count - i;
    normalise(x, (first + i) / N, n * x.stride, (run - 1) * x.stride + P, samples);
    body(i, run, samples);
    i += run;
  }
}

}  // namespace pyseq::PYSEQ_ISA
