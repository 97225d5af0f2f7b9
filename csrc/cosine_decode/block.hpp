// Products of a few rows of queries with a block of keys or values that lie in a cache.
//
// A tile is 1, 2 or 4 rows of queries. Its scores of a block come in vectors: lane r * tile_keys +
// j is row r's score of a vector's key j.
#pragma once

#include "cpu/vector.hpp"

namespace pyseq::PYSEQ_ISA {

inline constexpr int kTallest = 4;     // rows of a tile
inline constexpr int64_t kBlock = 64;  // keys of a block: with their values they stay in L1
inline constexpr int kSlab = kLanes == 16 ? 4 : 2;  // vectors of features, x 4 rows of sums

// How rows of a cache become vectors: kStep at a time. Their features may come in an order of their
// own, which queries and outputs then share.
struct FloatRows {
  using Element = float;
  static constexpr int kStep = 1;
  static PYSEQ_INLINE void read(const float* from, Floats* to) { to[0] = load(from); }
};

// Even features, then odd ones: one instruction each.
struct BfloatRows {
  using Element = uint16_t;
  static constexpr int kStep = 2;
  static PYSEQ_INLINE void read(const uint16_t* from, Floats* to) {
    Ints pairs;
    memcpy(&pairs, from, sizeof pairs);
    to[0] = (Floats)(pairs << 16);
    to[1] = (Floats)(pairs & static_cast<int32_t>(0xffff0000));
  }
};

#if defined(__AVX2__)
struct HalfRows {
  using Element = uint16_t;
  static constexpr int kStep = 1;
  static PYSEQ_INLINE void read(const uint16_t* from, Floats* to) { to[0] = load_float16(from); }
};
#endif

// n features of a row of float32 into the order of Rows, and back; n is a multiple of its vectors.
template <typename Rows>
void into_order(const float* from, int64_t n, float* to) {
  constexpr int64_t kChunk = Rows::kStep * kLanes;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t at = i % kChunk;
    to[i - at + at % Rows::kStep * kLanes + at / Rows::kStep] = from[i];
  }
}

template <typename Rows>
void out_of_order(const float* from, int64_t n, float* to) {
  constexpr int64_t kChunk = Rows::kStep * kLanes;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t at = i % kChunk;
    to[i] = from[i - at + at % Rows::kStep * kLanes + at / Rows::kStep];
  }
}

// Lane i of the result is the sum over x[i].
PYSEQ_INLINE Floats add_up(const Floats (&x)[kLanes]) {
#if defined(__AVX512F__)
  Floats fours[4];  // of four vectors each: lane i of every 128 bits is a part of x[i]'s sum
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const auto* y = x + 4 * i;
    const __m512 low = _mm512_add_ps(_mm512_unpacklo_ps((__m512)y[0], (__m512)y[1]),
                                     _mm512_unpackhi_ps((__m512)y[0], (__m512)y[1]));
    const __m512 high = _mm512_add_ps(_mm512_unpacklo_ps((__m512)y[2], (__m512)y[3]),
                                      _mm512_unpackhi_ps((__m512)y[2], (__m512)y[3]));
    fours[i] = (Floats)_mm512_add_ps(_mm512_shuffle_ps(low, high, 0x44),
                                     _mm512_shuffle_ps(low, high, 0xee));
  }
  const auto halves = [](Floats a, Floats b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4((__m512)a, (__m512)b, 0x44),
                         _mm512_shuffle_f32x4((__m512)a, (__m512)b, 0xee));
  };
  const __m512 first = halves(fours[0], fours[1]);
  const __m512 second = halves(fours[2], fours[3]);
  return (Floats)_mm512_add_ps(_mm512_shuffle_f32x4(first, second, 0x88),
                               _mm512_shuffle_f32x4(first, second, 0xdd));
#elif defined(__AVX2__)
  const auto four = [&](int i) {
    return _mm256_hadd_ps(_mm256_hadd_ps((__m256)x[i], (__m256)x[i + 1]),
                          _mm256_hadd_ps((__m256)x[i + 2], (__m256)x[i + 3]));
  };
  const __m256 low = four(0);
  const __m256 high = four(4);
  return (Floats)_mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20),
                               _mm256_permute2f128_ps(low, high, 0x31));
#else
  Floats total;
  for (int i = 0; i < kLanes; ++i) total[i] = sum(x[i]);
  return total;
#endif
}

// Scores of kRows queries, `pitch` apart, for kLanes / kRows keys: a vector of scores.
template <typename Rows, int kRows>
PYSEQ_INLINE Floats score(const float* queries, int64_t pitch, const typename Rows::Element* keys,
                          int64_t stride, int64_t depth) {
  constexpr int kKeys = kLanes / kRows;
  constexpr int kTogether = kKeys < 4 ? kKeys : 4;  // keys that share each vector of a query
  Floats sums[kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) sums[i] = Floats{};
#pragma GCC unroll 4
  for (int first = 0; first < kKeys; first += kTogether) {
    const typename Rows::Element* from = keys + first * stride;
    for (int64_t d = 0; d < depth; d += Rows::kStep * kLanes) {
      Floats x[kTogether][Rows::kStep];
#pragma GCC unroll 4
      for (int j = 0; j < kTogether; ++j) Rows::read(from + j * stride + d, x[j]);
#pragma GCC unroll 2
      for (int step = 0; step < Rows::kStep; ++step) {
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          const Floats q = load(queries + r * pitch + d + step * kLanes);
#pragma GCC unroll 4
          for (int j = 0; j < kTogether; ++j) sums[r * kKeys + first + j] += q * x[j][step];
        }
      }
    }
  }
  return add_up(sums);
}

// out (kRows rows `pitch` apart, kWidth vectors) += weights of keys [begin, end) times their
// values; weights[0] is of row 0 and key 0, in vectors of scores that hold kKeys keys.
template <typename Rows, int kRows, int kKeys, int kWidth>
PYSEQ_INLINE void add_slab(const float* weights, const typename Rows::Element* values,
                           int64_t stride, int64_t begin, int64_t end, float* out, int64_t pitch) {
  Floats sums[kRows][kWidth];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int w = 0; w < kWidth; ++w) sums[r][w] = Floats{};
  }
  for (int64_t k = begin; k < end; ++k) {
    Floats x[kWidth];
#pragma GCC unroll 4
    for (int w = 0; w < kWidth; w += Rows::kStep) {
      Rows::read(values + k * stride + w * kLanes, x + w);
    }
    const float* of_key = weights + (k & ~int64_t{kKeys - 1}) / kKeys * kLanes + (k & (kKeys - 1));
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Floats weight = broadcast(of_key[r * kKeys]);
#pragma GCC unroll 4
      for (int w = 0; w < kWidth; ++w) sums[r][w] += weight * x[w];
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int w = 0; w < kWidth; ++w) {
      // Only now: what rounding loses in a long sum grows with how often something is added to it.
      float* to = out + r * pitch + w * kLanes;
      store(to, load(to) + sums[r][w]);
    }
  }
}

// The same for all `depth` features.
template <typename Rows, int kRows, int kKeys>
PYSEQ_INLINE void add_values(const float* weights, const typename Rows::Element* values,
                             int64_t stride, int64_t begin, int64_t end, float* out, int64_t pitch,
                             int64_t depth) {
  int64_t d = 0;
  for (; d + kSlab * kLanes <= depth; d += kSlab * kLanes) {
    add_slab<Rows, kRows, kKeys, kSlab>(weights, values + d, stride, begin, end, out + d, pitch);
  }
  for (; d < depth; d += Rows::kStep * kLanes) {
    add_slab<Rows, kRows, kKeys, Rows::kStep>(weights, values + d, stride, begin, end, out + d,
                                              pitch);
  }
}

}  // namespace pyseq::PYSEQ_ISA
