// hard_attention for one instruction set.
#include "cpu/score_blocks.hpp"
#include "hard_attention/hard_attention.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

// How many of the first keys query t sees.
int64_t seen_keys(const HardAttention& x, int64_t t) {
  const int64_t T = x.query.shape[2];
  const int64_t S = x.key.shape[2];
  if (!x.causal) return S;
  const int64_t seen = t + S - T + 1;
  return seen < 0 ? 0 : seen;
}

// The best score of one query so far, and the lowest key that has it; -1 while every score was NaN,
// hidden or -inf.
struct Best {
  float score = -kInfinity;
  int64_t key = -1;

  // Two vectors of scores, of the keys from `first` on.
  PYSEQ_INLINE void update(Floats left, Floats right, int64_t first) {
    Floats top = broadcast(score);
    top = maximum(left, top);  // in this order NaN is left out
    top = maximum(right, top);
    if (any_above(top, broadcast(score))) replace(left, right, top, first);
  }

  // Scores of keys first to first + width in memory. Few blocks hold a better one, so only those
  // are looked at twice.
  PYSEQ_INLINE void update(const float* scores, int64_t first, int64_t width) {
    Floats top[2] = {broadcast(-kInfinity), broadcast(-kInfinity)};
    for (int64_t j = 0; j < width; j += 2 * kLanes) {
      top[0] = maximum(load(scores + j), top[0]);
      top[1] = maximum(load(scores + j + kLanes), top[1]);
    }
    top[0] = maximum(top[0], top[1]);
    if (!any_above(top[0], broadcast(score))) return;
    for (int64_t j = 0; j < width; j += 2 * kLanes) {
      update(load(scores + j), load(scores + j + kLanes), first + j);
    }
  }

 private:
  __attribute__((noinline, cold)) void replace(Floats left, Floats right, Floats top,
                                               int64_t first) {
    score = largest(top);
    const int lane = first_equal(left, broadcast(score));
    key = first + (lane < kLanes ? lane : kLanes + first_equal(right, broadcast(score)));
  }
};

// Scores of the keys from `first` on, without those from `seen` on.
PYSEQ_INLINE Floats hide(Floats scores, int64_t first, int64_t seen) {
  const Ints here = lanes() + static_cast<int32_t>(first);
  return here < static_cast<int32_t>(seen) ? scores : broadcast(-kInfinity);
}

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

// The best keys of queries first to first + count.
template <typename Engine, typename Element>
void find_in_registers(const HardAttention& x, Rows<Element> queries, int64_t first, int64_t count,
                       const Columns<Engine>& keys, const Element* head, Best* best) {
  const int64_t whole = seen_keys(x, first);
  const int64_t end = seen_keys(x, first + count - 1);
  for (int64_t s = 0; s < end; s += Engine::kColumns) {
    const Element* panel = keys.from(head, s).data;
    if (s + Engine::kColumns <= whole) {
      const auto take = [&](int64_t i, Floats left, Floats right) {
        best[i].update(left, right, s);
      };
      Engine::for_rows(queries, panel, count, keys.depth, take);
    } else {
      const auto take = [&](int64_t i, Floats left, Floats right) {
        const int64_t seen = seen_keys(x, first + i);
        best[i].update(hide(left, s, seen), hide(right, s + kLanes, seen), s);
      };
      Engine::for_rows(queries, panel, count, keys.depth, take);
    }
  }
}

template <typename Engine, typename Element>
void find_in_memory(const HardAttention& x, Rows<Element> queries, int64_t first, int64_t count,
                    const Columns<Engine>& keys, const Element* head, float* memory, Best* best) {
  const ScoreBlocks<Engine> blocks{
      .queries = queries,
      .rows = round_up(count, Engine::kRowUnit),
      .count = count,
      .columns = keys,
      .keys = head,
      .range = {0, 0, seen_keys(x, first + count - 1)},
      .memory = memory,
  };
  blocks.for_each(
      [&](int64_t i, int64_t s, int64_t width, float* scores) {
        const int64_t seen = seen_keys(x, first + i);
        for (int64_t j = seen > s ? seen - s : 0; j < width; ++j) scores[j] = -kInfinity;
        best[i].update(scores, s, width);
      },
      [](int64_t, int64_t, const float*) {});
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
  constexpr int64_t kQueries = (Engine::kSumsInRegisters ? 4 : 2) * Engine::kRows;
  const Columns<Engine> keys{S, D};
  const double multiply_adds = double(B * H) * double(T) * double(S * D);
  const int threads = useful_threads(x.threads, multiply_adds);
  bool finite = true;  // only ever set to false, by any thread

  // Per thread: rows in float32, packed queries, scores, and the best of every query.
  const int64_t loaded = padded_bytes(keys.scratch_bytes());
  const int64_t query_plane = kQueries * keys.depth;
  const int64_t queries = padded_bytes(Engine::kPlanes * query_plane * int64_t{sizeof(Element)});
  const int64_t scores =
      Engine::kSumsInRegisters ? 0 : padded_bytes(ScoreBlocks<Engine>::bytes(kQueries));
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
    memset(loaded_row + D, 0, static_cast<size_t>(keys.depth - D) * sizeof(float));
    for (int64_t i = 0; i < count; ++i) {
      load_row(x.query.at(b, h, first + i), x.query.dtype, x.query.stride[3], D, loaded_row);
      note(loaded_row);
      put_row<Engine>(loaded_row, keys.depth, query + i * keys.depth, query_plane);
      best[i] = Best{};
    }

    const Rows<Element> rows = {query, keys.depth, query_plane};
    Engine::begin();
    if constexpr (Engine::kSumsInRegisters) {
      find_in_registers<Engine>(x, rows, first, count, keys, head, best);
    } else {
      find_in_memory<Engine>(x, rows, first, count, keys, head, found, best);
    }
    Engine::end();

    for (int64_t i = 0; i < count; ++i) {
      const int64_t t = first + i;
      const int64_t seen = seen_keys(x, t);
      int64_t chosen = best[i].key;
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
