// adaptive_attention for one instruction set.
//
// All scores of a few queries are kept, which saves the product that a second sweep over the keys
// would need; memory stays linear in the length.
#include "adaptive_attention/adaptive_attention.hpp"
#include "cpu/keys_and_values.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

constexpr int64_t kKeysPerBlock = 128;  // multiplied with values at once

template <typename Engine>
class Attention {
 public:
  explicit Attention(const AdaptiveAttention& x)
      : x_(x),
        threads_(useful_threads(x.threads, double(B * H) * double(T) * double(S) * double(D))),
        working_(threads_ * scratch()) {}

  void run() {
    packed_.pack(
        threads_,
        [&](int64_t head, int64_t s, float* row) {
          load_row(x_.key.at(head / G, head % G, s), x_.key.dtype, x_.key.stride[3], D, row);
        },
        [&](int64_t head, int64_t s, float* row) {
          load_row(x_.value.at(head / G, head % G, s), x_.value.dtype, x_.value.stride[3], D, row);
        },
        [&](int worker) { return space_of(worker).loaded; });
    const int64_t tiles = (T + kQueries - 1) / kQueries;
    for_tasks(B * H * tiles, threads_, [&](int64_t task, int worker) {
      const int64_t tile = tiles - 1 - task % tiles;  // the longest rows first
      attend(task / tiles / H, task / tiles % H, tile * kQueries, worker);
    });
  }

 private:
  using Element = typename Engine::Element;
  static constexpr int64_t kQueries = Engine::kSumsInRegisters ? 2 * Engine::kRows : Engine::kRows;
  // Bits enough for weights that are rounded to bfloat16.
  static constexpr int kTerms = Engine::kPlanes == 1 && sizeof(Element) == 2 ? 4 : 7;

  // One query's softmax, and how it is sharpened.
  struct Row {
    float best;   // its largest <q, k>
    float total;  // sum e^c, where c is the logit less the largest one
    float nats;
    float beta;
    float sharpened;  // sum e^(beta c)
    bool bad;
  };

  // A thread's memory.
  struct Space {
    float* loaded;
    Element* queries;
    float* scores;
    Element* weights;
    float* out;
    Row* rows;
  };

  void attend(int64_t b, int64_t h, int64_t first, int worker) {
    const int64_t head = b * G + h / (H / G);
    const int64_t count = T - first < kQueries ? T - first : kQueries;
    const Space space = space_of(worker);
    load_queries(b, h, first, count, space);
    memset(space.out, 0, static_cast<size_t>(kQueries * rows_.width) * sizeof(float));

    const int64_t end = round_up(seen_keys(first + count - 1).end, Engine::kColumns);
    Engine::begin();
    Engine::template multiply<false>({space.queries, columns_.depth, query_plane()},
                                     columns_.from(packed_.keys(head), 0), space.scores, pitch_,
                                     round_up(count, Engine::kRowUnit), end, columns_.depth);
    for (int64_t i = 0; i < count; ++i) {
      measure(space.scores + i * pitch_, end, seen_keys(first + i).end, space.rows[i]);
    }
    for (int64_t s = 0; s < end; s += kKeysPerBlock) {
      const int64_t width = end - s < kKeysPerBlock ? end - s : kKeysPerBlock;
      for (int64_t i = 0; i < count; ++i) {
        weigh(space.scores + i * pitch_ + s, width, space.rows[i], space.weights + i * kPitch);
      }
      Engine::template multiply<true>({space.weights, kPitch, kWeightPlane},
                                      rows_.from(packed_.values(head), s), space.out, rows_.width,
                                      round_up(count, Engine::kRowUnit), rows_.width, width);
    }
    Engine::end();
    for (int64_t i = 0; i < count; ++i) {
      const Seen seen = seen_keys(first + i);
      space.rows[i].bad = space.rows[i].bad || packed_.spoil(head, seen);
      finish(b, h, first + i, seen.any(), space.rows[i], space.out + i * rows_.width);
    }
  }

  void load_queries(int64_t b, int64_t h, int64_t first, int64_t count, const Space& space) {
    memset(space.queries, 0, static_cast<size_t>(query_bytes()));
    float* row = space.loaded;
    memset(row + D, 0, static_cast<size_t>(columns_.depth - D) * sizeof(float));
    for (int64_t i = 0; i < count; ++i) {
      load_row(x_.query.at(b, h, first + i), x_.query.dtype, x_.query.stride[3], D, row);
      space.rows[i].bad = hide_if_bad(row, D, columns_.depth);
      put_row<Engine>(row, columns_.depth, space.queries + i * columns_.depth, query_plane());
    }
  }

  // Makes of scores the logits less the largest one, in units of ln 2, and measures them.
  void measure(float* scores, int64_t width, int64_t seen, Row& row) const {
    for (int64_t j = seen; j < width; ++j) scores[j] = -kInfinity;
    Floats top[2] = {broadcast(-kInfinity), broadcast(-kInfinity)};
    for (int64_t j = 0; j < width; j += 2 * kLanes) {
      top[0] = maximum(load(scores + j), top[0]);
      top[1] = maximum(load(scores + j + kLanes), top[1]);
    }
    row.best = largest(maximum(top[0], top[1]));
    const float factor = x_.scale * kLog2E;
    Floats total[2] = {};
    Floats moment[2] = {};
    for (int64_t j = 0; j < width; j += 2 * kLanes) {
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        float* at = scores + j + half * kLanes;
        // Subtracted first: large scores are exact, and so is what they differ by.
        const Floats centred = maximum(broadcast(kVanished), (load(at) - row.best) * factor);
        const Floats mass = exp2<7>(centred);
        store(at, centred);
        total[half] += mass;
        moment[half] += mass * centred;
      }
    }
    row.total = sum(total[0] + total[1]);
    row.nats = logf(row.total) - kLn2 * sum(moment[0] + moment[1]) / row.total;
    row.beta = x_.sharpness.beta(row.nats);
    row.sharpened = 0;
  }

  void weigh(const float* centred, int64_t width, Row& row, Element* weights) const {
    Floats total[2] = {};
    for (int64_t j = 0; j < width; j += Engine::kColumns) {
      Floats found[2];
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        // A key without mass has none at a larger beta either.
        const Floats power = load(centred + j + half * kLanes) * row.beta;
        found[half] = exp2<kTerms>(maximum(broadcast(kVanished), power));
        total[half] += found[half];
      }
      Engine::put(weights + j, kWeightPlane, found[0], found[1]);
    }
    row.sharpened += sum(total[0] + total[1]);
  }

  void finish(int64_t b, int64_t h, int64_t t, bool sees, const Row& row, float* out) const {
    const float nan = __builtin_nanf("");
    const float measures[] = {row.best, logf(row.total), row.nats, logf(row.sharpened)};
    for (int64_t d = 0; d < D; ++d) out[d] = !sees ? 0 : row.bad ? nan : out[d] / row.sharpened;
    store_row(out, x_.out.dtype, x_.out.stride[3], D, x_.out.at(b, h, t));
    for (int64_t i = 0; i < 4; ++i) {
      const float found = !sees ? 0 : row.bad ? nan : measures[i];
      memcpy(x_.measures.at(i, b, h, t), &found, sizeof found);
    }
  }

  Seen seen_keys(int64_t t) const { return seen_by(t, T, S, x_.causal); }

  int64_t query_plane() const { return kQueries * columns_.depth; }
  int64_t query_bytes() const {
    return padded_bytes(Engine::kPlanes * query_plane() * int64_t{sizeof(Element)});
  }
  // Elements from row to row: a power of two would crowd a few sets of the cache.
  static constexpr int64_t kPitch = kKeysPerBlock + 64 / int64_t{sizeof(Element)};
  static constexpr int64_t kWeightPlane = kQueries * kPitch;
  static constexpr int64_t kWeightBytes = Engine::kPlanes * kWeightPlane * int64_t{sizeof(Element)};
  int64_t score_bytes() const { return padded_bytes(kQueries * pitch_ * int64_t{sizeof(float)}); }
  int64_t out_bytes() const {
    return padded_bytes(kQueries * rows_.width * int64_t{sizeof(float)});
  }
  int64_t scratch() const {
    return packed_.scratch_bytes() + query_bytes() + score_bytes() + padded_bytes(kWeightBytes) +
           out_bytes() + padded_bytes(kQueries * int64_t{sizeof(Row)});
  }

  Space space_of(int worker) const {
    int64_t at = worker * scratch();
    const auto take = [&](int64_t bytes) {
      char* part = working_.template as<char>(at);
      at += padded_bytes(bytes);
      return part;
    };
    Space space;
    space.loaded = reinterpret_cast<float*>(take(packed_.scratch_bytes()));
    space.queries = reinterpret_cast<Element*>(take(query_bytes()));
    space.scores = reinterpret_cast<float*>(take(score_bytes()));
    space.weights = reinterpret_cast<Element*>(take(kWeightBytes));
    space.out = reinterpret_cast<float*>(take(out_bytes()));
    space.rows = reinterpret_cast<Row*>(take(0));
    return space;
  }

  const AdaptiveAttention& x_;
  const int64_t B = x_.query.shape[0];
  const int64_t H = x_.query.shape[1];
  const int64_t T = x_.query.shape[2];
  const int64_t D = x_.query.shape[3];
  const int64_t G = x_.key.shape[1];
  const int64_t S = x_.key.shape[2];
  KeysAndValues<Engine> packed_{B * G, S, D};
  const Columns<Engine>& columns_ = packed_.columns;
  const StackedRows<Engine>& rows_ = packed_.rows;
  const int64_t pitch_ = round_up(S, Engine::kColumns) + 16;
  const int threads_;
  const Buffer working_;
};

}  // namespace

void adaptive_attention(const AdaptiveAttention& x) {
  with_engine(x.query.dtype, 1, [&]<typename Engine>() { Attention<Engine>(x).run(); });
}

}  // namespace pyseq::PYSEQ_ISA
