// widen_rows for one instruction set.
#include "cpu/vector.hpp"
#include "gather_windows/widen_rows.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

// Rows begin at random places, so every one begins with a cache miss unless it was asked for
// before; the hardware goes on from a few lines.
constexpr int64_t kRowsAhead = 4;
constexpr int64_t kLinesAhead = 8;
constexpr int64_t kLineBytes = 64;

// A register full of results. What the compiler makes of conversions between vectors of its own is
// many times slower than these instructions.
#if defined(__AVX512F__)
using Register = __m512i;
PYSEQ_INLINE void store(void* to, Register x) { _mm512_storeu_si512(to, x); }
PYSEQ_INLINE void stream(void* to, Register x) {
  _mm512_stream_si512(static_cast<Register*>(to), x);
}
PYSEQ_INLINE Register widened(const uint16_t* from, uint16_t) { return _mm512_loadu_si512(from); }
PYSEQ_INLINE Register widened(const uint16_t* from, int32_t) {
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
PYSEQ_INLINE Register widened(const uint16_t* from, int64_t) {
  return _mm512_cvtepu16_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
PYSEQ_INLINE Register widened(const uint16_t* from, float) {
  return _mm512_castps_si512(_mm512_cvtepi32_ps(widened(from, int32_t{})));
}
#elif defined(__AVX2__)
using Register = __m256i;
PYSEQ_INLINE void store(void* to, Register x) {
  _mm256_storeu_si256(static_cast<Register*>(to), x);
}
PYSEQ_INLINE void stream(void* to, Register x) {
  _mm256_stream_si256(static_cast<Register*>(to), x);
}
PYSEQ_INLINE Register widened(const uint16_t* from, uint16_t) {
  return _mm256_loadu_si256(reinterpret_cast<const Register*>(from));
}
PYSEQ_INLINE Register widened(const uint16_t* from, int32_t) {
  return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
PYSEQ_INLINE Register widened(const uint16_t* from, int64_t) {
  return _mm256_cvtepu16_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
}
PYSEQ_INLINE Register widened(const uint16_t* from, float) {
  return _mm256_castps_si256(_mm256_cvtepi32_ps(widened(from, int32_t{})));
}
#endif

PYSEQ_INLINE void streamed() {
#if defined(__AVX2__)
  _mm_sfence();  // whoever learns that we are done sees what was written
#endif
}

template <typename Out>
PYSEQ_INLINE void widen_one_by_one(const uint16_t* row, int64_t count, Out* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<Out>(row[i]);
}

template <typename Out, bool kPastCaches>
PYSEQ_INLINE void widen_row(const uint16_t* row, int64_t length, Out* out) {
  int64_t i = 0;
#if defined(__AVX2__)
  constexpr int64_t kBytes = sizeof(Register);
  constexpr int64_t kCount = kBytes / int64_t{sizeof(Out)};
  if constexpr (kPastCaches) {
    const auto before = static_cast<int64_t>(-reinterpret_cast<uintptr_t>(out) % kBytes);
    i = smaller(before / int64_t{sizeof(Out)}, length);
    widen_one_by_one(row, i, out);
  }
#pragma GCC unroll 4
  for (; i + kCount <= length; i += kCount) {
    const Register wide = widened(row + i, Out{});
    if constexpr (kPastCaches) {
      stream(out + i, wide);
    } else {
      store(out + i, wide);
    }
  }
#endif
  widen_one_by_one(row + i, length - i, out + i);
}

PYSEQ_INLINE void prefetch(const uint16_t* row, int64_t length) {
  const auto* bytes = reinterpret_cast<const char*>(row);
  const int64_t lines = smaller(kLinesAhead, length * int64_t{sizeof(uint16_t)} / kLineBytes + 1);
  for (int64_t line = 0; line < lines; ++line) __builtin_prefetch(bytes + line * kLineBytes);
}

template <typename Out, bool kPastCaches>
void widen(const WidenRows& a) {
  auto* out = static_cast<Out*>(a.out);
  for (int64_t n = 0; n < a.count; ++n) {
    if (n + kRowsAhead < a.count) prefetch(a.rows[n + kRowsAhead], a.length);
    widen_row<Out, kPastCaches>(a.rows[n], a.length, out + n * a.length);
  }
  if constexpr (kPastCaches) streamed();
}

template <typename Out>
void widen(const WidenRows& a) {
  return a.past_caches ? widen<Out, true>(a) : widen<Out, false>(a);
}

}  // namespace

void widen_rows(const WidenRows& arguments) {
  switch (arguments.type) {
    case SymbolType::kUint16:
      return widen<uint16_t>(arguments);
    case SymbolType::kInt32:
      return widen<int32_t>(arguments);
    case SymbolType::kInt64:
      return widen<int64_t>(arguments);
    case SymbolType::kFloat32:
      return widen<float>(arguments);
  }
}

}  // namespace pyseq::PYSEQ_ISA
