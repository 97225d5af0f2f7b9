// The gradient of the values that hard_attention copied, for one instruction set.
#include "cpu/packed_rows.hpp"
#include "hard_attention/hard_attention.hpp"

namespace pyseq::PYSEQ_ISA {

// A task adds a slice of the features of a key head's queries, in their order.
void hard_attention_copy_backward(const HardAttentionCopyBackward& x) {
  constexpr int64_t kSlice = 64 / int64_t{sizeof(float)};  // a cache line of sums
  const int64_t B = x.grad.shape[0];
  const int64_t H = x.grad.shape[1];
  const int64_t T = x.grad.shape[2];
  const int64_t D = x.grad.shape[3];
  const int64_t G = x.grad_value.shape[1];
  const int64_t S = x.grad_value.shape[2];
  const int64_t slices = (D + kSlice - 1) / kSlice;
  const int threads = useful_threads(x.threads, double(B * H) * double(T * D));
  const Buffer sums(B * G * slices * S * kSlice * int64_t{sizeof(float)});

  for_tasks(B * G * slices, threads, [&](int64_t task, int /*worker*/) {
    const int64_t b = task / slices / G;
    const int64_t g = task / slices % G;
    const int64_t first = task % slices * kSlice;
    const int64_t width = D - first < kSlice ? D - first : kSlice;
    auto* total = sums.as<float>() + task * S * kSlice;
    memset(total, 0, static_cast<size_t>(S * kSlice) * sizeof(float));
    for (int64_t h = g * (H / G); h < (g + 1) * (H / G); ++h) {
      for (int64_t t = 0; t < T; ++t) {
        const int64_t chosen = *reinterpret_cast<const int64_t*>(x.index.at(b, h, t));
        if (chosen < 0) continue;
        float row[kSlice] = {};
        load_row(x.grad.at(b, h, t, first), x.grad.dtype, x.grad.stride[3], width, row);
        for (int64_t d = 0; d < kSlice; ++d) total[chosen * kSlice + d] += row[d];
      }
    }
    for (int64_t s = 0; s < S; ++s) {
      store_row(total + s * kSlice, x.grad_value.dtype, x.grad_value.stride[3], width,
                x.grad_value.at(b, g, s, first));
    }
  });
}

}  // namespace pyseq::PYSEQ_ISA
