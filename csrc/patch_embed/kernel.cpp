// patch_embed for one instruction set.
#include "cpu/packed_rows.hpp"
#include "patch_embed/patch_embed.hpp"
#include "patch_embed/patches.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

constexpr int kColumns = FloatEngine::kColumns;  // features of a panel of the weight
constexpr int64_t kLine = 64;                    // bytes of a cache line

// Bytes from which an output is written past the caches, where they would have to read every line
// first: what is larger than the cores' own is gone from them before somebody reads it.
constexpr int64_t kStreamed = int64_t{4} << 20;

// Sizes of a call; the patches of all rows are counted through, M of them.
struct Sizes {
  explicit Sizes(const PatchEmbed& x)
      : P(x.weight.shape[1]),
        C(x.weight.shape[0]),
        N(x.out.shape[1]),
        M(x.out.shape[0] * N),
        panels((C + kColumns - 1) / kColumns),
        threads(useful_threads(x.threads, double(M) * double(C * P))) {}

  int64_t P, C, N, M;
  int64_t panels;
  int threads;
};

#if defined(__AVX512F__) && !defined(__AVX512BF16__)
// As round_to_bfloat.
PYSEQ_INLINE __m256i round_to_bfloats(Floats x) {
  const Words bits = (Words)x;
  const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Ints found = x != x ? broadcast(int32_t{0x7fc0}) : (Ints)rounded;
  return _mm512_cvtepi32_epi16((__m512i)found);
}
#endif

// Writes the first `columns` of two vectors, rounded. kStreams (only with AVX-512): past the
// caches, where `to` must be the start of a line unless columns are missing.
template <DType kOut, bool kStreams>
PYSEQ_INLINE void put(Floats first, Floats second, int64_t columns, char* to) {
  if (columns < kColumns) {
    float both[kColumns];
    store(both, first);
    store(both + kLanes, second);
    store_row(both, kOut, 1, columns, to);
    return;
  }
#if defined(__AVX512F__)
  if constexpr (kOut == DType::kFloat32) {
    if constexpr (kStreams) {
      _mm512_stream_ps(reinterpret_cast<float*>(to), (__m512)first);
      _mm512_stream_ps(reinterpret_cast<float*>(to) + kLanes, (__m512)second);
    } else {
      store(reinterpret_cast<float*>(to), first);
      store(reinterpret_cast<float*>(to) + kLanes, second);
    }
    return;
  }
  __m512i both;
  if constexpr (kOut == DType::kFloat16) {
    const __m256i lower = _mm512_cvtps_ph((__m512)first, _MM_FROUND_TO_NEAREST_INT);
    const __m256i upper = _mm512_cvtps_ph((__m512)second, _MM_FROUND_TO_NEAREST_INT);
    both = _mm512_inserti64x4(_mm512_castsi256_si512(lower), upper, 1);
  } else {
#if defined(__AVX512BF16__)
    both = (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
#else
    both = _mm512_inserti64x4(_mm512_castsi256_si512(round_to_bfloats(first)),
                              round_to_bfloats(second), 1);
#endif
  }
  if constexpr (kStreams) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), both);
  } else {
    _mm512_storeu_si512(to, both);
  }
#else
#if defined(__AVX2__)
  if constexpr (kOut == DType::kFloat16) {
    auto* halves = reinterpret_cast<__m128i*>(to);
    _mm_storeu_si128(halves, _mm256_cvtps_ph((__m256)first, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(halves + 1, _mm256_cvtps_ph((__m256)second, _MM_FROUND_TO_NEAREST_INT));
    return;
  }
#endif
  if constexpr (kOut == DType::kFloat32) {
    store(reinterpret_cast<float*>(to), first);
    store(reinterpret_cast<float*>(to) + kLanes, second);
  } else if constexpr (kOut == DType::kBFloat16) {
    const Halves halves[] = {round_to_bfloat(first), round_to_bfloat(second)};
    memcpy(to, halves, sizeof halves);
  } else {
    float both[kColumns];
    store(both, first);
    store(both + kLanes, second);
    store_row(both, kOut, 1, kColumns, to);
  }
#endif
}

// Whether rows of the output may be written past the caches: whole lines of them at a time. Half
// lines, as AVX2 would write them, took 1.4 times as long into memory that was in use before.
bool streams(const PatchEmbed& x, const Sizes& size) {
  const int64_t element = size_of(x.out.dtype);
  return kLanes == 16 && size.M * size.C * element >= kStreamed && kColumns * element >= kLine &&
         size.C * element % kLine == 0 && reinterpret_cast<uintptr_t>(x.out.data) % kLine == 0;
}

// What was written past the caches is there for other threads, too.
template <bool kStreams>
void finish_writing() {
#if defined(__AVX512F__)
  if constexpr (kStreams) _mm_sfence();
#endif
}

// float32 with multiply-adds; the sums stay in registers until they are written, those of long
// patches for a part of them at a time: what rounding loses in a long sum grows with its length.
template <DType kOut, bool kStreams>
struct FloatProduct {
  static constexpr int64_t kPatches = 4 * FloatEngine::kRows;  // of a task
  static constexpr int64_t kLong = 512;                        // samples
  static constexpr int64_t kPart = 256;

  const PatchEmbed& x;
  const Sizes size{x};
  const int64_t panel = size.P * kColumns;
  const int64_t samples = padded_bytes((kPatches * size.P + kLanes) * int64_t{sizeof(float)});
  const int64_t rows = padded_bytes(kPatches * size.P * int64_t{sizeof(float)});
  const int64_t scratch = samples + rows + kPatches * kColumns * int64_t{sizeof(float)};
  const Buffer working{size.threads * scratch};
  const Buffer weight{size.panels * panel * int64_t{sizeof(float)}};
  const Buffer bias{size.panels * kColumns * int64_t{sizeof(float)}};

  void run() const {
    for_tasks(size.panels, size.threads, [&](int64_t p, int worker) { pack(p, worker); });
    const int64_t tasks = (size.M + kPatches - 1) / kPatches;
    for_ranges(tasks, size.threads, [&](int64_t task, int worker) {
      const int64_t left = size.M - task * kPatches;
      embed(task * kPatches, left < kPatches ? left : kPatches, worker);
    });
  }

 private:
  void pack(int64_t p, int worker) const {
    auto* loaded = working.as<float>(worker * scratch);
    auto* biases = bias.as<float>() + p * kColumns;
    for (int64_t j = 0; j < kColumns; ++j) {
      const int64_t c = p * kColumns + j;
      float* row = loaded + j * size.P;
      biases[j] = 0;
      if (c >= size.C) {
        memset(row, 0, static_cast<size_t>(size.P) * sizeof(float));
        continue;
      }
      load_row(x.weight.at(c), x.weight.dtype, x.weight.stride[1], size.P, row);
      if (x.bias.data != nullptr) load_row(x.bias.at(c), x.bias.dtype, 1, 1, biases + j);
    }
    FloatEngine::pack_columns(loaded, size.P, size.P, weight.as<float>() + p * panel, 0, nullptr);
  }

  void embed(int64_t first, int64_t count, int worker) const {
    auto* loaded = working.as<float>(worker * scratch);
    auto* a = working.as<float>(worker * scratch + samples);
    for_runs(x, size.N, size.P, first, count, loaded,
             [&](int64_t i, int64_t run, const float* patches) {
               for (int64_t k = 0; k < run; ++k) {
                 memcpy(a + (i + k) * size.P, patches + k * x.stride,
                        static_cast<size_t>(size.P) * sizeof(float));
               }
             });
    const int64_t row = size.C * size_of(kOut);
    char* const out = static_cast<char*>(x.out.data) + first * row;
    for (int64_t p = 0; p < size.panels; ++p) {
      const Floats left = load(bias.as<float>() + p * kColumns);
      const Floats right = load(bias.as<float>() + p * kColumns + kLanes);
      const int64_t columns = size.C - p * kColumns;
      char* const to = out + p * kColumns * size_of(kOut);
      const auto write = [&](int64_t m, Floats one, Floats other) {
        put<kOut, kStreams>(left + one, right + other, columns, to + m * row);
      };
      const float* w = weight.as<float>() + p * panel;
      if (size.P < kLong) {
        FloatEngine::for_rows({a, size.P, 0}, w, count, size.P, write);
      } else {
        const float* sums = sum_in_parts(a, w, count, worker);
        for (int64_t m = 0; m < count; ++m, sums += kColumns) {
          write(m, load(sums), load(sums + kLanes));
        }
      }
    }
    finish_writing<kStreams>();
  }

  const float* sum_in_parts(const float* a, const float* w, int64_t count, int worker) const {
    auto* sums = working.as<float>(worker * scratch + samples + rows);
    memset(sums, 0, static_cast<size_t>(count * kColumns) * sizeof(float));
    for (int64_t k = 0; k < size.P; k += kPart) {
      const int64_t depth = size.P - k < kPart ? size.P - k : kPart;
      FloatEngine::multiply<true>({a + k, size.P, 0}, {w + k * kColumns, panel, 0}, sums, kColumns,
                                  count, kColumns, depth);
    }
    return sums;
  }
};

#if defined(__AMX_BF16__)

// A float32 as a sum of three bfloat16, each the nearest to what the ones before it left.
constexpr int kPlanes = 3;

// The nearest bfloat16 to x, in the upper half, and x less it. What would be rounded to infinity is
// cut off instead, and nothing is left of what is infinite or NaN.
PYSEQ_INLINE Ints take_plane(Floats& x) {
  constexpr int32_t kUpper = int32_t(0xffff0000);
  const Ints bits = (Ints)x;
  const Ints magnitude = bits & 0x7fffffff;
  Ints plane = (Ints)((Words)x + 0x8000) & kUpper;
  plane = magnitude >= 0x7f7f8000 ? bits & kUpper : plane;
  plane = magnitude > 0x7f800000 ? broadcast(int32_t{0x7fc00000}) : plane;
  x = magnitude >= 0x7f800000 ? Floats{} : x - (Floats)plane;
  return plane;
}

// AMX tiles along one long depth, on which the planes of a patch and of the weight lie next to each
// other, a pair of planes in each section; the bias follows, where the patch has ones. Tiles flush
// what is below 2^-126 to zero.
template <DType kOut, bool kStreams>
struct TileProduct {
  using Engine = TileEngine<1>;
  static_assert(Engine::kColumns == kColumns);
  static constexpr int64_t kPatches = 2 * Engine::kRows;  // of a task
  static constexpr int64_t kBlock = int64_t{Engine::kRows} * kColumns;

  // Planes that hold a weight.
  static constexpr int kOfWeight = kOut == DType::kBFloat16 ? 1 : kOut == DType::kFloat16 ? 2 : 3;
  struct Section {
    int patch, weight;
  };
  // Without pairs whose product is below the last bit of float32.
  static constexpr Section kSections[] = {{0, 0}, {1, 0}, {2, 0}, {0, 1}, {1, 1}, {0, 2}};
  static constexpr int kSectionCount = kOfWeight == 1 ? 3 : kOfWeight == 2 ? 5 : 6;
  // Where all weights are smaller, their last planes would be flushed.
  static constexpr float kSmallest = 0x1p-90F;

  const PatchEmbed& x;
  const Sizes size{x};
  const int64_t depth = round_up(kSectionCount * size.P + kOfWeight, Engine::kDepth);
  const int64_t panel = depth * kColumns;
  const int64_t span = round_up(kPatches * size.P, kLanes);
  const int64_t samples = padded_bytes(span * int64_t{sizeof(float)});
  const int64_t planes = padded_bytes(kPlanes * span * int64_t{sizeof(uint16_t)});
  const int64_t rows = padded_bytes(kPatches * depth * int64_t{sizeof(uint16_t)});
  const int64_t embedding = samples + planes + rows + 2 * kBlock * int64_t{sizeof(float)};
  const int64_t packing = padded_bytes(panel * int64_t{sizeof(float) + sizeof(uint16_t)} +
                                       size.P * int64_t{sizeof(float)});
  const int64_t scratch = embedding > packing ? embedding : packing;
  const Buffer working{size.threads * scratch};
  const Buffer weight{size.panels * panel * int64_t{sizeof(uint16_t)}};

  // False where the weight is too small for planes: nothing is done then.
  bool run() const {
    bool large = false;  // only ever set to true, by any thread
    for_tasks(size.panels, size.threads, [&](int64_t p, int worker) {
      if (pack(p, worker) >= kSmallest) __atomic_store_n(&large, true, __ATOMIC_RELAXED);
    });
    if (!large) return false;
    const int64_t tasks = (size.M + kPatches - 1) / kPatches;
    for_ranges(tasks, size.threads, [&](int64_t task, int worker) {
      const int64_t left = size.M - task * kPatches;
      embed(task * kPatches, left < kPatches ? left : kPatches, worker);
    });
    return true;
  }

 private:
  // The largest magnitude of the finite weights and biases of a panel.
  float pack(int64_t p, int worker) const {
    auto* found = working.as<float>(worker * scratch);
    float* row = found + panel;
    auto* split = reinterpret_cast<uint16_t*>(row + size.P);
    float largest = 0;
    memset(found, 0, static_cast<size_t>(panel) * sizeof(float));
    for (int64_t j = 0; j < kColumns && p * kColumns + j < size.C; ++j) {
      const int64_t c = p * kColumns + j;
      float* to = found + j * depth;
      load_row(x.weight.at(c), x.weight.dtype, x.weight.stride[1], size.P, row);
      for (int64_t k = 0; k < size.P; ++k) {
        float plane[kOfWeight];
        split_weight(row[k], plane, largest);
        for (int s = 0; s < kSectionCount; ++s) to[s * size.P + k] = plane[kSections[s].weight];
        // Else an infinity would meet the zeros and the signs of the patch's other planes.
        for (int s = 1; s < kSectionCount && !finite(row[k]); ++s) to[s * size.P + k] = 0;
      }
      if (x.bias.data == nullptr) continue;
      float constant;
      load_row(x.bias.at(c), x.bias.dtype, 1, 1, &constant);
      split_weight(constant, to + kSectionCount * size.P, largest);
    }
    Engine::pack_columns(found, depth, depth, weight.as<uint16_t>() + p * panel, 0, split);
    return largest;
  }

  static bool finite(float w) { return fabsf(w) < kInfinity; }

  static void split_weight(float w, float* planes, float& largest) {
    if (finite(w) && fabsf(w) > largest) largest = fabsf(w);
    Floats rest = broadcast(w);
    for (int i = 0; i < kOfWeight; ++i) planes[i] = ((Floats)take_plane(rest))[0];
  }

  void embed(int64_t first, int64_t count, int worker) const {
    auto* loaded = working.as<float>(worker * scratch);
    auto* split = working.as<uint16_t>(worker * scratch + samples);
    auto* a = working.as<uint16_t>(worker * scratch + samples + planes);
    auto* sums = working.as<float>(worker * scratch + samples + planes + rows);
    for_runs(x, size.N, size.P, first, count, loaded,
             [&](int64_t i, int64_t run, const float* patches) {
               split_samples(patches, (run - 1) * x.stride + size.P, split);
               for (int64_t k = 0; k < run; ++k)
                 put_patch(split + k * x.stride, a + (i + k) * depth);
             });

    Engine::begin();
    const int64_t blocks = (count + Engine::kRows - 1) / Engine::kRows;
    const int64_t steps = size.panels * blocks;
    // Written one step late, while the tiles multiply the next.
    for (int64_t step = 0; step <= steps; ++step) {
      if (step < steps) {
        const int64_t i = step % blocks * Engine::kRows;
        const int64_t height = count - i > 16 ? 32 : 16;
        const uint16_t* w = weight.as<uint16_t>() + step / blocks * panel;
        Engine::template multiply<false>({a + i * depth, depth, 0}, {w, panel, 0},
                                         sums + step % 2 * kBlock, kColumns, height, kColumns,
                                         depth);
      }
      if (step > 0) {
        const int64_t i = (step - 1) % blocks * Engine::kRows;
        const int64_t left = count - i;
        write(sums + (step - 1) % 2 * kBlock, first + i,
              left < Engine::kRows ? left : Engine::kRows, (step - 1) / blocks);
      }
    }
    Engine::end();
    finish_writing<kStreams>();
  }

  void split_samples(const float* from, int64_t n, uint16_t* to) const {
    for (int64_t t = 0; t < n; t += kLanes) {
      Floats rest = load(from + t);
      for (int i = 0; i < kPlanes; ++i) {
        const __m512i plane = _mm512_srli_epi32((__m512i)take_plane(rest), 16);
        const __m256i halves = _mm512_cvtepi32_epi16(plane);
        memcpy(to + i * span + t, &halves, sizeof halves);
      }
    }
  }

  // A patch to every section, and what the bias is multiplied by.
  void put_patch(const uint16_t* from, uint16_t* to) const {
    for (int s = 0; s < kSectionCount; ++s) {
      const uint16_t* plane = from + kSections[s].patch * span;
      for (int64_t k = 0; k < size.P; k += 2 * kLanes) {
        const __mmask32 there = first_of(size.P - k);
        _mm512_mask_storeu_epi16(to + s * size.P + k, there,
                                 _mm512_maskz_loadu_epi16(there, plane + k));
      }
    }
    const int64_t tail = kSectionCount * size.P;
    const __m512i ones = _mm512_maskz_set1_epi16((1U << kOfWeight) - 1, 0x3f80);
    // Less than two vectors, as the depth is a multiple of one.
    _mm512_mask_storeu_epi16(to + tail, first_of(depth - tail), ones);
    if (depth - tail > 2 * kLanes) {
      _mm512_mask_storeu_epi16(to + tail + 2 * kLanes, first_of(depth - tail - 2 * kLanes),
                               _mm512_setzero_si512());
    }
  }

  static PYSEQ_INLINE __mmask32 first_of(int64_t n) {
    return n >= 2 * kLanes ? ~0U : (1U << n) - 1;
  }

  void write(const float* sums, int64_t first, int64_t count, int64_t p) const {
    const int64_t columns = size.C - p * kColumns;
    const int64_t row = size.C * size_of(kOut);
    char* to = static_cast<char*>(x.out.data) + first * row + p * kColumns * size_of(kOut);
    for (int64_t i = 0; i < count; ++i, sums += kColumns, to += row) {
      put<kOut, kStreams>(load(sums), load(sums + kLanes), columns, to);
    }
  }
};

#endif

template <DType kOut, bool kStreams>
void embed(const PatchEmbed& x) {
#if defined(__AMX_BF16__)
  if (TileProduct<kOut, kStreams>{x}.run()) return;
#endif
  FloatProduct<kOut, kStreams>{x}.run();
}

template <DType kOut>
void embed(const PatchEmbed& x) {
  if constexpr (kColumns * size_of(kOut) >= kLine) {
    if (streams(x, Sizes(x))) return embed<kOut, true>(x);
  }
  embed<kOut, false>(x);
}

}  // namespace

void patch_embed(const PatchEmbed& x) {
  if (x.out.dtype == DType::kFloat32) return embed<DType::kFloat32>(x);
  if (x.out.dtype == DType::kBFloat16) return embed<DType::kBFloat16>(x);
  embed<DType::kFloat16>(x);
}

}  // namespace pyseq::PYSEQ_ISA
