// softmax_attention for one instruction set.
//
// The scores of a few queries are kept, a few kilobytes that stay in the first cache; vectors run
// over keys, because a narrow head has too few features to fill one.
#include "softmax_attention/narrow_heads.hpp"
#include "softmax_attention/softmax_attention.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

constexpr int64_t kQueriesOfATask = 128;  // for which keys and values are turned once

template <int kD>
class Forward {
 public:
  explicit Forward(const SoftmaxAttention& x)
      : x_(x),
        size_(x),
        threads_(useful_threads(x.threads, kCost * double(size_.B * size_.H) * double(size_.T) *
                                               double(size_.S) * double(size_.D))),
        memory_(threads_ * bytes()) {}

  void run() const {
    const int64_t chunks = (size_.T + kQueriesOfATask - 1) / kQueriesOfATask;
    for_tasks(size_.B * size_.H * chunks, threads_, [&](int64_t task, int worker) {
      const int64_t chunk = chunks - 1 - task % chunks;  // the longest rows first
      attend(task / chunks / size_.H, task / chunks % size_.H, chunk * kQueriesOfATask, worker);
    });
  }

 private:
  static constexpr double kCost = 4;  // of a feature of a key, in multiply-adds

  struct Rows {
    int64_t end[kQueriesAtOnce];  // keys that a query sees
    int64_t least, last;          // the smallest and the largest of them
    bool bad[kQueriesAtOnce];
    float best[kQueriesAtOnce];  // the largest <q, k>
    float total[kQueriesAtOnce];
    DropoutRow dropout[kQueriesAtOnce];
  };

  int64_t scores_bytes() const {
    return padded_bytes(kQueriesAtOnce * size_.pitch * int64_t{sizeof(float)});
  }
  int64_t queries_bytes() const {
    return padded_bytes(kQueriesAtOnce * size_.D * int64_t{sizeof(float)});
  }
  int64_t bytes() const {
    return Head<SoftmaxAttention>::bytes(size_) + scores_bytes() + queries_bytes();
  }

  void attend(int64_t b, int64_t h, int64_t first, int worker) const {
    char* memory = memory_.as<char>(worker * bytes());
    auto* scores = reinterpret_cast<float*>(memory);
    auto* queries = reinterpret_cast<float*>(memory + scores_bytes());
    Head<SoftmaxAttention> head(x_, size_, memory + scores_bytes() + queries_bytes());
    const int64_t last = smaller(first + kQueriesOfATask, size_.T);
    head.load(b, h / (size_.H / size_.G), size_.seen(b, last - 1));
    const uint64_t key = key_below(key_below(static_cast<uint64_t>(x_.dropout.seed), b), h);
    for (int64_t t = first; t < last; t += kQueriesAtOnce) {
      const int64_t count = smaller(kQueriesAtOnce, last - t);
      Rows rows = begin(b, h, t, count, key, head, queries);
      score(Broadcast<kD>(queries, size_.D), head, rows, scores);
      for (int r = 0; r < kQueriesAtOnce; ++r) {
        float* row = scores + r * size_.pitch;
        if (x_.dropout.dropped > 0) {
          weigh<true>(row, rows, r);
        } else {
          weigh<false>(row, rows, r);
        }
      }
      finish(b, h, t, count, head, rows, scores);
    }
  }

  Rows begin(int64_t b, int64_t h, int64_t t, int64_t count, uint64_t key,
             const Head<SoftmaxAttention>& head, float* queries) const {
    Rows rows = {};
    for (int r = 0; r < kQueriesAtOnce; ++r) {
      float* query = queries + r * size_.D;
      const int64_t at = smaller(t + r, t + count - 1);  // the last one again, and not written
      load_row(x_.query.at(b, h, at), x_.query.dtype, x_.query.stride[3], size_.D, query);
      rows.end[r] = size_.seen(b, at);
      rows.bad[r] = hide_if_bad(query, size_.D, size_.D) || head.spoil(rows.end[r]);
      rows.least = r == 0 ? rows.end[r] : smaller(rows.least, rows.end[r]);
      rows.last = larger(rows.last, rows.end[r]);
      rows.dropout[r] = DropoutRow(key_below(key, at), x_.dropout.dropped);
    }
    return rows;
  }

  // <q, k> of all keys of the rows, and the largest of each.
  PYSEQ_INLINE void score(const Broadcast<kD>& queries, const Head<SoftmaxAttention>& head,
                          Rows& rows, float* scores) const {
    Floats top[kQueriesAtOnce];
    for (int r = 0; r < kQueriesAtOnce; ++r) top[r] = broadcast(-kInfinity);
    for (int64_t j = 0; j < rows.last; j += kLanes) {
      Floats found[kQueriesAtOnce];
      dot<kD>(queries, head.keys + j, size_.pitch, size_.D, found);
      if (j + kLanes > rows.least) {
        const Ints key = lanes() + static_cast<int32_t>(j);
        for (int r = 0; r < kQueriesAtOnce; ++r) {
          const Ints hidden = key >= static_cast<int32_t>(rows.end[r]);
          found[r] = hidden ? broadcast(-kInfinity) : found[r];
        }
      }
      for (int r = 0; r < kQueriesAtOnce; ++r) {
        top[r] = maximum(found[r], top[r]);
        store(scores + r * size_.pitch + j, found[r]);
      }
    }
    for (int r = 0; r < kQueriesAtOnce; ++r) rows.best[r] = largest(top[r]);
  }

  // Makes of a row's <q, k> its weights, not divided by their sum.
  template <bool kDrops>
  PYSEQ_INLINE void weigh(float* scores, Rows& rows, int r) const {
    const DropoutRow dropout = rows.dropout[r];
    const Floats best = broadcast(rows.best[r]);
    const float factor = x_.scale * kLog2E;
    Floats total[2] = {};
    for (int64_t j = 0; j < rows.last; j += kDropoutBlock) {
      for (int64_t i = 0; i < kDropoutWords && j + i < rows.last; i += kLanes) {
        Words words = {};
        if constexpr (kDrops) words = dropout.words(j / 2 + i);
        for (int half = 0; half < 2; ++half) {
          float* at = scores + j + half * kDropoutWords + i;
          if (at - scores >= rows.last) break;
          // Subtracted first: large products are exact, and so is what they differ by. The bound
          // comes first: a NaN stays one.
          const Floats logit = (load(at) - best) * factor;
          Floats weight = exp2<7>(maximum(broadcast(kVanished), logit));
          total[half] += weight;
          if constexpr (kDrops) weight *= dropout.factors(words, half);
          store(at, weight);
        }
      }
    }
    rows.total[r] = sum(total[0] + total[1]);
  }

  void finish(int64_t b, int64_t h, int64_t t, int64_t count, const Head<SoftmaxAttention>& head,
              const Rows& rows, const float* weights) const {
    const float nan = __builtin_nanf("");
    bool bad[kQueriesAtOnce];
    for (int64_t r = 0; r < count; ++r) {
      const float measures[] = {rows.best[r], logf(rows.total[r])};
      bad[r] = rows.bad[r] || !all_finite(measures, 2);
      for (int64_t i = 0; i < 2; ++i) {
        const float found = rows.end[r] == 0 ? 0 : bad[r] ? nan : measures[i];
        memcpy(x_.measures.at(i, b, h, t + r), &found, sizeof found);
      }
    }
    for (int64_t d = 0; d < size_.D; ++d) {
      const float* values = head.values + d * size_.pitch;
      Floats sums[kQueriesAtOnce] = {};
      for (int64_t j = 0; j < rows.last; j += kLanes) {
        const Floats value = load(values + j);
        for (int r = 0; r < kQueriesAtOnce; ++r) {
          sums[r] += load(weights + r * size_.pitch + j) * value;
        }
      }
      for (int64_t r = 0; r < count; ++r) {
        const float mean = sum(sums[r]) / rows.total[r];
        const float out = rows.end[r] == 0 ? 0 : bad[r] ? nan : mean;
        store_row(&out, x_.out.dtype, 1, 1, x_.out.at(b, h, t + r, d));
      }
    }
  }

  const SoftmaxAttention& x_;
  const Sizes<SoftmaxAttention> size_;
  const int threads_;
  const Buffer memory_;
};

}  // namespace

void softmax_attention(const SoftmaxAttention& x) { run_for_width<Forward>(x); }

}  // namespace pyseq::PYSEQ_ISA
