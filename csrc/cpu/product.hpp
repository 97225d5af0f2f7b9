// Matrix products of small blocks, C (+)= A B, and how their operands are packed.
//
// An engine multiplies in one way: float32 with multiply-adds, or bfloat16 with the dot products or
// tiles of the CPU. All engines agree about memory, up to their Element:
//   A is row-major; C is row-major float32;
//   B is cut into panels of kColumns columns; a panel holds its rows of kColumns elements one after
//   the other, those of bfloat16 in pairs of rows whose elements are interleaved.
// bfloat16 engines can hold a float32 as the sum of kPlanes bfloat16, each a plane of its own:
// three hold all 24 bits. Products of planes i and j are left out where i + j >= kPlanes, which is
// below the last bit.
#pragma once

#include "cpu/vector.hpp"

namespace pyseq::PYSEQ_ISA {

// A block of B: element (0, 0), and the distances between panels and planes, in elements.
template <typename Element>
struct Panels {
  const Element* data;
  int64_t panel;
  int64_t plane;
};

template <typename Element>
struct Rows {
  const Element* data;
  int64_t row;
  int64_t plane;
  int64_t step = 1;  // from column to column; others only with float32 in registers
};

// What engines share that keep sums in registers. Engine::accumulate adds a few rows of A times a
// panel to them.
template <typename Engine, typename Element>
struct InRegisters {
  static constexpr bool kSumsInRegisters = true;
  static constexpr int kRowUnit = 1;  // M must be a multiple

  static void begin() {}
  static void end() {}

  // Calls take(row, first, second) with the sums of each row of A times one panel.
  template <typename Take>
  static PYSEQ_INLINE void for_rows(Rows<Element> a, const Element* panel, int64_t M, int64_t K,
                                    const Take& take) {
    int64_t m = 0;
    for (; m + Engine::kRows <= M; m += Engine::kRows) block<Engine::kRows>(a, m, panel, K, take);
    for (; m + 4 <= M; m += 4) block<4>(a, m, panel, K, take);
    for (; m < M; ++m) block<1>(a, m, panel, K, take);
  }

  template <bool kAdd>
  static void multiply(Rows<Element> a, Panels<Element> b, float* c, int64_t c_row, int64_t M,
                       int64_t N, int64_t K) {
    for (int64_t n = 0; n < N; n += Engine::kColumns) {
      const auto put = [&](int64_t m, Floats first, Floats second) {
        float* to = c + m * c_row + n;
        // Only now: what rounding loses in a long sum grows with how often something is added.
        store(to, kAdd ? load(to) + first : first);
        store(to + kLanes, kAdd ? load(to + kLanes) + second : second);
      };
      for_rows(a, b.data + n / Engine::kColumns * b.panel, M, K, put);
    }
  }

 private:
  template <int kHeight, typename Take>
  static PYSEQ_INLINE void block(Rows<Element> a, int64_t m, const Element* panel, int64_t K,
                                 const Take& take) {
    Floats sums[kHeight][2];
#pragma GCC unroll 12
    for (int i = 0; i < kHeight; ++i) sums[i][0] = sums[i][1] = Floats{};
    Engine::template accumulate<kHeight>(a, m, panel, K, sums);
#pragma GCC unroll 12
    for (int i = 0; i < kHeight; ++i) take(m + i, sums[i][0], sums[i][1]);
  }
};

// float32 with multiply-adds; for every instruction set.
struct FloatEngine : InRegisters<FloatEngine, float> {
  using Element = float;
  static constexpr int kPlanes = 1;
  static constexpr int kColumns = 2 * kLanes;  // of a panel of B
  static constexpr int kDepth = 1;             // K must be a multiple
#if defined(__AVX512F__)
  static constexpr int kRows = 12;  // x 2 accumulators, of 32 registers
#else
  static constexpr int kRows = 6;  // of 16 registers
#endif
  static constexpr bool kExactForInfinities = true;

  // kColumns consecutive elements of a row of A.
  static PYSEQ_INLINE void put(float* a, int64_t /*plane*/, Floats first, Floats second) {
    store(a, first);
    store(a + kLanes, second);
  }

  // kColumns rows x (each `pitch` apart, K long) as the columns of a panel.
  static void pack_columns(const float* x, int64_t pitch, int64_t K, float* panel,
                           int64_t /*plane*/, uint16_t* /*scratch*/) {
    for (int64_t k = 0; k < K; ++k) {
      for (int64_t j = 0; j < kColumns; ++j) panel[k * kColumns + j] = x[j * pitch + k];
    }
  }

  // Rows k and k + 1 of B, each n long, a multiple of kColumns.
  static void pack_two_rows(const float* x, int64_t pitch, int64_t n, float* b, int64_t panel,
                            int64_t /*plane*/, uint16_t* /*scratch*/) {
    for (int64_t j = 0; j < n; j += kColumns, b += panel) {
      for (int64_t row = 0; row < 2; ++row) {
        store(b + row * kColumns, load(x + row * pitch + j));
        store(b + row * kColumns + kLanes, load(x + row * pitch + j + kLanes));
      }
    }
  }

  template <int kHeight>
  static PYSEQ_INLINE void accumulate(Rows<float> a, int64_t m, const float* panel, int64_t K,
                                      Floats (&sums)[kHeight][2]) {
    const float* x = a.data + m * a.row;
    for (int64_t k = 0; k < K; ++k, panel += kColumns, x += a.step) {
      const Floats first = load(panel);
      const Floats second = load(panel + kLanes);
#pragma GCC unroll 12
      for (int i = 0; i < kHeight; ++i) {
        const Floats factor = broadcast(x[i * a.row]);
        sums[i][0] += factor * first;
        sums[i][1] += factor * second;
      }
    }
  }
};

#if defined(__AVX512BF16__)

// What the engines of bfloat16 share: how float32 is split into planes, and packed.
template <int kPlaneCount>
struct BfloatPacking {
  using Element = uint16_t;
  static constexpr int kPlanes = kPlaneCount;
  static constexpr int kColumns = 2 * kLanes;
  static constexpr int kDepth = 32;
  // An infinity less itself is NaN, so only a single plane can hold one.
  static constexpr bool kExactForInfinities = kPlanes == 1;

  static PYSEQ_INLINE void put(uint16_t* a, int64_t plane, Floats first, Floats second) {
    if constexpr (kPlanes == 1) {
      const __m512bh both = _mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
      memcpy(a, &both, sizeof both);
      return;
    }
    for (int i = 0; i < kPlanes; ++i) {
      const __m512i halves = upper_halves((__m512i)first, (__m512i)second);
      memcpy(a + i * plane, &halves, sizeof halves);
      first -= (Floats)((Ints)first & int32_t(0xffff0000));
      second -= (Floats)((Ints)second & int32_t(0xffff0000));
    }
  }

  static PYSEQ_INLINE void put(const float* x, uint16_t* a, int64_t plane) {
    put(a, plane, load(x), load(x + kLanes));
  }

  // K is a multiple of kColumns.
  static void pack_columns(const float* x, int64_t pitch, int64_t K, uint16_t* panel, int64_t plane,
                           uint16_t* scratch) {
    const int64_t split = kColumns * K;
    for (int64_t j = 0; j < kColumns; ++j) {
      for (int64_t k = 0; k < K; k += kColumns) put(x + j * pitch + k, scratch + j * K + k, split);
    }
    for (int p = 0; p < kPlanes; ++p) {
      const auto* pairs = reinterpret_cast<const PairInMemory*>(scratch + p * split);
      auto* to = reinterpret_cast<PairInMemory*>(panel + p * plane);
      for (int64_t k = 0; k < K / 2; ++k) {
        for (int64_t j = 0; j < kColumns; ++j) to[k * kColumns + j] = pairs[j * (K / 2) + k];
      }
    }
  }

  static void pack_two_rows(const float* x, int64_t pitch, int64_t n, uint16_t* b, int64_t panel,
                            int64_t plane, uint16_t* scratch) {
    const int64_t split = 2 * n;
    for (int64_t j = 0; j < n; j += kColumns) {
      put(x + j, scratch + j, split);
      put(x + pitch + j, scratch + n + j, split);
    }
    for (int p = 0; p < kPlanes; ++p) {
      const uint16_t* first = scratch + p * split;
      for (int64_t j = 0; j < n; j += kColumns) {
        uint16_t* to = b + p * plane + j / kColumns * panel;
        for (int64_t i = 0; i < kColumns; ++i) {
          to[2 * i] = first[j + i];
          to[2 * i + 1] = first[n + j + i];
        }
      }
    }
  }

 private:
  typedef uint32_t PairInMemory __attribute__((may_alias));

  static PYSEQ_INLINE __m512i upper_halves(__m512i first, __m512i second) {
    __m512i odd;
    uint16_t places[32];
    for (int i = 0; i < 32; ++i) places[i] = static_cast<uint16_t>(2 * i + 1);
    memcpy(&odd, places, sizeof odd);
    return _mm512_permutex2var_epi16(first, odd, second);
  }
};

// bfloat16 with dot products of pairs (vdpbf16ps); one plane, as three products of two planes would
// cost more than one of float32.
struct DotEngine : BfloatPacking<1>, InRegisters<DotEngine, uint16_t> {
  static constexpr int kRows = 12;

  template <int kHeight>
  static PYSEQ_INLINE void accumulate(Rows<uint16_t> a, int64_t m, const uint16_t* panel, int64_t K,
                                      Floats (&sums)[kHeight][2]) {
    const uint16_t* x = a.data + m * a.row;
    for (int64_t k = 0; k < K; k += 2, panel += 2 * kColumns) {
      const __m512bh first = (__m512bh)_mm512_loadu_si512(panel);
      const __m512bh second = (__m512bh)_mm512_loadu_si512(panel + kColumns);
#pragma GCC unroll 12
      for (int i = 0; i < kHeight; ++i) {
        int32_t pair;
        memcpy(&pair, x + i * a.row + k, sizeof pair);
        const __m512bh factor = (__m512bh)_mm512_set1_epi32(pair);
        sums[i][0] = (Floats)_mm512_dpbf16_ps((__m512)sums[i][0], factor, first);
        sums[i][1] = (Floats)_mm512_dpbf16_ps((__m512)sums[i][1], factor, second);
      }
    }
  }
};

#endif

#if defined(__AMX_BF16__)

// Compilers' own intrinsics do not tell that they read and write memory.
#define PYSEQ_TILE_LOAD(tile, from, pitch) \
  asm volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(from), "r"(pitch) : "memory")
#define PYSEQ_TILE_STORE(tile, to, pitch) \
  asm volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(to), "r"(pitch) : "memory")
#define PYSEQ_TILE_ZERO(tile) asm volatile("tilezero %%tmm" #tile : :)
#define PYSEQ_TILE_PRODUCT(c, a, b) asm volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : :)

// bfloat16 with the tiles of AMX, 16 rows of 64 bytes each. Flushes what is below 2^-126 to zero.
template <int kPlaneCount>
struct TileEngine : BfloatPacking<kPlaneCount> {
  using Base = BfloatPacking<kPlaneCount>;
  using Base::kColumns;
  using Base::kDepth;
  using Base::kPlanes;
  static constexpr bool kSumsInRegisters = false;  // but in tiles, which only memory can read
  static constexpr int kRows = 32;
  static constexpr int kRowUnit = 16;

  // Around every use, in the thread that uses it.
  static void begin() {
    struct alignas(64) {
      uint8_t palette = 1;
      uint8_t start_row = 0;
      uint8_t reserved[14] = {};
      uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } eight_tiles;
    asm volatile("ldtilecfg %0" : : "m"(eight_tiles));
  }
  static void end() { asm volatile("tilerelease" : :); }

  template <bool kAdd>
  static void multiply(Rows<uint16_t> a, Panels<uint16_t> b, float* c, int64_t c_row, int64_t M,
                       int64_t N, int64_t K) {
    for (int64_t n = 0; n < N; n += kColumns) {
      const uint16_t* panel = b.data + n / kColumns * b.panel;
      int64_t m = 0;
      for (; m + kRows <= M; m += kRows) block<true, kAdd>(a, m, panel, b.plane, c + n, c_row, K);
      if (m < M) block<false, kAdd>(a, m, panel, b.plane, c + n, c_row, K);
    }
  }

 private:
  // C in tiles 0 to 3, A in 4 and 5, B in 6 and 7. Where elements are exact as float32, so should
  // be their sums: a part's starts at 0 and is rounded to the size of the whole only once.
  static constexpr bool kSumsApart = kPlanes >= 3;

  template <bool kTwoRows, bool kAdd>
  static PYSEQ_INLINE void block(Rows<uint16_t> a, int64_t m, const uint16_t* b, int64_t b_plane,
                                 float* c, int64_t c_row, int64_t K) {
    float* upper = c + m * c_row;
    float* lower = upper + 16 * c_row;
    const int64_t c_pitch = c_row * int64_t{sizeof(float)};
    if constexpr (kAdd && !kSumsApart) {
      PYSEQ_TILE_LOAD(0, upper, c_pitch);
      PYSEQ_TILE_LOAD(1, upper + 16, c_pitch);
      if constexpr (kTwoRows) PYSEQ_TILE_LOAD(2, lower, c_pitch);
      if constexpr (kTwoRows) PYSEQ_TILE_LOAD(3, lower + 16, c_pitch);
    } else {
      PYSEQ_TILE_ZERO(0);
      PYSEQ_TILE_ZERO(1);
      if constexpr (kTwoRows) PYSEQ_TILE_ZERO(2);
      if constexpr (kTwoRows) PYSEQ_TILE_ZERO(3);
    }
    const uint16_t* x = a.data + m * a.row;
    for (int64_t k = 0; k < K; k += kDepth, x += kDepth, b += kDepth * kColumns) {
      // In an order in which mostly one side changes.
      load_a<kTwoRows>(x, a.row);
      load_b(b);
      products<kTwoRows>();
      if constexpr (kPlanes >= 2) {
        load_b(b + b_plane);
        products<kTwoRows>();
        load_a<kTwoRows>(x + a.plane, a.row);
        if constexpr (kPlanes >= 3) products<kTwoRows>();
        load_b(b);
        products<kTwoRows>();
      }
      if constexpr (kPlanes >= 3) {
        load_a<kTwoRows>(x + 2 * a.plane, a.row);
        products<kTwoRows>();
        load_a<kTwoRows>(x, a.row);
        load_b(b + 2 * b_plane);
        products<kTwoRows>();
      }
    }
    if constexpr (kAdd && kSumsApart) {
      constexpr int64_t kPitch = kColumns * int64_t{sizeof(float)};
      alignas(64) float sums[kRows * kColumns];
      PYSEQ_TILE_STORE(0, sums, kPitch);
      PYSEQ_TILE_STORE(1, sums + 16, kPitch);
      if constexpr (kTwoRows) PYSEQ_TILE_STORE(2, sums + 16 * kColumns, kPitch);
      if constexpr (kTwoRows) PYSEQ_TILE_STORE(3, sums + 16 * kColumns + 16, kPitch);
      for (int64_t i = 0; i < (kTwoRows ? kRows : kRowUnit); ++i) {
        float* row = upper + i * c_row;
        for (int64_t j = 0; j < kColumns; j += kLanes) {
          store(row + j, load(row + j) + load(sums + i * kColumns + j));
        }
      }
      return;
    }
    PYSEQ_TILE_STORE(0, upper, c_pitch);
    PYSEQ_TILE_STORE(1, upper + 16, c_pitch);
    if constexpr (kTwoRows) PYSEQ_TILE_STORE(2, lower, c_pitch);
    if constexpr (kTwoRows) PYSEQ_TILE_STORE(3, lower + 16, c_pitch);
  }

  template <bool kTwoRows>
  static PYSEQ_INLINE void load_a(const uint16_t* x, int64_t row) {
    const int64_t pitch = row * int64_t{sizeof(uint16_t)};
    PYSEQ_TILE_LOAD(4, x, pitch);
    if constexpr (kTwoRows) PYSEQ_TILE_LOAD(5, x + 16 * row, pitch);
  }

  static PYSEQ_INLINE void load_b(const uint16_t* b) {
    constexpr int64_t kPitch = 2 * kColumns * int64_t{sizeof(uint16_t)};
    PYSEQ_TILE_LOAD(6, b, kPitch);
    PYSEQ_TILE_LOAD(7, b + kColumns, kPitch);
  }

  template <bool kTwoRows>
  static PYSEQ_INLINE void products() {
    PYSEQ_TILE_PRODUCT(0, 4, 6);
    PYSEQ_TILE_PRODUCT(1, 4, 7);
    if constexpr (kTwoRows) PYSEQ_TILE_PRODUCT(2, 5, 6);
    if constexpr (kTwoRows) PYSEQ_TILE_PRODUCT(3, 5, 7);
  }
};

#undef PYSEQ_TILE_LOAD
#undef PYSEQ_TILE_STORE
#undef PYSEQ_TILE_ZERO
#undef PYSEQ_TILE_PRODUCT

#endif

// A row of A from n features, a multiple of kColumns.
template <typename Engine>
PYSEQ_INLINE void put_row(const float* x, int64_t n, typename Engine::Element* a, int64_t plane) {
  for (int64_t i = 0; i < n; i += Engine::kColumns) {
    Engine::put(a + i, plane, load(x + i), load(x + i + kLanes));
  }
}

// Calls run.template operator()<Engine>() with the fastest engine whose products of `dtype` are as
// exact as float32 sums of them; `planes` asks for more than one bfloat16 where dtype is bfloat16
// but the operands are not.
template <typename Run>
void with_engine(DType dtype, int planes, Run&& run) {
#if defined(__AMX_BF16__)
  if (dtype != DType::kBFloat16) return run.template operator()<TileEngine<3>>();
  if (planes == 1) return run.template operator()<TileEngine<1>>();
  return run.template operator()<TileEngine<2>>();
#elif defined(__AVX512BF16__)
  // Two planes need three products, more than float32 costs.
  if (dtype == DType::kBFloat16 && planes == 1) return run.template operator()<DotEngine>();
#endif
  (void)dtype;
  (void)planes;
  run.template operator()<FloatEngine>();
}

}  // namespace pyseq::PYSEQ_ISA
