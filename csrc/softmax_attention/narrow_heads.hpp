// What the forward and the backward of softmax_attention share: keys and values with time
// innermost, so that vectors are filled whatever D is, and which of them a query sees. A Call is
// either struct of arguments.
#pragma once

#include "cpu/dropout.hpp"
#include "cpu/keys_and_values.hpp"

namespace pyseq::PYSEQ_ISA {

// Queries at once: each key and value that is loaded serves them all.
inline constexpr int kQueriesAtOnce = 4;

template <typename Call>
struct Sizes {
  explicit Sizes(const Call& x)
      : B(x.query.shape[0]),
        H(x.query.shape[1]),
        T(x.query.shape[2]),
        D(x.query.shape[3]),
        G(x.key.shape[1]),
        S(x.key.shape[2]),
        // Not a power of two, which would crowd a few sets of the cache.
        pitch(round_up(S, kDropoutBlock) + 16),
        call(x) {}

  // Keys that query t of entry b sees: the first so many.
  int64_t seen(int64_t b, int64_t t) const {
    int64_t end = seen_by(t, T, S, call.causal).end;
    if (call.lengths.data == nullptr) return end;
    int64_t length;
    memcpy(&length, call.lengths.at(b), sizeof length);
    if (length < 0) length = 0;
    return end < length ? end : length;
  }

  int64_t B, H, T, D, G, S;
  int64_t pitch;  // from feature to feature of keys and values

 private:
  const Call& call;
};

// Keys and values of one head, in a thread's memory.
template <typename Call>
class Head {
 public:
  static int64_t bytes(const Sizes<Call>& size) {
    return padded_bytes((2 * size.D * size.pitch + size.D + size.S + 1) * int64_t{sizeof(float)});
  }

  Head(const Call& x, const Sizes<Call>& size, char* memory)
      : keys(reinterpret_cast<float*>(memory)),
        values(keys + size.D * size.pitch),
        x_(x),
        size_(size),
        row_(values + size.D * size.pitch),
        marks_(reinterpret_cast<int32_t*>(row_ + size.D)) {}

  // The first `count` keys of head g of entry b; what lies behind them is 0.
  void load(int64_t b, int64_t g, int64_t count) {
    const int64_t end = round_up(count, kDropoutBlock);
    bad_ = false;
    marks_[0] = 0;
    for (int64_t s = 0; s < end; ++s) {
      const bool key = put(s < count, x_.key, b, g, s, keys + s);
      const bool value = put(s < count, x_.value, b, g, s, values + s);
      if (s >= count) continue;
      marks_[s + 1] = marks_[s] + (key || value ? 1 : 0);
      bad_ = bad_ || key || value;
    }
  }

  // Whether one of the first `count` keys and values is not finite.
  bool spoil(int64_t count) const { return bad_ && marks_[count] > 0; }

  float* const keys;    // (D, pitch)
  float* const values;  // (D, pitch)

 private:
  bool put(bool there, const Tensor& from, int64_t b, int64_t g, int64_t s, float* to) {
    bool bad = false;
    if (there) {
      load_row(from.at(b, g, s), from.dtype, from.stride[3], size_.D, row_);
      bad = hide_if_bad(row_, size_.D, size_.D);
    }
    for (int64_t d = 0; d < size_.D; ++d) to[d * size_.pitch] = there ? row_[d] : 0;
    return bad;
  }

  const Call& x_;
  const Sizes<Call>& size_;
  float* const row_;      // (D,)
  int32_t* const marks_;  // (S + 1,): bad keys and values before s
  bool bad_ = false;
};

// kLanes products of each query with what `columns` holds, feature by feature: a key's logits.
template <int kD, typename Factors>
PYSEQ_INLINE void dot(const Factors& queries, const float* columns, int64_t pitch, int64_t D,
                      Floats (&found)[kQueriesAtOnce]) {
  for (int r = 0; r < kQueriesAtOnce; ++r) found[r] = Floats{};
  const int64_t depth = kD > 0 ? kD : D;
  for (int64_t d = 0; d < depth; ++d) {
    const Floats column = load(columns + d * pitch);
    for (int r = 0; r < kQueriesAtOnce; ++r) found[r] += queries(r, d) * column;
  }
}

// Rows of D numbers of the queries at once, by (query, feature): in registers where they fit.
template <int kD>
struct Broadcast {
  Broadcast(const float* rows, int64_t /*D*/) {
    for (int r = 0; r < kQueriesAtOnce; ++r) {
      for (int d = 0; d < kD; ++d) x[r][d] = broadcast(rows[r * kD + d]);
    }
  }
  PYSEQ_INLINE Floats operator()(int r, int64_t d) const { return x[r][d]; }
  Floats x[kQueriesAtOnce][kD];
};

template <>
struct Broadcast<0> {
  Broadcast(const float* of_rows, int64_t D_) : rows(of_rows), D(D_) {}
  PYSEQ_INLINE Floats operator()(int r, int64_t d) const { return broadcast(rows[r * D + d]); }
  const float* rows;
  int64_t D;
};

// Calls Op<kD>(x).run() with the head's width, or with 0 where it is not one of those that are
// known when this is compiled.
template <template <int> typename Op, typename Call>
void run_for_width(const Call& x) {
  const int64_t D = x.query.shape[3];
  if (D == 2) return Op<2>(x).run();
  if (D == 4) return Op<4>(x).run();
  Op<0>(x).run();
}

}  // namespace pyseq::PYSEQ_ISA
