// hard_attention for one instruction set.
#include "cpu/packed_rows.hpp"
#include "hard_attention/hard_attention.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

constexpr int64_t kKeys = 256;  // in a block of scores

// How many of the first keys query t sees.
int64_t seen_keys(const HardAttention& x, int64_t t) {
  const int64_t T = x.query.shape[2];
  const int64_t S = x.key.shape[2];
  if (!x.causal) return S;
  const int64_t seen = t + S - T + 1;
  return seen < 0 ? 0 : seen;
}

// The best score in each lane, and where it was first seen, of one query.
struct Best {
  float score[kLanes];
  int32_t key[kLanes];

  void clear() {
    store(score, broadcast(-kInfinity));
    store(key, broadcast(int32_t{-1}));
  }

  // Scores of keys first to first + width, of which those from `seen` on are hidden.
  template <bool kMasked>
  PYSEQ_INLINE void update(const float* scores, int64_t first, int64_t width, int64_t seen) {
    Floats best = load(score);
    Ints where = load(key);
    Ints here = lanes() + static_cast<int32_t>(first);
    for (int64_t j = 0; j < width; j += kLanes, here += kLanes) {
      Floats found = load(scores + j);
      if constexpr (kMasked) {
        found = here < static_cast<int32_t>(seen) ? found : broadcast(-kInfinity);
      }
#if defined(__AVX512F__)
      const __mmask16 better = _mm512_cmp_ps_mask((__m512)found, (__m512)best, _CMP_GT_OQ);
      best = (Floats)_mm512_mask_mov_ps((__m512)best, better, (__m512)found);
      where = (Ints)_mm512_mask_mov_epi32((__m512i)where, better, (__m512i)here);
#else
      const Ints better = found > best;
      best = better ? found : best;
      where = better ? here : where;
#endif
    }
    store(score, best);
    store(key, where);
  }

  // The lowest key of those with the best score; -1 where every score was NaN, hidden or -inf.
  int64_t choice() const {
    const float best = largest(load(score));
    int64_t chosen = -1;
    for (int lane = 0; lane < kLanes; ++lane) {
      if (key[lane] < 0 || score[lane] != best) continue;
      if (chosen < 0 || key[lane] < chosen) chosen = key[lane];
    }
    return chosen;
  }
};

// The first of `seen` keys whose score is -inf; -1 where there is none. Only for a query that sees
// nothing better, so that the time it takes does not matter.
int64_t first_minus_infinity(const HardAttention& x, int64_t b, int64_t g, const float* query,
                             float* key, int64_t seen) {
  const int64_t D = x.query.shape[3];
  for (int64_t s = 0; s < seen; ++s) {
    load_row(x.key.at(b, g, s), x.key.dtype, x.key.stride[3], D, key);
    float score = 0;
    for (int64_t d = 0; d < D; ++d) score += query[d] * key[d];
    if (score == -kInfinity) return s;
  }
  return -1;
}

void fill(const Tensor& out, char* row, int64_t D, float x) {
  for (int64_t d = 0; d < D; ++d) {
    store_row(&x, out.dtype, 1, 1, row + d * out.stride[3] * size_of(out.dtype));
  }
}

void copy_row(const HardAttention& x, const char* from, char* to) {
  const int64_t D = x.query.shape[3];
  const int64_t size = size_of(x.value.dtype);
  if (x.value.stride[3] == 1 && x.out.stride[3] == 1) {
    memcpy(to, from, static_cast<size_t>(D * size));
    return;
  }
  for (int64_t d = 0; d < D; ++d) {
    memcpy(to + d * size * x.out.stride[3], from + d * size * x.value.stride[3],
           static_cast<size_t>(size));
  }
}

// False where an operand is infinite or NaN and the engine cannot hold that: nothing is right then.
template <typename Engine>
bool choose(const HardAttention& x) {
  using Element = typename Engine::Element;
  const int64_t B = x.query.shape[0];
  const int64_t H = x.query.shape[1];
  const int64_t T = x.query.shape[2];
  const int64_t D = x.query.shape[3];
  const int64_t G = x.key.shape[1];
  const int64_t S = x.key.shape[2];
  constexpr int64_t kQueries = 2 * Engine::kRows;
  const Columns<Engine> keys{S, D};
  const double multiply_adds = double(B * H) * double(T) * double(S * D);
  const int threads = useful_threads(x.threads, multiply_adds);
  bool finite = true;  // only ever set to false, by any thread

  // Per thread: rows in float32, packed queries, scores, and the best of every query.
  const int64_t loaded = padded_bytes(keys.scratch_bytes());
  const int64_t query_plane = kQueries * keys.depth;
  const int64_t queries = padded_bytes(Engine::kPlanes * query_plane * int64_t{sizeof(Element)});
  const int64_t scores = padded_bytes(kQueries * kKeys * int64_t{sizeof(float)});
  const int64_t scratch =
      loaded + queries + scores + padded_bytes(kQueries * int64_t{sizeof(Best)});
  const Buffer working(threads * scratch);
  const Buffer packed(B * G * keys.head * int64_t{sizeof(Element)});

  const auto note = [&](const float* row) {
    if (!Engine::kExactForInfinities && !all_finite(row, D)) {
      __atomic_store_n(&finite, false, __ATOMIC_RELAXED);
    }
  };
  for_tasks(B * G * keys.tasks, threads, [&](int64_t task, int worker) {
    const int64_t head = task / keys.tasks;
    Element* to = packed.as<Element>() + head * keys.head;
    keys.pack(task % keys.tasks, to, working.as<float>(worker * scratch),
              [&](int64_t s, float* row) {
                load_row(x.key.at(head / G, head % G, s), x.key.dtype, x.key.stride[3], D, row);
                note(row);
              });
  });

  const int64_t tiles = (T + kQueries - 1) / kQueries;
  for_tasks(B * H * tiles, threads, [&](int64_t task, int worker) {
    if (!__atomic_load_n(&finite, __ATOMIC_RELAXED)) return;
    auto* loaded_row = working.as<float>(worker * scratch);
    auto* query = working.as<Element>(worker * scratch + loaded);
    auto* found = working.as<float>(worker * scratch + loaded + queries);
    auto* best = working.as<Best>(worker * scratch + loaded + queries + scores);
    const int64_t b = task / tiles / H;
    const int64_t h = task / tiles % H;
    const int64_t g = h / (H / G);
    const int64_t first = (tiles - 1 - task % tiles) * kQueries;  // the longest rows first
    const int64_t count = T - first < kQueries ? T - first : kQueries;
    const Element* head = packed.as<Element>() + (b * G + g) * keys.head;

    memset(query, 0, static_cast<size_t>(queries));
    for (int64_t i = 0; i < count; ++i) {
      load_row(x.query.at(b, h, first + i), x.query.dtype, x.query.stride[3], D, loaded_row);
      note(loaded_row);
      Engine::put_row(loaded_row, D, query + i * keys.depth, query_plane);
      best[i].clear();
    }

    Engine::begin();
    const int64_t all = seen_keys(x, first + count - 1);
    const int64_t rows = round_up(count, Engine::kRowUnit);
    for (int64_t s = 0; s < all; s += kKeys) {
      const int64_t left = round_up(all - s, Engine::kColumns);
      const int64_t width = left < kKeys ? left : kKeys;
      Engine::template multiply<false>({query, keys.depth, query_plane}, keys.from(head, s), found,
                                       kKeys, rows, width, keys.depth);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t seen = seen_keys(x, first + i);
        if (s + width <= seen) {
          best[i].template update<false>(found + i * kKeys, s, width, seen);
        } else {
          best[i].template update<true>(found + i * kKeys, s, width, seen);
        }
      }
    }
    Engine::end();

    for (int64_t i = 0; i < count; ++i) {
      const int64_t t = first + i;
      const int64_t seen = seen_keys(x, t);
      int64_t chosen = best[i].choice();
      if (chosen < 0 && seen > 0) {
        load_row(x.query.at(b, h, t), x.query.dtype, x.query.stride[3], D, loaded_row);
        chosen = first_minus_infinity(x, b, g, loaded_row, loaded_row + keys.depth, seen);
      }
      char* row = x.out.at(b, h, t);
      if (chosen >= 0) {
        copy_row(x, x.value.at(b, g, chosen), row);
      } else {
        fill(x.out, row, D, seen == 0 ? 0.0F : __builtin_nanf(""));
      }
      memcpy(x.index.at(b, h, t), &chosen, sizeof chosen);
    }
  });
  return finite;
}

}  // namespace

void hard_attention(const HardAttention& x) {
  with_engine(x.query.dtype, 1, [&]<typename Engine>() {
    if (!choose<Engine>(x)) choose<FloatEngine>(x);
  });
}

}  // namespace pyseq::PYSEQ_ISA
