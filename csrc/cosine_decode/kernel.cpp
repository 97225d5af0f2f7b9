// cosine_decode for one instruction set.
#include "cosine_decode/block.hpp"
#include "cosine_decode/cosine_decode.hpp"
#include "cpu/packed_rows.hpp"
#include "cpu/prepare_row.hpp"
#include "cpu/seen_keys.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

// Keys are shared out in about so many parts, however many threads there are: a result does not
// depend on them, and what the parts leave behind does not grow with S.
constexpr int64_t kParts = 128;
constexpr float kSmallestNormal = 0x1p-126F;

// The keys of an entry that any of its queries sees, counted without those between the prefix and
// the first window.
struct Span {
  int64_t length;
  int64_t split;  // keys before the gap
  int64_t gap;

  int64_t count() const { return length - gap; }
  int64_t key(int64_t i) const { return i < split ? i : i + gap; }
  // How many of the next keys lie side by side.
  int64_t together(int64_t i) const { return i < split && gap > 0 ? split - i : count() - i; }
};

// A tile's softmax, as far as it is, and the row of queries it begins with. Each row has
// kLanes / rows lanes, which hold parts of its sum and all hold its top, in units of ln 2.
struct Tile {
  float sums[kLanes];
  float tops[kLanes];
};

template <typename Rows>
class Decode {
 public:
  // Unless `in_place`, blocks are copied to float32 before they are used.
  Decode(const CosineDecode& x, bool in_place)
      : x_(x),
        in_place_(in_place),
        threads_(useful_threads(x.threads, 2 * double(B * H) * double(T) * double(S) * double(D))),
        queries_(B * G * R * depth_ * int64_t{sizeof(float)}),
        bad_(B * G * R),
        parts_(B * G * shares_ * part_bytes()),
        working_(threads_ * scratch()) {}

  void run() {
    for_tasks(B * G, threads_, [&](int64_t head, int worker) { prepare(head, worker); });
    for_tasks(B * G * shares_, threads_,
              [&](int64_t task, int worker) { attend(task / shares_, task % shares_, worker); });
    for_tasks(B * G * R, threads_,
              [&](int64_t row, int worker) { finish(row / R, row % R, worker); });
  }

 private:
  using Element = typename Rows::Element;
  static constexpr int64_t kPitch = kBlock * int64_t{sizeof(float)};

  // What a share of an entry's keys leaves behind, for every row of queries.
  struct Part {
    float* out;  // (R, depth_), not divided by the sum
    float* sums;
    float* tops;
  };

  // A thread's memory.
  struct Space {
    Tile* tiles;
    float* weights;  // of a tile and a block
    float* keys;     // a block in float32
    float* values;
  };

  // Rows of a key head: its query heads, for one query after the other.
  int64_t query_of(int64_t row) const { return row / (H / G); }
  int64_t head_of(int64_t head, int64_t row) const { return head % G * (H / G) + row % (H / G); }

  int64_t length_of(int64_t b) const {
    if (x_.lengths.data == nullptr) return S;
    const int64_t found = x_.lengths.dtype == DType::kInt32
                              ? *reinterpret_cast<const int32_t*>(x_.lengths.at(b))
                              : *reinterpret_cast<const int64_t*>(x_.lengths.at(b));
    return found < 0 ? 0 : found < S ? found : S;  // a broken promise must not end in a crash
  }

  Seen seen_keys(int64_t length, int64_t t) const {
    return seen_by(t, T, length, true, x_.window, x_.prefix);
  }

  Span span_of(int64_t length) const {
    const Seen first = seen_keys(length, 0);
    const int64_t split = first.prefix < first.begin ? first.prefix : first.begin;
    return {length, split, first.begin - split};
  }

  void prepare(int64_t head, int worker) {
    const int64_t b = head / G;
    const int64_t length = length_of(b);
    float* row = space_of(worker).keys;
    for (int64_t r = 0; r < R; ++r) {
      const int64_t h = head_of(head, r);
      const int64_t t = query_of(r);
      const float scale = *reinterpret_cast<const float*>(x_.scale.at(h));
      // A query below position 0 takes the first angles; of an empty cache there may be none.
      const int64_t position = length - T + t < 0 ? 0 : length - T + t;
      load_padded(x_.query, b, h, t, row);
      if (length > 0) prepare_row(row, D, depth_, x_.prepare_query, position);
      for (int64_t d = 0; d < D; ++d) row[d] *= scale;
      uint8_t& bad = bad_.template as<uint8_t>()[head * R + r];
      bad = all_finite(row, D) ? 0 : 1;
      if (bad != 0) memset(row, 0, static_cast<size_t>(D) * sizeof(float));
      into_order<Rows>(row, depth_, query(head, r));
    }
  }

  void attend(int64_t head, int64_t share, int worker) {
    const Space space = space_of(worker);
    const Part part = part_of(head, share);
    memset(part.out, 0, static_cast<size_t>(R * depth_) * sizeof(float));
    const float top = x_.bounded ? x_.offset * kLog2E : -kInfinity;
    for_tiles(
        [&]<int kRows>(int64_t, Tile& tile) {
          store(tile.sums, Floats{});
          store(tile.tops, broadcast(top));
        },
        space);

    const Span span = span_of(length_of(head / G));
    const int64_t blocks = (span.count() + kBlock - 1) / kBlock;
    int64_t i = blocks * share / shares_ * kBlock;
    int64_t end = blocks * (share + 1) / shares_ * kBlock;
    if (end > span.count()) end = span.count();
    while (i < end) {
      int64_t width = end - i < kBlock ? end - i : kBlock;
      if (span.together(i) < width) width = span.together(i);
      attend_block(head, span.length, span.key(i), width, part, space);
      i += width;
    }

    for_tiles(
        [&]<int kRows>(int64_t first, const Tile& tile) {
          constexpr int kKeys = kLanes / kRows;
          for (int r = 0; r < kRows; ++r) {
            float total = 0;
            for (int j = 0; j < kKeys; ++j) total += tile.sums[r * kKeys + j];
            part.sums[first + r] = total;
            part.tops[first + r] = tile.tops[r * kKeys];
          }
        },
        space);
  }

  void attend_block(int64_t head, int64_t length, int64_t first, int64_t width, const Part& part,
                    const Space& space) {
    const Seen low = seen_keys(length, 0);
    const Seen high = seen_keys(length, T - 1);
    const bool whole_vectors = width % kLanes == 0;
    const bool whole =
        whole_vectors && Seen{low.prefix, high.begin, low.end}.all_of(first, first + width);
    // Vectors of scores must not reach past the block. Many tiles would widen a row many times.
    const bool narrow = sizeof(Element) < sizeof(float) && R > 2 * kTallest;
    if (in_place_ && !narrow && whole_vectors) {
      const auto* keys = reinterpret_cast<const Element*>(x_.key.at(head / G, head % G, first));
      const auto* values = reinterpret_cast<const Element*>(x_.value.at(head / G, head % G, first));
      attend_rows<Rows>(head, length, first, width, whole, keys, x_.key.stride[2], values,
                        x_.value.stride[2], part, space);
    } else {
      copy_block(x_.key, head, first, width, space.keys);
      copy_block(x_.value, head, first, width, space.values);
      attend_rows<FloatRows>(head, length, first, width, whole, space.keys, depth_, space.values,
                             depth_, part, space);
    }
  }

  template <typename From>
  void attend_rows(int64_t head, int64_t length, int64_t first, int64_t width, bool whole,
                   const typename From::Element* keys, int64_t key_stride,
                   const typename From::Element* values, int64_t value_stride, const Part& part,
                   const Space& space) {
    for_tiles(
        [&]<int kRows>(int64_t row, Tile& tile) {
          constexpr int kKeys = kLanes / kRows;
          float* out = part.out + row * depth_;
          Floats top = broadcast(-kInfinity);
          for (int64_t k = 0; k < width; k += kKeys) {
            if (row == 0) {
              fetch(keys + (k + kBlock) * key_stride, key_stride, kKeys);
              fetch(values + (k + kBlock) * value_stride, value_stride, kKeys);
            }
            Floats found = score<From, kRows>(query(head, row), depth_, keys + k * key_stride,
                                              key_stride, depth_);
            store(space.weights + k * kRows, found);
            if (!whole)
              found = hide<kRows>(found, broadcast(-kInfinity), length, row, first, k, width);
            top = maximum(found, top);  // of NaN and top it is top
          }
          if (!x_.bounded) raise<kRows>(tile, top * kLog2E, out);

          Floats tops = load(tile.tops);
          tops = tops == -kInfinity ? Floats{} : tops;  // of rows that see nothing yet
          Floats sums = {};
          for (int64_t k = 0; k < width; k += kKeys) {
            const Floats found = load(space.weights + k * kRows);
            const Floats power = maximum(broadcast(kVanished), found * kLog2E - tops);
            Floats weight = exp2<7>(power) + found * 0.0F;  // NaN where the score is not finite
            if (!whole) weight = hide<kRows>(weight, Floats{}, length, row, first, k, width);
            store(space.weights + k * kRows, weight);
            sums += weight;
          }
          store(tile.sums, load(tile.sums) + sums);

          if (whole) {
            add_values<From, kRows, kKeys>(space.weights, values, value_stride, 0, width, out,
                                           depth_, depth_);
            return;
          }
          for (int r = 0; r < kRows; ++r) {
            // Not with a weight of 0 for what is hidden: 0 * NaN is NaN.
            const Seen seen = seen_keys(length, query_of(row + r));
            seen.within(first, first + width, [&](int64_t begin, int64_t end) {
              add_values<From, 1, kKeys>(space.weights + r * kKeys, values, value_stride,
                                         begin - first, end - first, out + r * depth_, depth_,
                                         depth_);
            });
          }
        },
        space);
  }

  // Rows of the next block, if it lies behind this one: CPUs' own prefetchers stop where pages end.
  template <typename Element>
  PYSEQ_INLINE void fetch(const Element* from, int64_t stride, int64_t rows) const {
    constexpr int64_t kLine = 64 / int64_t{sizeof(Element)};
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t d = 0; d < depth_; d += kLine) __builtin_prefetch(from + i * stride + d, 0, 2);
    }
  }

  // Scores of keys k and on of a block, with `instead` for those that are not seen or not there.
  template <int kRows>
  Floats hide(Floats x, Floats instead, int64_t length, int64_t row, int64_t first, int64_t k,
              int64_t width) const {
    constexpr int kKeys = kLanes / kRows;
    float lanes_of[kLanes];
    store(lanes_of, x);
    for (int lane = 0; lane < kLanes; ++lane) {
      const Seen seen = seen_keys(length, query_of(row + lane / kKeys));
      const int64_t key = k + lane % kKeys;
      if (key >= width || !seen.sees(first + key)) lanes_of[lane] = instead[lane];
    }
    return load(lanes_of);
  }

  // Where a block's highest scores are above the running maximum, that follows.
  template <int kRows>
  PYSEQ_INLINE void raise(Tile& tile, Floats highest, float* out) const {
    constexpr int kKeys = kLanes / kRows;
    float found[kLanes];
    store(found, highest);
    for (int r = 0; r < kRows; ++r) {
      float top = found[r * kKeys];
      for (int j = 1; j < kKeys; ++j) top = found[r * kKeys + j] > top ? found[r * kKeys + j] : top;
      if (!(top > tile.tops[r * kKeys])) continue;
      const float shrink = exp2f(tile.tops[r * kKeys] - top);
      for (int j = 0; j < kKeys; ++j) {
        tile.sums[r * kKeys + j] *= shrink;
        tile.tops[r * kKeys + j] = top;
      }
      float* row = out + r * depth_;
      for (int64_t d = 0; d < depth_; d += kLanes) store(row + d, load(row + d) * shrink);
    }
  }

  // One row of the output, from its parts in their order.
  void finish(int64_t head, int64_t r, int worker) {
    const int64_t b = head / G;
    const int64_t length = length_of(b);
    const Seen seen = seen_keys(length, query_of(r));
    float* out = space_of(worker).keys;
    float* ordered = out + depth_;
    memset(out, 0, static_cast<size_t>(depth_) * sizeof(float));
    memset(ordered, 0, static_cast<size_t>(depth_) * sizeof(float));
    if (seen.any() && bad_.template as<uint8_t>()[head * R + r] != 0) {
      for (int64_t d = 0; d < D; ++d) ordered[d] = __builtin_nanf("");
    } else if (seen.any()) {
      const float total = add_parts(head, r, out);
      for (int64_t d = 0; d < depth_; ++d) out[d] /= total;
      out_of_order<Rows>(out, depth_, ordered);
      if (!(total >= kSmallestNormal && all_finite(&total, 1) && all_finite(out, depth_))) {
        attend_carefully(head, r, seen, space_of(worker).values, ordered);
      }
    }
    store_row(ordered, x_.out.dtype, x_.out.stride[3], D,
              x_.out.at(b, head_of(head, r), query_of(r)));
  }

  float add_parts(int64_t head, int64_t r, float* out) const {
    float top = -kInfinity;
    for (int64_t share = 0; share < shares_; ++share) {
      const Part part = part_of(head, share);
      if (part.tops[r] > top) top = part.tops[r];
    }
    float total = 0;
    for (int64_t share = 0; share < shares_; ++share) {
      const Part part = part_of(head, share);
      const float factor = part.tops[r] == top ? 1 : exp2f(part.tops[r] - top);
      // Nothing a part holds may get lost: a factor of 0 keeps NaN.
      total += part.sums[r] * factor;
      const float* from = part.out + r * depth_;
      for (int64_t d = 0; d < depth_; d += kLanes) {
        store(out + d, load(out + d) + load(from + d) * factor);
      }
    }
    return total;
  }

  // A row for which float32 did not do, or that sees a NaN or an infinity, of which it becomes NaN.
  void attend_carefully(int64_t head, int64_t r, const Seen& seen, float* row, float* out) const {
    const int64_t b = head / G;
    const int64_t g = head % G;
    float* ordered_query = row + depth_;
    out_of_order<Rows>(query(head, r), depth_, ordered_query);
    bool bad = false;
    float top = -kInfinity;
    // Scores that overflow may meet as inf - inf, which counts as inf.
    const auto score_of = [&](int64_t key) {
      load_padded(x_.key, b, g, key, row);
      bad = bad || !all_finite(row, D);
      float total = 0;
      for (int64_t d = 0; d < D; ++d) total += ordered_query[d] * row[d];
      return total == total ? total : kInfinity;
    };
    const auto for_seen = [&](const auto& body) {
      seen.within(0, seen.end > seen.prefix ? seen.end : seen.prefix,
                  [&](int64_t begin, int64_t end) {
                    for (int64_t key = begin; key < end && !bad; ++key) body(key);
                  });
    };
    for_seen([&](int64_t key) {
      const float found = score_of(key);
      top = found > top ? found : top;
      load_padded(x_.value, b, g, key, row);
      bad = bad || !all_finite(row, D);
    });
    bad = bad || !all_finite(&top, 1);
    float total = 0;
    for_seen([&](int64_t key) { total += expf(score_of(key) - top); });
    memset(out, 0, static_cast<size_t>(depth_) * sizeof(float));
    for_seen([&](int64_t key) {
      const float weight = expf(score_of(key) - top) / total;
      load_padded(x_.value, b, g, key, row);
      for (int64_t d = 0; d < D; ++d) out[d] += weight * row[d];
    });
    if (!bad) return;
    for (int64_t d = 0; d < D; ++d) out[d] = __builtin_nanf("");
  }

  void load_padded(const Tensor& x, int64_t b, int64_t head, int64_t s, float* row) const {
    load_row(x.at(b, head, s), x.dtype, x.stride[3], D, row);
    for (int64_t d = D; d < depth_; ++d) row[d] = 0;
  }

  // Rows of a cache in float32, and zeros up to a whole vector of scores.
  void copy_block(const Tensor& x, int64_t head, int64_t first, int64_t width, float* to) const {
    for (int64_t k = 0; k < width; ++k, to += depth_) {
      const char* from = x.at(head / G, head % G, first + k);
      if (in_place_) {
        constexpr int64_t kChunk = Rows::kStep * kLanes;
        for (int64_t d = 0; d < depth_; d += kChunk) {
          Floats found[Rows::kStep];
          Rows::read(reinterpret_cast<const Element*>(from) + d, found);
          for (int i = 0; i < Rows::kStep; ++i) store(to + d + i * kLanes, found[i]);
        }
      } else {
        load_padded(x, head / G, head % G, first + k, to);
      }
    }
    const int64_t padding = round_up(width, kLanes) - width;
    memset(to, 0, static_cast<size_t>(padding * depth_) * sizeof(float));
  }

  // Calls body.operator()<rows>(first row, tile) for every tile.
  template <typename Body>
  PYSEQ_INLINE void for_tiles(const Body& body, const Space& space) const {
    Tile* tile = space.tiles;
    int64_t row = 0;
    for (; row + 4 <= R; row += 4) body.template operator()<4>(row, *tile++);
    if (R - row >= 2) {
      body.template operator()<2>(row, *tile++);
      row += 2;
    }
    if (row < R) body.template operator()<1>(row, *tile);
  }

  float* query(int64_t head, int64_t row) const {
    return queries_.template as<float>() + (head * R + row) * depth_;
  }

  int64_t part_bytes() const { return padded_bytes(R * (depth_ + 2) * int64_t{sizeof(float)}); }

  Part part_of(int64_t head, int64_t share) const {
    auto* out = parts_.template as<float>((head * shares_ + share) * part_bytes());
    return {out, out + R * depth_, out + R * (depth_ + 1)};
  }

  int64_t tile_bytes() const { return padded_bytes((R / 4 + 2) * int64_t{sizeof(Tile)}); }
  int64_t block_bytes() const { return kBlock * depth_ * int64_t{sizeof(float)}; }
  int64_t scratch() const { return tile_bytes() + kTallest * kPitch + 2 * block_bytes(); }

  Space space_of(int worker) const {
    int64_t at = worker * scratch();
    Space space;
    space.tiles = working_.template as<Tile>(at);
    space.weights = working_.template as<float>(at += tile_bytes());
    space.keys = working_.template as<float>(at += kTallest * kPitch);
    space.values = working_.template as<float>(at + block_bytes());
    return space;
  }

  static int64_t at_least_one(int64_t n) { return n > 0 ? n : 1; }

  const CosineDecode& x_;
  const int64_t B = x_.query.shape[0];
  const int64_t H = x_.query.shape[1];
  const int64_t T = x_.query.shape[2];
  const int64_t D = x_.query.shape[3];
  const int64_t G = x_.key.shape[1];
  const int64_t S = x_.key.shape[2];
  const int64_t R = H / G * T;  // rows of queries that share a key head
  const int64_t depth_ = round_up(D, Rows::kStep* kLanes);
  const int64_t fitting_ = at_least_one(kParts / (B * G));
  const int64_t useful_ = at_least_one(S / (4 * kBlock));
  const int64_t shares_ = fitting_ < useful_ ? fitting_ : useful_;  // of a key head's keys
  const bool in_place_;
  const int threads_;
  const Buffer queries_;
  const Buffer bad_;  // whether a row of queries is not finite: a byte each
  const Buffer parts_;
  const Buffer working_;
};

template <typename Rows>
void decode(const CosineDecode& x) {
  const bool whole_vectors = x.query.shape[3] % (Rows::kStep * kLanes) == 0;
  const bool in_place = whole_vectors && x.key.stride[3] == 1 && x.value.stride[3] == 1 &&
                        size_of(x.key.dtype) == int64_t{sizeof(typename Rows::Element)};
  if (in_place) return Decode<Rows>(x, true).run();
  Decode<FloatRows>(x, false).run();
}

}  // namespace

void cosine_decode(const CosineDecode& x) {
  if (x.query.shape[0] * x.query.shape[1] * x.query.shape[2] * x.query.shape[3] == 0) return;
  if (x.key.dtype == DType::kBFloat16) return decode<BfloatRows>(x);
#if defined(__AVX2__)
  if (x.key.dtype == DType::kFloat16) return decode<HalfRows>(x);
#endif
  decode<FloatRows>(x);
}

}  // namespace pyseq::PYSEQ_ISA
