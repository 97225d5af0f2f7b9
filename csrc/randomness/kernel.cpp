// lag_sums for one instruction set.
#include "cpu/vector.hpp"
#include "randomness/lag_sums.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

constexpr int64_t kBlock =
    4096;  // symbols: twice 8 KiB, which the nearest cache keeps for all lags

struct Sums {
  int64_t product;
  int64_t equal;
};

PYSEQ_INLINE int64_t centred(uint16_t symbol) { return int64_t{symbol} - 32768; }

#if defined(__AVX2__)
PYSEQ_INLINE int64_t sum(__m256i lanes) {
  int64_t lane[4];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lane), lanes);
  return lane[0] + lane[1] + lane[2] + lane[3];
}

// Two products make a sum of at most 2^31, which is one more than 32 bits hold: less one it fits.
PYSEQ_INLINE Sums sums_at(const uint16_t* now, const uint16_t* before, int64_t count) {
  const __m256i flip = _mm256_set1_epi16(static_cast<int16_t>(0x8000));
  const __m256i one = _mm256_set1_epi32(1);
  __m256i products = _mm256_setzero_si256();
  __m256i equals = _mm256_setzero_si256();  // a block adds at most kBlock / 16 to each lane
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(now + i));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(before + i));
    const __m256i pairs = _mm256_sub_epi32(
        _mm256_madd_epi16(_mm256_xor_si256(a, flip), _mm256_xor_si256(b, flip)), one);
    products = _mm256_add_epi64(products, _mm256_cvtepi32_epi64(_mm256_castsi256_si128(pairs)));
    products =
        _mm256_add_epi64(products, _mm256_cvtepi32_epi64(_mm256_extracti128_si256(pairs, 1)));
    equals = _mm256_sub_epi16(equals, _mm256_cmpeq_epi16(a, b));
  }
  const __m256i wide = _mm256_madd_epi16(equals, _mm256_set1_epi16(1));
  int32_t lanes[8];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), wide);
  Sums found{sum(products) + i / 2, 0};
  for (const int32_t lane : lanes) found.equal += lane;
  for (; i < count; ++i) {
    found.product += centred(now[i]) * centred(before[i]);
    found.equal += now[i] == before[i];
  }
  return found;
}
#else
PYSEQ_INLINE Sums sums_at(const uint16_t* now, const uint16_t* before, int64_t count) {
  Sums found{0, 0};
  for (int64_t i = 0; i < count; ++i) {
    found.product += centred(now[i]) * centred(before[i]);
    found.equal += now[i] == before[i];
  }
  return found;
}
#endif

}  // namespace

void lag_sums(const LagSums& a) {
  for (int64_t start = 0; start < a.count; start += kBlock) {
    const int64_t size = smaller(kBlock, a.count - start);
    for (int64_t k = 1; k <= a.lags; ++k) {
      const uint16_t* now = a.symbols + start;
      const Sums found = sums_at(now, now - k, size);
      a.products[k - 1] += found.product;
      a.equals[k - 1] += found.equal;
    }
  }
}

}  // namespace pyseq::PYSEQ_ISA
