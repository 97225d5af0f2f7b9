// Vectors of float32 as wide as the instruction set has them, and the arithmetic on them.
//
// Only for sources that are compiled once per instruction set: everything here is in the namespace
// PYSEQ_ISA that CMakeLists.txt names, and inlined.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "cpu/tensor.hpp"

#define PYSEQ_INLINE inline __attribute__((always_inline))

namespace pyseq::PYSEQ_ISA {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));  // integers that may wrap
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));
typedef float FloatsInMemory __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef int32_t IntsInMemory __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline constexpr float kInfinity = __builtin_inff();
inline constexpr float kLog2E = 1.44269504F;
inline constexpr float kLn2 = 0.69314718F;
inline constexpr float kVanished =
    -300;  // 2^kVanished is 0, and no infinity that NaN could come from

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }
constexpr int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

PYSEQ_INLINE Floats load(const float* from) {
  return *reinterpret_cast<const FloatsInMemory*>(from);
}
PYSEQ_INLINE Ints load(const int32_t* from) { return *reinterpret_cast<const IntsInMemory*>(from); }
PYSEQ_INLINE void store(float* to, Floats x) { *reinterpret_cast<FloatsInMemory*>(to) = x; }
PYSEQ_INLINE void store(int32_t* to, Ints x) { *reinterpret_cast<IntsInMemory*>(to) = x; }
PYSEQ_INLINE Floats broadcast(float x) { return x - Floats{}; }
PYSEQ_INLINE Ints broadcast(int32_t x) { return x - Ints{}; }

// 0, 1, ... kLanes - 1
PYSEQ_INLINE Ints lanes() {
  Ints x;
  for (int i = 0; i < kLanes; ++i) x[i] = i;
  return x;
}

// The larger; b where either is NaN.
PYSEQ_INLINE Floats maximum(Floats a, Floats b) {
#if defined(__AVX512F__)
  return (Floats)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Floats)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
  return (Floats)_mm_max_ps((__m128)a, (__m128)b);
#else
  return a > b ? a : b;
#endif
}

PYSEQ_INLINE float sum(Floats x) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)x);
#else
  float total = 0;
  for (int i = 0; i < kLanes; ++i) total += x[i];
  return total;
#endif
}

PYSEQ_INLINE float largest(Floats x) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)x);
#else
  float best = x[0];
  for (int i = 1; i < kLanes; ++i) best = x[i] > best ? x[i] : best;
  return best;
#endif
}

// Whether a is above b in any lane.
PYSEQ_INLINE bool any_above(Floats a, Floats b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_GT_OQ)) != 0;
#else
  const Ints above = a > b;
  int32_t some = 0;
  for (int i = 0; i < kLanes; ++i) some |= above[i];
  return some != 0;
#endif
}

// The first lane in which a equals b; kLanes where there is none.
PYSEQ_INLINE int first_equal(Floats a, Floats b) {
#if defined(__AVX512F__)
  return __builtin_ctz(_mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ) | (1 << kLanes));
#elif defined(__AVX2__)
  const __m256 equal = _mm256_cmp_ps((__m256)a, (__m256)b, _CMP_EQ_OQ);
  return __builtin_ctz(_mm256_movemask_ps(equal) | (1 << kLanes));
#else
  int lane = 0;
  while (lane < kLanes && a[lane] != b[lane]) ++lane;
  return lane;
#endif
}

// 2^x for x up to 127; 0 below -126. kTerms 4: relative error 8e-5, 7: 1e-7. NaN stays NaN.
// kNormal promises that x is not below -126, and no NaN.
// Polynomials: minimax of the relative error on [-1/2, 1/2], found by linear programming.
template <int kTerms, bool kNormal = false>
PYSEQ_INLINE Floats exp2(Floats x) {
  static_assert(kTerms == 4 || kTerms == 7);
#if defined(__AVX512F__)
  const __m512 whole =
      _mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const Floats r = x - (Floats)whole;
#else
  constexpr float kShifter = 12582912.0F;  // 1.5 * 2^23: the sum's last bits are round(x)
  const Floats shifted = x + kShifter;
  const Floats r = x - (shifted - kShifter);
#endif
  Floats y;
  if constexpr (kTerms == 4) {
    y = broadcast(0x1.c3f760p-5F);
    y = y * r + 0x1.f0de1ap-3F;
    y = y * r + 0x1.62f31ap-1F;
    y = y * r + 0x1.fff692p-1F;
  } else {
    y = broadcast(0x1.41d2b8p-13F);
    y = y * r + 0x1.5f4638p-10F;
    y = y * r + 0x1.3b2dc0p-7F;
    y = y * r + 0x1.c6aed2p-5F;
    y = y * r + 0x1.ebfbdap-3F;
    y = y * r + 0x1.62e430p-1F;
    y = y * r + 1.0F;
  }
#if defined(__AVX512F__)
  return (Floats)_mm512_scalef_ps((__m512)y, whole);
#else
  const Floats scaled = (Floats)((Words)y + ((Words)shifted << 23));
  if constexpr (kNormal) return scaled;
  const Floats found = x < -126.0F ? Floats{} : scaled;
  return x != x ? x : found;
#endif
}

// Bits of a float32 and of its upper half, bfloat16.
PYSEQ_INLINE uint32_t bits_of(float x) { return __builtin_bit_cast(uint32_t, x); }
PYSEQ_INLINE float float_of(uint32_t bits) { return __builtin_bit_cast(float, bits); }

PYSEQ_INLINE float widen(uint16_t bfloat) { return float_of(uint32_t{bfloat} << 16); }

// To the nearest bfloat16, ties to even, every NaN to the same one.
PYSEQ_INLINE uint16_t round_to_bfloat(float x) {
  const uint32_t bits = bits_of(x);
  const uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
  return static_cast<uint16_t>(x != x ? 0x7fc0U : rounded);
}

inline bool all_finite(const float* x, int64_t n) {
  constexpr int32_t kExponent = 0x7f800000;
  Ints bad = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) bad |= ((Ints)load(x + i) & kExponent) == kExponent;
  int32_t some = 0;
  for (; i < n; ++i) some |= (bits_of(x[i]) & 0x7f800000U) == 0x7f800000U;
  for (int lane = 0; lane < kLanes; ++lane) some |= bad[lane];
  return some == 0;
}

PYSEQ_INLINE Halves round_to_bfloat(Floats x) {
  const Words bits = (Words)x;
  const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Ints found = x != x ? broadcast(0x7fc0) : (Ints)rounded;
#if defined(__AVX2__) && !defined(__AVX512F__)
  // Of 16 bits each, so that nothing saturates; within halves of the vector, hence the permutation.
  const __m256i packed = _mm256_packus_epi32((__m256i)(found & 0xffff), _mm256_setzero_si256());
  return (Halves)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
#else
  return __builtin_convertvector(found, Halves);
#endif
}

#if defined(__AVX2__)
// Consecutive float16 to float32, and back to the nearest.
PYSEQ_INLINE Floats load_float16(const uint16_t* from) {
#if defined(__AVX512F__)
  return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#else
  return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#endif
}

PYSEQ_INLINE void store_float16(uint16_t* to, Floats x) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT));
#endif
}
#endif

// One row of n elements, `stride` elements apart, to consecutive float32.
inline void load_row(const void* from, DType dtype, int64_t stride, int64_t n, float* to) {
  if (dtype == DType::kFloat32) {
    const auto* x = static_cast<const float*>(from);
    if (stride == 1) {
      memcpy(to, x, sizeof(float) * static_cast<size_t>(n));
    } else {
      for (int64_t i = 0; i < n; ++i) to[i] = x[i * stride];
    }
  } else if (dtype == DType::kBFloat16) {
    const auto* x = static_cast<const uint16_t*>(from);
    if (stride == 1) {
      for (int64_t i = 0; i < n; ++i) to[i] = widen(x[i]);
    } else {
      for (int64_t i = 0; i < n; ++i) to[i] = widen(x[i * stride]);
    }
  } else if (dtype == DType::kFloat16) {
    const auto* x = static_cast<const _Float16*>(from);
    int64_t i = 0;
#if defined(__AVX2__)
    for (; stride == 1 && i + kLanes <= n; i += kLanes) {
      store(to + i, load_float16(static_cast<const uint16_t*>(from) + i));
    }
#endif
    for (; i < n; ++i) to[i] = static_cast<float>(x[i * stride]);
  }
}

// The reverse, rounding to nearest.
inline void store_row(const float* from, DType dtype, int64_t stride, int64_t n, void* to) {
  if (dtype == DType::kFloat32) {
    auto* x = static_cast<float*>(to);
    if (stride == 1) {
      memcpy(x, from, sizeof(float) * static_cast<size_t>(n));
    } else {
      for (int64_t i = 0; i < n; ++i) x[i * stride] = from[i];
    }
  } else if (dtype == DType::kBFloat16) {
    auto* x = static_cast<uint16_t*>(to);
    if (stride == 1) {
      int64_t i = 0;
      for (; i + kLanes <= n; i += kLanes) {
        const Halves rounded = round_to_bfloat(load(from + i));
        memcpy(x + i, &rounded, sizeof rounded);
      }
      for (; i < n; ++i) x[i] = round_to_bfloat(from[i]);
    } else {
      for (int64_t i = 0; i < n; ++i) x[i * stride] = round_to_bfloat(from[i]);
    }
  } else if (dtype == DType::kFloat16) {
    auto* x = static_cast<_Float16*>(to);
    int64_t i = 0;
#if defined(__AVX2__)
    for (; stride == 1 && i + kLanes <= n; i += kLanes) {
      store_float16(static_cast<uint16_t*>(to) + i, load(from + i));
    }
#endif
    for (; i < n; ++i) x[i * stride] = static_cast<_Float16>(from[i]);
  }
}

}  // namespace pyseq::PYSEQ_ISA
