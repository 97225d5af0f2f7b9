// The gradient of softmax_attention for one instruction set.
//
// The weights are made again, from what the forward kept of each row. With f what dropout
// multiplies a weight p with, w = f p:
//   dV = w^T dO, dP = f dO V^T, dS = p (dP - <dO, O>), dQ = scale dS K, dK = scale dS^T Q.
// One task is one key head of one entry, so that no two threads add to the same gradient.
#include "softmax_attention/narrow_heads.hpp"
#include "softmax_attention/softmax_attention.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

constexpr int64_t kKeysAtOnce = 128;  // a multiple of kDropoutBlock

template <int kD>
class Backward {
 public:
  explicit Backward(const SoftmaxAttentionBackward& x)
      : x_(x),
        size_(x),
        threads_(useful_threads(x.threads, kCost * double(size_.B * size_.H) * double(size_.T) *
                                               double(size_.S) * double(size_.D))),
        memory_(threads_ * bytes()) {}

  void run() const {
    for_tasks(size_.B * size_.G, threads_, [&](int64_t task, int worker) {
      differentiate(task / size_.G, task % size_.G, worker);
    });
  }

 private:
  using KeyHead = Head<SoftmaxAttentionBackward>;
  static constexpr double kCost = 8;  // of a feature of a key, in multiply-adds

  // A thread's memory.
  struct Space {
    float* queries;   // (kQueriesAtOnce, D)
    float* grads;     // (kQueriesAtOnce, D)
    float* row;       // (D,)
    float* weights;   // (kQueriesAtOnce, kKeysAtOnce): w
    float* d_scores;  // (kQueriesAtOnce, kKeysAtOnce): dS
    float* d_query;   // (D, kQueriesAtOnce, kLanes)
    float* d_keys;    // (D, pitch)
    float* d_values;  // (D, pitch)
    char* head;
  };

  struct Rows {
    int64_t end[kQueriesAtOnce];  // keys to which a gradient flows
    int64_t least, last;          // the smallest and the largest of them
    bool bad[kQueriesAtOnce];     // whether the gradient of the output is not finite
    float best[kQueriesAtOnce];   // the largest <q, k>
    float total[kQueriesAtOnce];  // log2 of the sum of the masses
    float delta[kQueriesAtOnce];  // <dO, O>
    DropoutRow dropout[kQueriesAtOnce];
  };

  int64_t rows_bytes() const {
    return padded_bytes((2 * kQueriesAtOnce + 1) * size_.D * int64_t{sizeof(float)});
  }
  static constexpr int64_t kBlockBytes = kQueriesAtOnce * kKeysAtOnce * int64_t{sizeof(float)};
  int64_t d_query_bytes() const {
    return size_.D * kQueriesAtOnce * kLanes * int64_t{sizeof(float)};
  }
  int64_t d_head_bytes() const {
    return padded_bytes(size_.D * size_.pitch * int64_t{sizeof(float)});
  }
  int64_t bytes() const {
    return rows_bytes() + 2 * kBlockBytes + padded_bytes(d_query_bytes()) + 2 * d_head_bytes() +
           KeyHead::bytes(size_);
  }

  Space space_of(int worker) const {
    char* at = memory_.as<char>(worker * bytes());
    const auto take = [&](int64_t bytes) {
      char* part = at;
      at += bytes;
      return reinterpret_cast<float*>(part);
    };
    Space space;
    space.queries = take(rows_bytes());
    space.grads = space.queries + kQueriesAtOnce * size_.D;
    space.row = space.grads + kQueriesAtOnce * size_.D;
    space.weights = take(kBlockBytes);
    space.d_scores = take(kBlockBytes);
    space.d_query = take(padded_bytes(d_query_bytes()));
    space.d_keys = take(d_head_bytes());
    space.d_values = take(d_head_bytes());
    space.head = at;
    return space;
  }

  void differentiate(int64_t b, int64_t g, int worker) const {
    const Space space = space_of(worker);
    KeyHead head(x_, size_, space.head);
    const int64_t seen = size_.seen(b, size_.T - 1);
    head.load(b, g, seen);
    memset(space.d_keys, 0, static_cast<size_t>(d_head_bytes()));
    memset(space.d_values, 0, static_cast<size_t>(d_head_bytes()));
    int64_t bad_keys = 0;  // the first so many are seen by a row whose gradient is not finite
    const int64_t each = size_.H / size_.G;
    for (int64_t h = g * each; h < (g + 1) * each; ++h) {
      const uint64_t key = key_below(key_below(static_cast<uint64_t>(x_.dropout.seed), b), h);
      for (int64_t t = 0; t < size_.T; t += kQueriesAtOnce) {
        const int64_t count = smaller(kQueriesAtOnce, size_.T - t);
        const Rows rows = begin(b, h, t, count, key, head, space, bad_keys);
        memset(space.d_query, 0, static_cast<size_t>(d_query_bytes()));
        for (int64_t first = 0; first < rows.last; first += kKeysAtOnce) {
          const int64_t last = smaller(rows.last, first + kKeysAtOnce);
          if (x_.dropout.dropped > 0) {
            restore<true>(head, rows, first, last, space);
          } else {
            restore<false>(head, rows, first, last, space);
          }
          add_products(head, first, last, space);
        }
        if (x_.d_query.data != nullptr) store_d_query(b, h, t, count, rows, space);
      }
    }
    store_head(x_.d_key, b, g, space.d_keys, x_.scale, bad_keys, space.row);
    store_head(x_.d_value, b, g, space.d_values, 1, bad_keys, space.row);
  }

  Rows begin(int64_t b, int64_t h, int64_t t, int64_t count, uint64_t key, const KeyHead& head,
             const Space& space, int64_t& bad_keys) const {
    const int64_t D = size_.D;
    Rows rows = {};
    for (int r = 0; r < kQueriesAtOnce; ++r) {
      float* query = space.queries + r * D;
      float* grad = space.grads + r * D;
      if (r >= count) {
        memset(query, 0, static_cast<size_t>(D) * sizeof(float));
        memset(grad, 0, static_cast<size_t>(D) * sizeof(float));
      } else {
        load_row(x_.query.at(b, h, t + r), x_.query.dtype, x_.query.stride[3], D, query);
        load_row(x_.grad.at(b, h, t + r), x_.grad.dtype, x_.grad.stride[3], D, grad);
        load_row(x_.out.at(b, h, t + r), x_.out.dtype, x_.out.stride[3], D, space.row);
        float measures[2];
        for (int64_t i = 0; i < 2; ++i) {
          memcpy(measures + i, x_.measures.at(i, b, h, t + r), sizeof(float));
        }
        rows.end[r] = size_.seen(b, t + r);
        rows.bad[r] = hide_if_bad(grad, D, D);
        if (rows.bad[r]) bad_keys = larger(bad_keys, rows.end[r]);
        // An output that is NaN whatever goes in has no gradient.
        const bool hopeless =
            hide_if_bad(query, D, D) || head.spoil(rows.end[r]) || !all_finite(measures, 2);
        if (hopeless) rows.end[r] = 0;
        for (int64_t d = 0; d < D && !hopeless; ++d) rows.delta[r] += grad[d] * space.row[d];
        rows.best[r] = hopeless ? 0 : measures[0];
        rows.total[r] = hopeless ? 0 : measures[1] * kLog2E;
      }
      rows.least = r == 0 ? rows.end[r] : smaller(rows.least, rows.end[r]);
      rows.last = larger(rows.last, rows.end[r]);
      rows.dropout[r] = DropoutRow(key_below(key, t + r), x_.dropout.dropped);
    }
    return rows;
  }

  // w and dS of keys first to last.
  template <bool kDrops>
  PYSEQ_INLINE void restore(const KeyHead& head, const Rows& rows, int64_t first, int64_t last,
                            const Space& space) const {
    const Broadcast<kD> queries(space.queries, size_.D);
    const Broadcast<kD> grads(space.grads, size_.D);
    const float factor = x_.scale * kLog2E;
    for (int64_t j = first; j < last; j += kDropoutBlock) {
      for (int64_t i = 0; i < kDropoutWords && j + i < last; i += kLanes) {
        Words words[kQueriesAtOnce] = {};
        if constexpr (kDrops) {
          for (int r = 0; r < kQueriesAtOnce; ++r) words[r] = rows.dropout[r].words(j / 2 + i);
        }
        for (int half = 0; half < 2; ++half) {
          const int64_t at = j + half * kDropoutWords + i;
          if (at >= last) break;
          Floats scores[kQueriesAtOnce], d_weights[kQueriesAtOnce];
          dot<kD>(queries, head.keys + at, size_.pitch, size_.D, scores);
          dot<kD>(grads, head.values + at, size_.pitch, size_.D, d_weights);
          for (int r = 0; r < kQueriesAtOnce; ++r) {
            Floats logit = (scores[r] - rows.best[r]) * factor - rows.total[r];
            logit = maximum(logit, broadcast(kVanished));
            if (at + kLanes > rows.least) {
              const Ints key = lanes() + static_cast<int32_t>(at);
              logit = key >= static_cast<int32_t>(rows.end[r]) ? broadcast(kVanished) : logit;
            }
            const Floats p = exp2<7>(logit);
            Floats kept = broadcast(1.0F);
            if constexpr (kDrops) kept = rows.dropout[r].factors(words[r], half);
            const int64_t to = r * kKeysAtOnce + at - first;
            store(space.weights + to, kept * p);
            store(space.d_scores + to, p * (kept * d_weights[r] - rows.delta[r]));
          }
        }
      }
    }
    // The weight of a single key is 1, whatever its logit; rounding would not leave 0 of it.
    for (int r = 0; r < kQueriesAtOnce && first == 0; ++r) {
      if (rows.end[r] == 1) space.d_scores[r * kKeysAtOnce] = 0;
    }
  }

  // dV, dK and dQ from keys first to last.
  PYSEQ_INLINE void add_products(const KeyHead& head, int64_t first, int64_t last,
                                 const Space& space) const {
    for (int64_t d = 0; d < size_.D; ++d) {
      Floats query[kQueriesAtOnce], grad[kQueriesAtOnce], d_query[kQueriesAtOnce];
      float* sums = space.d_query + d * kQueriesAtOnce * kLanes;
      for (int r = 0; r < kQueriesAtOnce; ++r) {
        query[r] = broadcast(space.queries[r * size_.D + d]);
        grad[r] = broadcast(space.grads[r * size_.D + d]);
        d_query[r] = load(sums + r * kLanes);
      }
      const float* keys = head.keys + d * size_.pitch;
      float* d_keys = space.d_keys + d * size_.pitch;
      float* d_values = space.d_values + d * size_.pitch;
      for (int64_t j = first; j < last; j += kLanes) {
        const Floats key = load(keys + j);
        Floats d_key = load(d_keys + j);
        Floats d_value = load(d_values + j);
        for (int r = 0; r < kQueriesAtOnce; ++r) {
          const int64_t from = r * kKeysAtOnce + j - first;
          const Floats d_score = load(space.d_scores + from);
          d_value += load(space.weights + from) * grad[r];
          d_key += d_score * query[r];
          d_query[r] += d_score * key;
        }
        store(d_keys + j, d_key);
        store(d_values + j, d_value);
      }
      for (int r = 0; r < kQueriesAtOnce; ++r) store(sums + r * kLanes, d_query[r]);
    }
  }

  void store_d_query(int64_t b, int64_t h, int64_t t, int64_t count, const Rows& rows,
                     const Space& space) const {
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t d = 0; d < size_.D; ++d) {
        const float* sums = space.d_query + (d * kQueriesAtOnce + r) * kLanes;
        space.row[d] = rows.bad[r] ? __builtin_nanf("") : x_.scale * sum(load(sums));
      }
      store_row(space.row, x_.d_query.dtype, x_.d_query.stride[3], size_.D,
                x_.d_query.at(b, h, t + r));
    }
  }

  void store_head(const Tensor& to, int64_t b, int64_t g, const float* columns, float factor,
                  int64_t bad_keys, float* row) const {
    if (to.data == nullptr) return;
    for (int64_t s = 0; s < size_.S; ++s) {
      for (int64_t d = 0; d < size_.D; ++d) {
        row[d] = s < bad_keys ? __builtin_nanf("") : factor * columns[d * size_.pitch + s];
      }
      store_row(row, to.dtype, to.stride[3], size_.D, to.at(b, g, s));
    }
  }

  const SoftmaxAttentionBackward& x_;
  const Sizes<SoftmaxAttentionBackward> size_;
  const int threads_;
  const Buffer memory_;
};

}  // namespace

void softmax_attention_backward(const SoftmaxAttentionBackward& x) { run_for_width<Backward>(x); }

}  // namespace pyseq::PYSEQ_ISA
