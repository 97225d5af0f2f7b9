// exponential_smoothing and its gradient for one instruction set.
//
// A lane is one feature of one head of one sequence, (b * H + h) * D + d. Lanes are independent, so
// a thread takes a tile of them, which fills vectors whatever D is, and walks through time in
// blocks of steps, held as rows of float32. No sum depends on how lanes are cut into tiles.
#include "cpu/packed_rows.hpp"
#include "exponential_smoothing/exponential_smoothing.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

constexpr int64_t kSteps = 16;      // of a block: a cache line where time lies innermost
constexpr int64_t kWidest = 512;    // lanes of a tile
constexpr int64_t kNarrowest = 64;  // a few cache lines

struct Sizes {
  Sizes(const Tensor& values, int most_threads)
      : B(values.shape[0]),
        T(values.shape[1]),
        H(values.shape[2]),
        D(values.shape[3]),
        lanes(B * H * D),
        threads(useful_threads(most_threads, kCost * double(lanes) * double(T))) {
    while (width > kNarrowest && lanes < kTilesOfAThread * width * threads) width /= 2;
    tiles = (lanes + width - 1) / width;
  }

  int64_t B, T, H, D;
  int64_t lanes;
  int threads;
  int64_t width = kWidest;
  int64_t tiles;

 private:
  static constexpr double kCost = 4;  // of a step, in multiply-adds
  static constexpr int64_t kTilesOfAThread = 2;
};

// The lanes of one task; `width` is their number in whole vectors.
struct Tile {
  Tile(const Sizes& size, int64_t task)
      : first(task * size.width),
        count(size.lanes - first < size.width ? size.lanes - first : size.width),
        width(round_up(count, kLanes)) {}

  int64_t first, count, width;
};

// A tensor (B, T, H, D) seen as T rows of lanes.
class Series {
 public:
  Series(const Tensor& tensor, const Sizes& size) : x(tensor), H(size.H), D(size.D) {
    if (D == 1) x.stride[3] = x.stride[2];  // which may be anything
    run = x.stride[2] == D * x.stride[3] ? H * D : D;
    time_is_innermost =
        x.stride[1] != 0 && __builtin_llabs(x.stride[1]) < __builtin_llabs(x.stride[3]);
  }

  // `steps` rows from time t on; what lies behind a tile's last lane is left as it is.
  void load(const Tile& tile, int64_t t, int64_t steps, float* rows) const {
    for_columns(tile, t, [&](int64_t i, char* from) {
      float column[kSteps];
      load_row(from, x.dtype, x.stride[1], steps, column);
      for (int64_t s = 0; s < steps; ++s) rows[s * tile.width + i] = column[s];
    });
    for_rows(tile, t, steps, [&](int64_t s, int64_t i, int64_t n, char* from) {
      load_row(from, x.dtype, x.stride[3], n, rows + s * tile.width + i);
    });
  }

  void store(const Tile& tile, int64_t t, int64_t steps, const float* rows) const {
    for_columns(tile, t, [&](int64_t i, char* to) {
      float column[kSteps];
      for (int64_t s = 0; s < steps; ++s) column[s] = rows[s * tile.width + i];
      store_row(column, x.dtype, x.stride[1], steps, to);
    });
    for_rows(tile, t, steps, [&](int64_t s, int64_t i, int64_t n, char* to) {
      store_row(rows + s * tile.width + i, x.dtype, x.stride[3], n, to);
    });
  }

 private:
  Tensor x;
  int64_t H, D;
  int64_t run;  // lanes that lie the same distance apart
  bool time_is_innermost;

  // Calls body(i, n, place) for runs of a tile's lanes i to i + n - 1, which begin there.
  template <typename Body>
  PYSEQ_INLINE void for_runs(const Tile& tile, int64_t t, const Body& body) const {
    for (int64_t i = 0; i < tile.count;) {
      const int64_t lane = tile.first + i;
      const int64_t left = run - lane % run;
      const int64_t n = left < tile.count - i ? left : tile.count - i;
      body(i, n, x.at(lane / (H * D), t, lane / D % H, lane % D));
      i += n;
    }
  }

  template <typename Body>
  PYSEQ_INLINE void for_rows(const Tile& tile, int64_t t, int64_t steps, const Body& body) const {
    if (time_is_innermost) return;
    for_runs(tile, t, [&](int64_t i, int64_t n, char* place) {
      const int64_t step = x.stride[1] * size_of(x.dtype);
      for (int64_t s = 0; s < steps; ++s) body(s, i, n, place + s * step);
    });
  }

  template <typename Body>
  PYSEQ_INLINE void for_columns(const Tile& tile, int64_t t, const Body& body) const {
    if (!time_is_innermost) return;
    for_runs(tile, t, [&](int64_t i, int64_t n, char* place) {
      const int64_t step = x.stride[3] * size_of(x.dtype);
      for (int64_t j = 0; j < n; ++j) body(i + j, place + j * step);
    });
  }
};

// The share of the newest value, for each lane. 1 - share is exact from 1/2 on; below, where
// rounding it would change a small share, it is never made.
struct Share {
  Share() = default;
  explicit Share(const float* share)
      : small(load(share) < 0.5F), taken(small ? load(share) : load(share) - 1.0F) {}

  // state + share (value - state), from their difference
  PYSEQ_INLINE Floats mix(Floats state, Floats value, Floats difference) const {
    return (small ? state : value) + taken * difference;
  }

  // (1 - share) state
  PYSEQ_INLINE Floats fade(Floats state) const {
    return (Floats)((Ints)state & small) - taken * state;
  }

  Ints small;
  Floats taken;
};

// Calls body.template operator()<n>(i) for vectors i to i + n - 1, in lanes, of a tile: n is
// kAtOnce, as many as keep their states in registers and hide how long each waits for its last.
template <int kAtOnce, typename Body>
PYSEQ_INLINE void for_vectors(int64_t width, const Body& body) {
  int64_t i = 0;
  for (; i + kAtOnce * kLanes <= width; i += kAtOnce * kLanes) {
    body.template operator()<kAtOnce>(i);
  }
  for (; i < width; i += kLanes) body.template operator()<1>(i);
}

// Rows of values, in place, to rows of states.
void smooth(const float* share, float* state, float* rows, int64_t width, int64_t steps) {
  for_vectors<4>(width, [&]<int kVectors>(int64_t i) {
    Share shares[kVectors];
    Floats now[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      shares[v] = Share(share + i + v * kLanes);
      now[v] = load(state + i + v * kLanes);
    }
    for (int64_t s = 0; s < steps; ++s) {
      for (int v = 0; v < kVectors; ++v) {
        float* place = rows + s * width + i + v * kLanes;
        const Floats value = load(place);
        now[v] = shares[v].mix(now[v], value, value - now[v]);
        store(place, now[v]);
      }
    }
    for (int v = 0; v < kVectors; ++v) store(state + i + v * kLanes, now[v]);
  });
}

// Of each lane, while time runs forwards: the state, its slope by the share, and the share's
// gradient, the sum of the slopes times what arrives.
void add_slopes(const float* share, float* state, float* slope, float* sum, const float* values,
                const float* grads, int64_t width, int64_t steps) {
  for_vectors<2>(width, [&]<int kVectors>(int64_t i) {
    Share shares[kVectors];
    Floats now[kVectors], slopes[kVectors], sums[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      shares[v] = Share(share + i + v * kLanes);
      now[v] = load(state + i + v * kLanes);
      slopes[v] = load(slope + i + v * kLanes);
      sums[v] = Floats{};
    }
    for (int64_t s = 0; s < steps; ++s) {
      for (int v = 0; v < kVectors; ++v) {
        const int64_t place = s * width + i + v * kLanes;
        const Floats value = load(values + place);
        const Floats difference = value - now[v];
        slopes[v] = shares[v].fade(slopes[v]) + difference;
        now[v] = shares[v].mix(now[v], value, difference);
        sums[v] += load(grads + place) * slopes[v];
      }
    }
    for (int v = 0; v < kVectors; ++v) {
      store(state + i + v * kLanes, now[v]);
      store(slope + i + v * kLanes, slopes[v]);
      // Only now: what rounding loses in a long sum grows with how often something is added.
      store(sum + i + v * kLanes, load(sum + i + v * kLanes) + sums[v]);
    }
  });
}

// Rows of gradients of the output, in place, to rows of gradients of the values, from the last to
// the first; d_state is what reaches a state through the next one.
void smooth_backwards(const float* share, float* d_state, float* rows, int64_t width,
                      int64_t steps) {
  for_vectors<4>(width, [&]<int kVectors>(int64_t i) {
    Share shares[kVectors];
    Floats later[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      shares[v] = Share(share + i + v * kLanes);
      later[v] = load(d_state + i + v * kLanes);
    }
    for (int64_t s = steps - 1; s >= 0; --s) {
      for (int v = 0; v < kVectors; ++v) {
        float* place = rows + s * width + i + v * kLanes;
        const Floats d_smoothed = load(place) + later[v];
        store(place, load(share + i + v * kLanes) * d_smoothed);
        later[v] = shares[v].fade(d_smoothed);
      }
    }
    for (int v = 0; v < kVectors; ++v) store(d_state + i + v * kLanes, later[v]);
  });
}

// A thread's rows and what it keeps of each lane.
class Scratch {
 public:
  explicit Scratch(const Sizes& size) : size_(size), memory_(size.threads * kBytes) {}

  enum Row { kShare, kState, kSlope, kSum, kKept };

  float* row(int worker, Row row) const { return at(worker) + row * kWidest; }
  float* block(int worker, int number) const {
    return at(worker) + (kKept + number * kSteps) * kWidest;
  }

  // The tile's parameters, and zeros in all other rows and in what lies behind the last lane.
  void begin(const Tile& tile, const Tensor& alpha, const Tensor& initial, int worker) const {
    const int64_t rows = tile.count < tile.width ? kKept + kBlocks * kSteps : int64_t{kKept};
    memset(at(worker), 0, static_cast<size_t>(rows * kWidest) * sizeof(float));
    const auto* shares = static_cast<const float*>(alpha.data);
    const auto* states = static_cast<const float*>(initial.data);
    for (int64_t i = 0; i < tile.count; ++i) {
      const int64_t lane = (tile.first + i) % (size_.H * size_.D);
      row(worker, kShare)[i] = shares[lane / size_.D];
      row(worker, kState)[i] = states[lane];
    }
  }

 private:
  static constexpr int kBlocks = 2;
  static constexpr int64_t kBytes = (kKept + kBlocks * kSteps) * kWidest * int64_t{sizeof(float)};

  float* at(int worker) const { return memory_.as<float>(worker * kBytes); }

  const Sizes& size_;
  Buffer memory_;
};

template <typename Body>
PYSEQ_INLINE void for_blocks(int64_t T, const Body& body) {
  for (int64_t t = 0; t < T; t += kSteps) body(t, T - t < kSteps ? T - t : kSteps);
}

template <typename Body>
PYSEQ_INLINE void for_blocks_backwards(int64_t T, const Body& body) {
  for (int64_t t = (T - 1) / kSteps * kSteps; t >= 0; t -= kSteps) {
    body(t, T - t < kSteps ? T - t : kSteps);
  }
}

struct Backward {
  const ExponentialSmoothingBackward& x;
  const Sizes size{x.values, x.threads};
  const Series grad{x.grad, size};
  const Series values{x.values, size};
  const Series d_values{x.d_values, size};
  const Scratch scratch{size};
  const bool needs_alpha = x.d_alpha.data != nullptr;
  const bool needs_initial = x.d_initial.data != nullptr;
  const bool needs_values = x.d_values.data != nullptr;
  // Of each lane.
  const Buffer d_alpha{needs_alpha ? size.lanes * int64_t{sizeof(float)} : 0};
  const Buffer d_initial{needs_initial ? size.lanes * int64_t{sizeof(float)} : 0};

  void run() const {
    for_ranges(size.tiles, size.threads, [&](int64_t task, int worker) {
      const Tile tile(size, task);
      if (needs_alpha) forwards(tile, worker);
      // Second: the gradients at the end are in the caches then.
      if (needs_values || needs_initial) backwards(tile, worker);
    });
    if (needs_alpha) sum(d_alpha, x.d_alpha, size.D);
    if (needs_initial) sum(d_initial, x.d_initial, 1);
  }

 private:
  void forwards(const Tile& tile, int worker) const {
    scratch.begin(tile, x.alpha, x.initial, worker);
    float* value_rows = scratch.block(worker, 0);
    float* grad_rows = scratch.block(worker, 1);
    float* sums = scratch.row(worker, Scratch::kSum);
    for_blocks(size.T, [&](int64_t t, int64_t steps) {
      values.load(tile, t, steps, value_rows);
      grad.load(tile, t, steps, grad_rows);
      add_slopes(scratch.row(worker, Scratch::kShare), scratch.row(worker, Scratch::kState),
                 scratch.row(worker, Scratch::kSlope), sums, value_rows, grad_rows, tile.width,
                 steps);
    });
    memcpy(d_alpha.as<float>() + tile.first, sums, static_cast<size_t>(tile.count) * sizeof(float));
  }

  void backwards(const Tile& tile, int worker) const {
    scratch.begin(tile, x.alpha, x.initial, worker);
    float* rows = scratch.block(worker, 0);
    float* d_state = scratch.row(worker, Scratch::kSum);
    for_blocks_backwards(size.T, [&](int64_t t, int64_t steps) {
      grad.load(tile, t, steps, rows);
      smooth_backwards(scratch.row(worker, Scratch::kShare), d_state, rows, tile.width, steps);
      if (needs_values) d_values.store(tile, t, steps, rows);
    });
    if (!needs_initial) return;
    memcpy(d_initial.as<float>() + tile.first, d_state,
           static_cast<size_t>(tile.count) * sizeof(float));
  }

  // Sums of lanes over the sequences, and over `features` lanes next to each other.
  void sum(const Buffer& lanes, const Tensor& out, int64_t features) const {
    const int64_t n = size.H * size.D;
    const Buffer totals(n * int64_t{sizeof(double)});
    auto* total = totals.as<double>();
    for (int64_t i = 0; i < n; ++i) total[i] = 0;
    for (int64_t b = 0; b < size.B; ++b) {
      const float* row = lanes.as<float>() + b * n;
      for (int64_t i = 0; i < n; ++i) total[i] += static_cast<double>(row[i]);
    }
    auto* to = static_cast<float*>(out.data);
    for (int64_t i = 0; i < n; i += features) {
      double found = 0;
      for (int64_t j = 0; j < features; ++j) found += total[i + j];
      to[i / features] = static_cast<float>(found);
    }
  }
};

}  // namespace

void exponential_smoothing(const ExponentialSmoothing& x) {
  const Sizes size(x.values, x.threads);
  const Series values(x.values, size);
  const Series out(x.out, size);
  const Scratch scratch(size);
  for_ranges(size.tiles, size.threads, [&](int64_t task, int worker) {
    const Tile tile(size, task);
    scratch.begin(tile, x.alpha, x.initial, worker);
    float* rows = scratch.block(worker, 0);
    for_blocks(size.T, [&](int64_t t, int64_t steps) {
      values.load(tile, t, steps, rows);
      smooth(scratch.row(worker, Scratch::kShare), scratch.row(worker, Scratch::kState), rows,
             tile.width, steps);
      out.store(tile, t, steps, rows);
    });
  });
}

void exponential_smoothing_backward(const ExponentialSmoothingBackward& x) { Backward{x}.run(); }

}  // namespace pyseq::PYSEQ_ISA
