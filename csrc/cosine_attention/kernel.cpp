// cosine_attention for one instruction set.
#include "cosine_attention/cosine_attention.hpp"
#include "cpu/keys_and_values.hpp"
#include "cpu/prepare_row.hpp"
#include "cpu/score_blocks.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

// With logits up to `bound`, exp(logit - offset) summed over S keys stays below e^64, which times
// values up to 5e10 fits float32; where the smallest one would vanish the running maximum is
// needed.
constexpr float kLargestSum = 64;
constexpr float kSmallestTerm = 70;

// The largest magnitude of a gain; 1 where there is none.
float largest_gain(const Tensor& gain) {
  if (gain.data == nullptr) return 1;
  float most = 0;
  for (int64_t d = 0; d < gain.shape[0]; ++d) {
    most = fmaxf(most, fabsf(static_cast<const float*>(gain.data)[d]));
  }
  return most;
}

// What no |logit| of a head exceeds, from its scale and the parameters alone: were it made from
// queries and keys, a later one would change the rounding of what earlier ones give.
float logit_bound(const CosineAttention& x, float scale) {
  constexpr float kRounding = 1.01F;  // products of rounded rows can be a little longer
  const bool unit = x.prepare_query.norm == Norm::kL2;
  const float longest = unit ? 1 : static_cast<float>(x.query.shape[3]);
  const float gains = largest_gain(x.prepare_query.gain) * largest_gain(x.prepare_key.gain);
  // Tables may hold more than angles, as where a rotation also scales.
  if (x.prepare_query.norm != Norm::kNone && x.prepare_query.cos.data == nullptr) {
    return kRounding * fabsf(scale) * longest * gains;
  }
  return x.logit_bound > 0 ? kRounding * x.logit_bound : kInfinity;
}

// One query's softmax, as far as it is.
struct Row {
  float sums[kLanes];
  float top;  // of the running maximum: in units of ln 2
  bool bad;
};

// Weights 2^(factor * score - top) of one row, written as a row of A; hidden ones are 0.
template <typename Engine, bool kBounded, bool kMasked>
PYSEQ_INLINE void weigh(const float* scores, int64_t first, int64_t width, const Seen& seen,
                        float factor, float top, float* sums, typename Engine::Element* weights,
                        int64_t plane) {
  constexpr int kTerms = Engine::kPlanes == 1 && sizeof(typename Engine::Element) == 2 ? 4 : 7;
  Floats total[2] = {load(sums), {}};
  for (int64_t j = 0; j < width; j += Engine::kColumns) {
    Floats found[2];
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const int64_t at = j + half * kLanes;
      Floats power = load(scores + at) * factor - top;
      if constexpr (!kBounded) power = maximum(broadcast(kVanished), power);  // NaN stays
      found[half] = exp2<kTerms, kBounded>(power);
      if constexpr (kMasked) found[half] = seen.hidden(first + at) ? Floats{} : found[half];
      total[half] += found[half];
    }
    Engine::put(weights + j, plane, found[0], found[1]);
  }
  store(sums, total[0] + total[1]);
}

// The largest factor * score of the keys that are seen; NaN does not count.
template <bool kMasked>
PYSEQ_INLINE float highest(const float* scores, int64_t first, int64_t width, const Seen& seen,
                           float factor) {
  Floats top = broadcast(-kInfinity);
  for (int64_t j = 0; j < width; j += kLanes) {
    Floats found = load(scores + j) * factor;
    if constexpr (kMasked) found = seen.hidden(first + j) ? broadcast(-kInfinity) : found;
    top = maximum(found, top);
  }
  return largest(top);
}

template <typename Engine>
class Attention {
 public:
  explicit Attention(const CosineAttention& x)
      : x_(x),
        threads_(useful_threads(x.threads, double(B * H) * double(T) * double(S) * double(D))),
        working_(threads_ * scratch()) {}

  void run() {
    packed_.pack(
        threads_,
        [&](int64_t head, int64_t s, float* row) {
          load_row(x_.key.at(head / G, head % G, s), x_.key.dtype, x_.key.stride[3], D, row);
          prepare_row(row, D, columns_.depth, x_.prepare_key, s);
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
  static constexpr int64_t kQueries = 2 * Engine::kRows;
  static constexpr bool kSharesScores = sizeof(Element) == sizeof(float);

  // A thread's memory.
  struct Space {
    float* loaded;
    Element* queries;
    float* scores;
    Element* weights;  // of the engine's own kind; in the scores' place where that is float32
    float* out;
    Row* rows;
  };

  void attend(int64_t b, int64_t h, int64_t first, int worker) {
    const int64_t head = b * G + h / (H / G);
    const int64_t count = T - first < kQueries ? T - first : kQueries;
    const float scale = reinterpret_cast<const float*>(x_.scale.data)[h * x_.scale.stride[0]];
    const Space space = space_of(worker);

    memset(space.queries, 0, static_cast<size_t>(query_bytes()));
    for (int64_t i = 0; i < count; ++i) {
      const int64_t t = first + i;
      float* row = space.loaded;
      memset(row + D, 0, static_cast<size_t>(columns_.depth - D) * sizeof(float));
      load_row(x_.query.at(b, h, t), x_.query.dtype, x_.query.stride[3], D, row);
      // A query before the first position sees at most the prefix, and has no angle.
      const int64_t position = t + S - T;
      prepare_row(row, D, columns_.depth, x_.prepare_query, position < 0 ? 0 : position);
      space.rows[i].bad = hide_if_bad(row, D, columns_.depth) || !all_finite(&scale, 1);
      space.rows[i].top = -kInfinity;
      store(space.rows[i].sums, Floats{});
      put_row<Engine>(row, columns_.depth, space.queries + i * columns_.depth, query_plane());
    }
    memset(space.out, 0, static_cast<size_t>(kQueries * rows_.width) * sizeof(float));

    const float bound = logit_bound(x_, scale);
    const float needed = bound + logf(static_cast<float>(S)) - kLargestSum;
    const float offset = needed > 0 ? needed : 0;
    const bool bounded = bound + offset < kSmallestTerm;

    Engine::begin();
    if (bounded) {
      sweep<true>(head, first, count, scale * kLog2E, offset * kLog2E, space);
    } else {
      sweep<false>(head, first, count, scale * kLog2E, 0, space);
    }
    Engine::end();

    for (int64_t i = 0; i < count; ++i) {
      const Seen seen = seen_keys(first + i);
      const bool bad = space.rows[i].bad || packed_.spoil(head, seen);
      finish(b, h, first + i, space.rows[i], bounded ? offset * kLog2E : space.rows[i].top,
             seen.any(), bad, space.out + i * rows_.width);
    }
  }

  // All keys that some query of the tile sees, block by block. With a bound every weight is
  // 2^(factor * score - top); without, `top` follows the highest score of each row.
  template <bool kBounded>
  void sweep(int64_t head, int64_t first, int64_t count, float factor, float top,
             const Space& space) const {
    const Seen lowest = seen_keys(first);
    const Seen highest_seen = seen_keys(first + count - 1);
    const Element* values = packed_.values(head);
    const ScoreBlocks<Engine> blocks{
        .queries = {space.queries, columns_.depth, query_plane()},
        .rows = round_up(count, Engine::kRowUnit),
        .count = count,
        .columns = columns_,
        .keys = packed_.keys(head),
        .range = {lowest.prefix, lowest.begin, highest_seen.end},
        .memory = space.scores,
    };
    // The engine's own kind of weights, or, where that is float32, in place of the scores.
    const auto weights = [&](float* scores) {
      return kSharesScores ? reinterpret_cast<Element*>(scores) : space.weights;
    };
    blocks.for_each(
        [&](int64_t i, int64_t s, int64_t width, float* scores) {
          Element* to = kSharesScores ? reinterpret_cast<Element*>(scores)
                                      : space.weights + i * kBlockPitch<Element>;
          const Seen seen = seen_keys(first + i);
          if (seen.all_of(s, s + width)) {
            weigh_row<kBounded, false>(i, s, width, seen, factor, top, scores, to, space);
          } else {
            weigh_row<kBounded, true>(i, s, width, seen, factor, top, scores, to, space);
          }
        },
        [&](int64_t s, int64_t width, float* scores) {
          Engine::template multiply<true>({weights(scores), kBlockPitch<Element>, kWeightPlane},
                                          rows_.from(values, s), space.out, rows_.width,
                                          blocks.rows, rows_.width, width);
        });
  }

  template <bool kBounded, bool kMasked>
  PYSEQ_INLINE void weigh_row(int64_t i, int64_t first, int64_t width, const Seen& seen,
                              float factor, float top, const float* scores, Element* weights,
                              const Space& space) const {
    Row& row = space.rows[i];
    if constexpr (!kBounded) {
      top = highest<kMasked>(scores, first, width, seen, factor);
      if (top > row.top) {
        const float shrink = exp2f(row.top - top);
        store(row.sums, load(row.sums) * shrink);
        float* out = space.out + i * rows_.width;
        for (int64_t d = 0; d < rows_.width; d += kLanes) store(out + d, load(out + d) * shrink);
        row.top = top;
      }
      top = row.top == -kInfinity ? 0 : row.top;
    }
    weigh<Engine, kBounded, kMasked>(scores, first, width, seen, factor, top, row.sums, weights,
                                     kWeightPlane);
  }

  void finish(int64_t b, int64_t h, int64_t t, const Row& row, float top, bool sees, bool bad,
              float* out) const {
    const float total = sum(load(row.sums));
    // In double, as the gradient's weights are only as exact as this.
    float lse = static_cast<float>(double{top} * 0.6931471805599453 + double{logf(total)});
    const Floats share = broadcast(1 / total);
    for (int64_t d = 0; d < rows_.width; d += kLanes) store(out + d, load(out + d) * share);
    if (!sees || bad) {
      const float all = sees ? __builtin_nanf("") : 0.0F;
      for (int64_t d = 0; d < D; ++d) out[d] = all;
      lse = sees ? all : -kInfinity;
    }
    store_row(out, x_.out.dtype, x_.out.stride[3], D, x_.out.at(b, h, t));
    memcpy(x_.lse.at(b, h, t), &lse, sizeof lse);
  }

  Seen seen_keys(int64_t t) const { return seen_by(t, T, S, x_.causal, x_.window, x_.prefix); }

  int64_t query_plane() const { return kQueries * columns_.depth; }
  int64_t query_bytes() const {
    return padded_bytes(Engine::kPlanes * query_plane() * int64_t{sizeof(Element)});
  }
  static constexpr int64_t kScoreBytes = ScoreBlocks<Engine>::bytes(kQueries);
  static constexpr int64_t kWeightPlane = kQueries * kBlockPitch<Element>;
  static constexpr int64_t kWeightBytes =
      kSharesScores ? 0 : Engine::kPlanes * kWeightPlane * int64_t{sizeof(Element)};
  int64_t out_bytes() const { return kQueries * rows_.width * int64_t{sizeof(float)}; }
  int64_t scratch() const {
    return packed_.scratch_bytes() + query_bytes() + kScoreBytes + kWeightBytes + out_bytes() +
           padded_bytes(kQueries * int64_t{sizeof(Row)});
  }

  Space space_of(int worker) const {
    int64_t at = worker * scratch();
    const auto take = [&](int64_t bytes) {
      char* part = working_.template as<char>(at);
      at += bytes;
      return part;
    };
    Space space;
    space.loaded = reinterpret_cast<float*>(take(packed_.scratch_bytes()));
    space.queries = reinterpret_cast<Element*>(take(query_bytes()));
    space.scores = reinterpret_cast<float*>(take(kScoreBytes));
    space.weights = reinterpret_cast<Element*>(kSharesScores ? reinterpret_cast<char*>(space.scores)
                                                             : take(kWeightBytes));
    space.out = reinterpret_cast<float*>(take(out_bytes()));
    space.rows = reinterpret_cast<Row*>(take(0));
    return space;
  }

  const CosineAttention& x_;
  const int64_t B = x_.query.shape[0];
  const int64_t H = x_.query.shape[1];
  const int64_t T = x_.query.shape[2];
  const int64_t D = x_.query.shape[3];
  const int64_t G = x_.key.shape[1];
  const int64_t S = x_.key.shape[2];
  KeysAndValues<Engine> packed_{B * G, S, D};
  const Columns<Engine>& columns_ = packed_.columns;
  const StackedRows<Engine>& rows_ = packed_.rows;
  const int threads_;
  const Buffer working_;
};

// How many bfloat16 hold a prepared row of bfloat16 numbers. Rounding it to one moves a logit by
// up to 2^-8 of its bound; where that could be an eighth, two are taken.
int planes_for(const CosineAttention& x) {
  constexpr float kLargestLogit = 32;
  if (!x.prepare_query.changes() && !x.prepare_key.changes()) return 1;
  for (int64_t h = 0; h < x.query.shape[1]; ++h) {
    const auto* scales = reinterpret_cast<const float*>(x.scale.data);
    if (!(logit_bound(x, scales[h * x.scale.stride[0]]) <= kLargestLogit)) return 2;
  }
  return 1;
}

}  // namespace

void cosine_attention(const CosineAttention& x) {
  with_engine(x.query.dtype, planes_for(x), [&]<typename Engine>() { Attention<Engine>(x).run(); });
}

}  // namespace pyseq::PYSEQ_ISA
