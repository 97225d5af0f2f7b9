// Gradients of an attention, for one instruction set.
//
// With scores S, weights P made of them, dP = dO V^T and dS, which the op makes of all three:
//   dV = P^T dO, dK = dS^T Q and dQ = dS K,
// before the scale, the rotation, the gain and the norm are undone row by row. A task takes tiles
// of queries one after the other, each block by block of keys, and adds to keys and values in
// memory of its own; the tasks' sums are added in their order. So results do not depend on threads,
// and memory stays linear in the length.
#pragma once

#include "cpu/attention_backward.hpp"
#include "cpu/keys_and_values.hpp"
#include "cpu/prepare_row.hpp"

namespace pyseq::PYSEQ_ISA {

// Tasks that a batch is cut into at least, however many threads there are.
inline constexpr int64_t kGradientTasks = 16;
inline constexpr int64_t kGradientQueries = 48;  // of a tile
inline constexpr int64_t kGradientKeys = 64;     // of a block
inline constexpr int64_t kKeyRows = 64;          // that one task finishes
// Elements from row to row of a block: a power of two would crowd a few sets of the cache.
inline constexpr int64_t kGradientPitch = kGradientKeys + 16;

// Weights says how P and dS are made:
//   struct Row: what it keeps of a query;
//   bool begin(row, b, h, t, grad, scratch): false where the query's output is NaN whatever goes
//   in; kMeasures: whether it is shown all blocks once before, by measure and measured;
//   differentiate: of a row's scores and dP to P and dS;
//   excess(row): what all of a row's weights and dS turned out to be too large by;
//   rest_of_scale(row): what is taken off the gradient of the scale.
template <typename Weights>
class AttentionGradient {
 public:
  AttentionGradient(const AttentionBackward& x, const Weights& weights)
      : x_(x),
        weights_(weights),
        threads_(useful_threads(x.threads, 5 * double(B * H) * double(T) * double(S) * double(D))),
        working_(threads_ * scratch()),
        keys_(B * G * columns_.head * kFloat),
        key_rows_(B * G * rows_.head * kFloat),
        values_(B * G * columns_.head * kFloat),
        sums_(B * G * parts_ * part_floats() * kFloat),
        scale_parts_(B * H * tiles_ * kFloat),
        query_gain_parts_(B * H * tiles_ * depth_ * kFloat),
        key_gain_parts_(B * G * key_tasks_ * depth_ * kFloat),
        spoiled_(B * G * S) {}

  void run() {
    memset(spoiled_.as<uint8_t>(), 0, static_cast<size_t>(B * G * S));
    for_tasks(B * G * columns_.tasks, threads_,
              [&](int64_t task, int worker) { pack(task, worker); });
    for_tasks(B * G * parts_, threads_,
              [&](int64_t task, int worker) { sweep(task / parts_, task % parts_, worker); });
    for_tasks(B * G * key_tasks_, threads_, [&](int64_t task, int worker) {
      finish_keys(task / key_tasks_, task % key_tasks_, worker);
    });
    add_up();
  }

 private:
  using Engine = FloatEngine;
  static constexpr int64_t kFloat = sizeof(float);

  // One query of a tile.
  struct Row {
    typename Weights::Row of;
    float factor;  // of its norm
    bool spoiled;  // the gradient of its output is not finite
    bool absent;   // it takes no part
  };

  // A thread's memory; what has `rows` in its name is packed for products along the queries.
  struct Space {
    float* loaded;
    float* units;    // normalised queries
    float* queries;  // units with gain and rotation
    float* query_rows;
    float* grads;
    float* grad_rows;
    float* weights;
    float* scores;
    float* found;  // the gradients of queries
    Row* rows;
  };

  struct Tile {
    int64_t b, h, g, first, count;
    float scale;
    bool spoiled;
    Row* rows;
  };

  void pack(int64_t task, int worker) {
    const int64_t head = task / columns_.tasks;
    const int64_t part = task % columns_.tasks;
    const int64_t b = head / G;
    const int64_t g = head % G;
    float* scratch_rows = space_of(worker).loaded;
    const auto load_key = [&](int64_t s, float* row) {
      load_row(x_.key.at(b, g, s), x_.key.dtype, x_.key.stride[3], D, row);
      prepare_row(row, D, depth_, x_.prepare_key, s);
      hide_if_bad(row, D, depth_);
    };
    columns_.pack(part, keys_.as<float>() + head * columns_.head, scratch_rows, load_key);
    if (x_.wants_query()) {
      rows_.pack(part, key_rows_.as<float>() + head * rows_.head, scratch_rows, load_key);
    }
    columns_.pack(part, values_.as<float>() + head * columns_.head, scratch_rows,
                  [&](int64_t s, float* row) {
                    load_row(x_.value.at(b, g, s), x_.value.dtype, x_.value.stride[3], D, row);
                    hide_if_bad(row, D, depth_);
                  });
  }

  // The tiles of a key head's queries, shared out evenly.
  void sweep(int64_t head, int64_t part, int worker) {
    float* sums = sums_of(head, part);
    memset(sums, 0, static_cast<size_t>(part_floats()) * sizeof(float));
    const int64_t tiles = H / G * tiles_;
    for (int64_t i = tiles * part / parts_; i < tiles * (part + 1) / parts_; ++i) {
      const int64_t h = head % G * (H / G) + i / tiles_;
      const int64_t first = i % tiles_ * kGradientQueries;
      const int64_t count = T - first < kGradientQueries ? T - first : kGradientQueries;
      const float scale = *reinterpret_cast<const float*>(x_.scale.at(h));
      const Space space = space_of(worker);
      Tile tile = {head / G, h, head % G, first, count, scale, false, space.rows};
      load_tile(tile, space);
      attend(tile, sums, space);
      finish_queries(tile, space);
    }
  }

  void load_tile(Tile& tile, const Space& space) {
    for (int64_t i = 0; i < tile.count; ++i) {
      const int64_t t = tile.first + i;
      Row& row = tile.rows[i];
      float* unit = space.units + i * depth_;
      float* query = space.queries + i * depth_;
      float* grad = space.grads + i * depth_;
      memset(unit + D, 0, static_cast<size_t>(depth_ - D) * sizeof(float));
      memset(grad + D, 0, static_cast<size_t>(depth_ - D) * sizeof(float));
      load_row(x_.query.at(tile.b, tile.h, t), x_.query.dtype, x_.query.stride[3], D, unit);
      row.factor = normalise_row(unit, D, depth_, x_.prepare_query);
      memcpy(query, unit, static_cast<size_t>(depth_) * sizeof(float));
      multiply_by_gain(query, D, x_.prepare_query);
      rotate_row<false>(query, D, x_.prepare_query, position_of(t));
      if (hide_if_bad(query, D, depth_))
        memset(unit, 0, static_cast<size_t>(depth_) * sizeof(float));

      load_row(x_.grad.at(tile.b, tile.h, t), x_.grad.dtype, x_.grad.stride[3], D, grad);
      row.spoiled = hide_if_bad(grad, D, depth_) && seen_keys(t).any();
      if (row.spoiled) spoil(tile, t);
      row.absent =
          !seen_keys(t).any() || !weights_.begin(row.of, tile.b, tile.h, t, grad, space.loaded);
      if (row.absent) memset(grad, 0, static_cast<size_t>(depth_) * sizeof(float));
    }
    const Row* const rows = tile.rows;
    const auto copy = [&](const float* from, float factor) {
      return [=, this](int64_t i, float* to) {
        // Not 0 times a factor that may be NaN.
        for (int64_t d = 0; d < D; ++d) to[d] = rows[i].absent ? 0 : factor * from[i * depth_ + d];
      };
    };
    const StackedRows<Engine> packed{tile.count, D};
    if (x_.wants_key()) {
      packed.pack(0, space.query_rows, space.loaded, copy(space.queries, tile.scale));
    }
    if (x_.wants_value()) packed.pack(0, space.grad_rows, space.loaded, copy(space.grads, 1));
    memset(space.found, 0, static_cast<size_t>(tile.count * width_) * sizeof(float));
  }

  // What a row of the output's gradient that is not finite reaches.
  void spoil(Tile& tile, int64_t t) {
    tile.spoiled = true;
    const Seen seen = seen_keys(t);
    uint8_t* keys = spoiled_.as<uint8_t>() + (tile.b * G + tile.g) * S;
    const auto mark = [&](int64_t from, int64_t to) {
      for (int64_t s = from; s < to; ++s) __atomic_store_n(keys + s, uint8_t{1}, __ATOMIC_RELAXED);
    };
    mark(0, seen.prefix);
    mark(seen.begin, seen.end);
  }

  void attend(const Tile& tile, float* sums, const Space& space) {
    if constexpr (Weights::kMeasures) {
      for_blocks(tile, [&](int64_t s, int64_t width) {
        score(tile, s, width, space);
        for_rows(tile, s, width, space,
                 [&]<bool kMasked>(Row& row, const Seen& seen, auto... rows) {
                   weights_.template measure<kMasked>(row.of, seen, s, width, tile.scale, rows...);
                 });
      });
      for (int64_t i = 0; i < tile.count; ++i) weights_.measured(tile.rows[i].of);
    }
    for_blocks(tile, [&](int64_t s, int64_t width) {
      score(tile, s, width, space);
      for_rows(tile, s, width, space, [&]<bool kMasked>(Row& row, const Seen& seen, auto... rows) {
        weights_.template differentiate<kMasked>(row.of, seen, s, width, tile.scale, rows...);
      });
      add(tile, s, width, sums, space);
    });
  }

  // All keys that some query of the tile sees.
  template <typename Body>
  void for_blocks(const Tile& tile, const Body& body) const {
    const Seen lowest = seen_keys(tile.first);
    const int64_t begin = lowest.begin / Engine::kColumns * Engine::kColumns;
    const int64_t last = seen_keys(tile.first + tile.count - 1).end;
    const int64_t end = last > lowest.prefix ? last : lowest.prefix;
    for (int64_t s = 0; s < end;) {
      if (s >= lowest.prefix && s < begin) s = begin;
      const int64_t left = round_up(end - s, Engine::kColumns);
      const int64_t width = left < kGradientKeys ? left : kGradientKeys;
      body(s, width);
      s += width;
    }
  }

  // Calls body(row, seen, weights, scores) for every query that takes part.
  template <typename Body>
  PYSEQ_INLINE void for_rows(const Tile& tile, int64_t s, int64_t width, const Space& space,
                             const Body& body) const {
    for (int64_t i = 0; i < tile.count; ++i) {
      const Seen seen = seen_keys(tile.first + i);
      float* weights = space.weights + i * kGradientPitch;
      float* scores = space.scores + i * kGradientPitch;
      if (tile.rows[i].absent) {
        memset(weights, 0, static_cast<size_t>(width) * sizeof(float));
        memset(scores, 0, static_cast<size_t>(width) * sizeof(float));
      } else if (seen.all_of(s, s + width)) {
        body.template operator()<false>(tile.rows[i], seen, weights, scores);
      } else {
        body.template operator()<true>(tile.rows[i], seen, weights, scores);
      }
    }
  }

  // Scores, into `weights`, and dP, into `scores`.
  void score(const Tile& tile, int64_t s, int64_t width, const Space& space) const {
    const int64_t head = tile.b * G + tile.g;
    const auto columns = [&](const Buffer& packed) {
      return columns_.from(packed.as<float>() + head * columns_.head, s);
    };
    Engine::multiply<false>({space.queries, depth_, 0}, columns(keys_), space.weights,
                            kGradientPitch, tile.count, width, depth_);
    Engine::multiply<false>({space.grads, depth_, 0}, columns(values_), space.scores,
                            kGradientPitch, tile.count, width, depth_);
  }

  // What a block's P, in `weights`, and dS, in `scores`, add to the gradients.
  void add(const Tile& tile, int64_t s, int64_t width, float* sums, const Space& space) const {
    const int64_t head = tile.b * G + tile.g;
    if (x_.wants_query()) {
      Engine::multiply<true>({space.scores, kGradientPitch, 0},
                             rows_.from(key_rows_.as<float>() + head * rows_.head, s), space.found,
                             width_, tile.count, width_, width);
    }
    const StackedRows<Engine> packed{tile.count, D};
    if (x_.wants_key()) {
      Engine::multiply<true>({space.scores, 1, 0, kGradientPitch}, packed.from(space.query_rows, 0),
                             sums + s * width_, width_, width, width_, tile.count);
    }
    if (x_.wants_value()) {
      Engine::multiply<true>({space.weights, 1, 0, kGradientPitch}, packed.from(space.grad_rows, 0),
                             sums + (S_padded_ + s) * width_, width_, width, width_, tile.count);
    }
  }

  void finish_queries(const Tile& tile, const Space& space) {
    const int64_t part = (tile.b * H + tile.h) * tiles_ + tile.first / kGradientQueries;
    float* gains = query_gain_parts_.as<float>() + part * depth_;
    memset(gains, 0, static_cast<size_t>(depth_) * sizeof(float));
    float of_scale = 0;
    for (int64_t i = 0; i < tile.count && x_.wants_query(); ++i) {
      const Row& row = tile.rows[i];
      const float* unit = space.units + i * depth_;
      float* found = space.found + i * width_;
      if (!row.absent) {
        const float share = 1 / weights_.excess(row.of);
        for (int64_t d = 0; d < D; ++d) found[d] *= share;
      }
      rotate_row<true>(found, D, x_.prepare_query, position_of(tile.first + i));
      memcpy(space.loaded, found, static_cast<size_t>(depth_) * sizeof(float));
      multiply_by_gain(space.loaded, D, x_.prepare_query);
      // Around the mean score: what rounding left of delta drops out.
      of_scale += dot(space.loaded, unit, depth_);
      if (!row.absent) of_scale -= weights_.rest_of_scale(row.of);
      for (int64_t d = 0; d < D; ++d) {
        gains[d] += tile.scale * found[d] * unit[d];
        space.loaded[d] *= tile.scale;
      }
      through_norm(space.loaded, unit, row.factor, D, depth_, x_.prepare_query);
      if (row.spoiled) fill(space.loaded, __builtin_nanf(""));
      if (x_.grad_query.data == nullptr) continue;
      store_row(space.loaded, x_.grad_query.dtype, x_.grad_query.stride[3], D,
                x_.grad_query.at(tile.b, tile.h, tile.first + i));
    }
    if (tile.spoiled) {
      of_scale = __builtin_nanf("");
      fill(gains, of_scale);
      __atomic_store_n(&spoiled_somewhere_, true, __ATOMIC_RELAXED);
    }
    scale_parts_.as<float>()[part] = of_scale;
  }

  void fill(float* row, float x) const {
    for (int64_t d = 0; d < D; ++d) row[d] = x;
  }

  // Rows of keys and values, from the parts in their order.
  void finish_keys(int64_t head, int64_t task, int worker) {
    const int64_t b = head / G;
    const int64_t g = head % G;
    float* unit = space_of(worker).units;
    float* found = space_of(worker).found;
    float* gains = key_gain_parts_.as<float>() + (head * key_tasks_ + task) * depth_;
    memset(gains, 0, static_cast<size_t>(depth_) * sizeof(float));
    memset(unit + D, 0, static_cast<size_t>(depth_ - D) * sizeof(float));
    for (int64_t s = task * kKeyRows; s < (task + 1) * kKeyRows && s < S; ++s) {
      const bool spoiled = spoiled_.as<uint8_t>()[head * S + s] != 0;
      if (x_.wants_value()) {
        add_parts(head, S_padded_ + s, found);
        if (spoiled) fill(found, __builtin_nanf(""));
        store_row(found, x_.grad_value.dtype, x_.grad_value.stride[3], D,
                  x_.grad_value.at(b, g, s));
      }
      if (!x_.wants_key()) continue;
      add_parts(head, s, found);
      load_row(x_.key.at(b, g, s), x_.key.dtype, x_.key.stride[3], D, unit);
      const float factor = normalise_row(unit, D, depth_, x_.prepare_key);
      hide_if_bad(unit, D, depth_);
      rotate_row<true>(found, D, x_.prepare_key, s);
      for (int64_t d = 0; d < D; ++d) gains[d] += found[d] * unit[d];
      multiply_by_gain(found, D, x_.prepare_key);
      through_norm(found, unit, factor, D, depth_, x_.prepare_key);
      if (spoiled) fill(found, __builtin_nanf(""));
      if (x_.grad_key.data == nullptr) continue;
      store_row(found, x_.grad_key.dtype, x_.grad_key.stride[3], D, x_.grad_key.at(b, g, s));
    }
  }

  void add_parts(int64_t head, int64_t row, float* found) const {
    memset(found, 0, static_cast<size_t>(width_) * sizeof(float));
    for (int64_t part = 0; part < parts_; ++part) {
      const float* from = sums_of(head, part) + row * width_;
      for (int64_t d = 0; d < width_; d += kLanes) {
        store(found + d, load(found + d) + load(from + d));
      }
    }
  }

  // What all rows share: small, so one thread adds it.
  void add_up() const {
    if (x_.grad_scale.data != nullptr) {
      for (int64_t h = 0; h < H; ++h) {
        double total = 0;
        for (int64_t b = 0; b < B; ++b) {
          const float* parts = scale_parts_.as<float>() + (b * H + h) * tiles_;
          for (int64_t i = 0; i < tiles_; ++i) total += double{parts[i]};
        }
        *reinterpret_cast<float*>(x_.grad_scale.at(h)) = static_cast<float>(total);
      }
    }
    add_gains(query_gain_parts_.as<float>(), B * H * tiles_, x_.grad_query_gain);
    add_gains(key_gain_parts_.as<float>(), B * G * key_tasks_, x_.grad_key_gain);
  }

  void add_gains(const float* parts, int64_t count, const Tensor& to) const {
    if (to.data == nullptr) return;
    for (int64_t d = 0; d < D; ++d) {
      double total = spoiled_somewhere_ ? double{__builtin_nanf("")} : 0;
      for (int64_t i = 0; i < count; ++i) total += double{parts[i * depth_ + d]};
      *reinterpret_cast<float*>(to.at(d)) = static_cast<float>(total);
    }
  }

  Seen seen_keys(int64_t t) const { return seen_by(t, T, S, x_.causal, x_.window, x_.prefix); }

  // A query before the first position sees at most the prefix, and has no angle.
  int64_t position_of(int64_t t) const { return t + S - T < 0 ? 0 : t + S - T; }

  int64_t part_floats() const { return (x_.wants_value() ? 2 : 1) * S_padded_ * width_; }
  float* sums_of(int64_t head, int64_t part) const {
    return sums_.as<float>((head * parts_ + part) * part_floats() * kFloat);
  }

  int64_t loaded_bytes() const {
    const int64_t most = columns_.scratch_bytes() > rows_.scratch_bytes() ? columns_.scratch_bytes()
                                                                          : rows_.scratch_bytes();
    return padded_bytes(most);
  }
  int64_t tile_bytes() const { return kGradientQueries * depth_ * kFloat; }
  int64_t packed_bytes() const {
    return round_up(kGradientQueries, Engine::kColumns) * width_ * kFloat;
  }
  static constexpr int64_t kBlockBytes = kGradientQueries * kGradientPitch * kFloat;
  int64_t scratch() const {
    return loaded_bytes() + 4 * padded_bytes(tile_bytes()) + 2 * padded_bytes(packed_bytes()) +
           2 * kBlockBytes + padded_bytes(kGradientQueries * int64_t{sizeof(Row)});
  }

  Space space_of(int worker) const {
    int64_t at = worker * scratch();
    const auto take = [&](int64_t bytes) {
      auto* part = working_.as<float>(at);
      at += padded_bytes(bytes);
      return part;
    };
    Space space;
    space.loaded = take(loaded_bytes());
    space.units = take(tile_bytes());
    space.queries = take(tile_bytes());
    space.grads = take(tile_bytes());
    space.found = take(tile_bytes());
    space.query_rows = take(packed_bytes());
    space.grad_rows = take(packed_bytes());
    space.weights = take(kBlockBytes);
    space.scores = take(kBlockBytes);
    space.rows = reinterpret_cast<Row*>(take(0));
    return space;
  }

  const AttentionBackward& x_;
  const Weights& weights_;
  const int64_t B = x_.query.shape[0];
  const int64_t H = x_.query.shape[1];
  const int64_t T = x_.query.shape[2];
  const int64_t D = x_.query.shape[3];
  const int64_t G = x_.key.shape[1];
  const int64_t S = x_.key.shape[2];
  const Columns<Engine> columns_{S, D};
  const StackedRows<Engine> rows_{S, D};
  const int64_t depth_ = columns_.depth;
  const int64_t width_ = rows_.width;  // the same
  const int64_t S_padded_ = rows_.rows;
  const int64_t tiles_ = (T + kGradientQueries - 1) / kGradientQueries;  // of a head
  const int64_t wanted_ = larger((kGradientTasks + B * G - 1) / larger(B * G, 1), 1);
  const int64_t parts_ = smaller(wanted_, larger(H / G * tiles_, 1));
  const int64_t key_tasks_ = larger((S + kKeyRows - 1) / kKeyRows, 1);
  const int threads_;
  const Buffer working_;
  const Buffer keys_;         // as columns
  const Buffer key_rows_;     // as rows
  const Buffer values_;       // as columns
  const Buffer sums_;         // (B, G, parts, 1 or 2, S_padded, width): of keys, then of values
  const Buffer scale_parts_;  // (B, H, tiles)
  const Buffer query_gain_parts_;  // (B, H, tiles, depth)
  const Buffer key_gain_parts_;    // (B, G, key tasks, depth)
  const Buffer spoiled_;           // (B, G, S): keys that a gradient which is not finite reaches
  bool spoiled_somewhere_ = false;
};

}  // namespace pyseq::PYSEQ_ISA
