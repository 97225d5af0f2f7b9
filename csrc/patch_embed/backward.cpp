// The gradients of patch_embed for one instruction set.
//
// All sums are cut at places that only the sizes decide, and added in their order, whatever the
// number of threads.
#include "cpu/packed_rows.hpp"
#include "patch_embed/patch_embed.hpp"
#include "patch_embed/patches.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

constexpr int kColumns = FloatEngine::kColumns;

constexpr int64_t floats(int64_t n) { return padded_bytes(n * int64_t{sizeof(float)}); }

// Sizes of a call; the patches of all rows are counted through, M of them.
struct Sizes {
  explicit Sizes(const PatchEmbedBackward& x)
      : C(x.weight.shape[0]),
        P(x.weight.shape[1]),
        B(x.grad.shape[0]),
        N(x.grad.shape[1]),
        M(B * N),
        T(x.samples.shape[1]),
        threads(useful_threads(x.threads, double(M) * double(C * P))) {}

  int64_t C, P, B, N, M, T;
  int threads;
};

// The gradients of weight and bias as one product, of (P + 1, M) with (M, C): the patches' samples,
// and ones for the bias, times the rows of the output's gradient. Patches are cut into parts, whose
// sums are added at the end.
struct WeightGradient {
  static constexpr int64_t kBlock = 64;   // patches that are summed in registers
  static constexpr int64_t kGroup = 512;  // features of a task
  static constexpr int64_t kStrip = 128;  // features whose gradients are packed at once
  static constexpr int64_t kMostParts = 64;
  // Patches of a part; P at least, or the sums would be more than what is summed.
  static constexpr int64_t kShortest = 1024;

  // Of the packed gradient; a line more than its rows, so that those of a patch, which are written
  // one after the other, are not all in the same set of the cache.
  static constexpr int64_t kPanel = (kBlock + 1) * kColumns;

  const PatchEmbedBackward& x;
  const Sizes size{x};
  const bool needs_bias = x.d_bias.data != nullptr;
  const int64_t samples = x.d_weight.data == nullptr ? 0 : size.P;
  const int64_t rows = samples + (needs_bias ? 1 : 0);
  const int64_t width = round_up(size.C, kColumns);
  const int64_t groups = (width + kGroup - 1) / kGroup;
  const int64_t part =
      round_up(larger(larger(kShortest, size.P), (size.M + kMostParts - 1) / kMostParts), kBlock);
  const int64_t parts = (size.M + part - 1) / part;
  const int64_t patches_bytes = floats(rows * kBlock);
  const int64_t series_bytes = floats(kBlock * size.P + kLanes);
  const int64_t packed_bytes = floats(kStrip / kColumns * kPanel);
  const int64_t scratch = patches_bytes + series_bytes + packed_bytes + floats(2 * kStrip);
  const Buffer working{size.threads * scratch};
  const Buffer sums{parts * rows * width * int64_t{sizeof(float)}};

  void run() const {
    for_tasks(parts * groups, size.threads,
              [&](int64_t task, int worker) { sum_part(task / groups, task % groups, worker); });
    for_tasks(rows, size.threads, [&](int64_t row, int /*worker*/) { add_parts(row); });
  }

 private:
  float* sum(int64_t number, int64_t row) const {
    return sums.as<float>() + (number * rows + row) * width;
  }

  // Features from c on of the gradients of patches m to m + count - 1.
  struct Strip {
    int64_t m, count, c;
  };

  void sum_part(int64_t number, int64_t group, int worker) const {
    const int64_t first = group * kGroup;
    const int64_t last = smaller(width, first + kGroup);
    const int64_t begin = number * part;
    const int64_t end = smaller(begin + part, size.M);
    auto* a = working.as<float>(worker * scratch);
    auto* series = working.as<float>(worker * scratch + patches_bytes);
    auto* b = working.as<float>(worker * scratch + patches_bytes + series_bytes);
    for (int64_t m = begin; m < end; m += kBlock) {
      const int64_t count = smaller(end - m, kBlock);
      if (samples > 0) put_patches(m, count, series, a);
      for (int64_t k = 0; needs_bias && k < count; ++k) a[samples * kBlock + k] = 1;
      for (int64_t c = first; c < last; c += kStrip) {
        const Strip strip{m, count, c};
        const Strip next = c + kStrip < last ? Strip{m, count, c + kStrip}
                                             : Strip{m + kBlock, end - m - kBlock, first};
        const int64_t columns = smaller(width - c, kStrip);
        pack_grad(strip, next, columns, b);
        multiply(m == begin, {a, kBlock, 0}, {b, kPanel, 0}, sum(number, 0) + c, columns, count);
      }
    }
  }

  void multiply(bool first, Rows<float> a, Panels<float> b, float* to, int64_t columns,
                int64_t count) const {
    if (first) {
      FloatEngine::multiply<false>(a, b, to, width, rows, columns, count);
    } else {
      FloatEngine::multiply<true>(a, b, to, width, rows, columns, count);
    }
  }

  // Sample p of patch k to a[p * kBlock + k].
  void put_patches(int64_t first, int64_t count, float* series, float* a) const {
    for_runs(x, size.N, size.P, first, count, series,
             [&](int64_t i, int64_t run, const float* patches) {
               for (int64_t p = 0; p < size.P; ++p) {
                 float* to = a + p * kBlock + i;
                 for (int64_t k = 0; k < run; ++k) to[k] = patches[k * x.stride + p];
               }
             });
  }

  // A strip's gradients, `columns` of each patch, zeros from C on.
  void pack_grad(const Strip& strip, const Strip& next, int64_t columns, float* b) const {
    float* pair = b + kStrip / kColumns * kPanel;
    const int64_t there = smaller(size.C - strip.c, columns);
    memset(pair, 0, static_cast<size_t>(2 * kStrip) * sizeof(float));
    for (int64_t k = 0; k < strip.count; k += 2) {
      for (int64_t j = 0; j < 2 && k + j < strip.count; ++j) {
        load_row(grad(strip, k + j), x.grad.dtype, x.grad.stride[2], there, pair + j * kStrip);
        if (k + j < next.count) prefetch(grad(next, k + j), columns);
      }
      FloatEngine::pack_two_rows(pair, kStrip, columns, b + k * kColumns, kPanel, 0, nullptr);
    }
  }

  const char* grad(const Strip& strip, int64_t k) const {
    const int64_t patch = strip.m + k;
    return x.grad.at(patch / size.N, patch % size.N, strip.c);
  }

  // Asks for what is packed next, so that it comes while the strip before it is multiplied.
  void prefetch(const char* from, int64_t features) const {
    constexpr int64_t kLine = 64;
    for (int64_t i = 0; i < features * size_of(x.grad.dtype); i += kLine) {
      __builtin_prefetch(from + i, 0, 2);
    }
  }

  void add_parts(int64_t row) const {
    float* const total = sum(0, row);
    for (int64_t number = 1; number < parts; ++number) {
      const float* more = sum(number, row);
      for (int64_t c = 0; c < width; c += kLanes)
        store(total + c, load(total + c) + load(more + c));
    }
    if (row < samples) {
      store_row(total, x.d_weight.dtype, x.d_weight.stride[0], size.C, x.d_weight.at(0, row));
    } else {
      store_row(total, x.d_bias.dtype, x.d_bias.stride[0], size.C, x.d_bias.data);
    }
  }
};

// The gradient of the samples: of each patch the gradient times the weight, (N, C) with (C, P),
// added where patches overlap. A task makes the samples of a tile, and for that also the patches
// that begin before it.
struct SamplesGradient {
  static constexpr int64_t kTile = 256;    // patches that begin in a tile
  static constexpr int64_t kPatches = 48;  // that are multiplied at once, whole rows of registers
  static constexpr int64_t kBlock = 256;   // features that are summed in registers

  const PatchEmbedBackward& x;
  const Sizes size{x};
  const int64_t tile = kTile * x.stride;  // samples
  const int64_t tiles = (size.T + tile - 1) / tile;
  const int64_t end = larger(size.T, (size.N - 1) * x.stride + size.P);  // with copies of the last
  const StackedRows<FloatEngine> weight{size.C, size.P};
  const int64_t grad_bytes = floats(kPatches * kBlock);
  const int64_t patches_bytes = floats(kPatches * weight.width);
  const int64_t tile_bytes = floats(tile + end - size.T + kLanes);
  const int64_t embedding = grad_bytes + patches_bytes + tile_bytes;
  const int64_t scratch = larger(embedding, padded_bytes(weight.scratch_bytes()));
  const Buffer working{size.threads * scratch};
  const Buffer packed{weight.head * int64_t{sizeof(float)}};

  void run() const {
    for_tasks(weight.tasks, size.threads, [&](int64_t task, int worker) {
      const auto load_weight = [&](int64_t c, float* to) {
        load_row(x.weight.at(c), x.weight.dtype, x.weight.stride[1], size.P, to);
      };
      weight.pack(task, packed.as<float>(), working.as<float>(worker * scratch), load_weight);
    });
    for_ranges(size.B * tiles, size.threads, [&](int64_t task, int worker) {
      make_tile(task / tiles, task % tiles * tile, worker);
    });
  }

 private:
  void make_tile(int64_t b, int64_t t, int worker) const {
    float* total = working.as<float>(worker * scratch + grad_bytes + patches_bytes);
    const int64_t stop = t + tile < size.T ? t + tile : end;
    memset(total, 0, static_cast<size_t>(stop - t) * sizeof(float));
    const int64_t last = smaller(size.N, (stop + x.stride - 1) / x.stride);
    for (int64_t n = t < size.P ? 0 : (t - size.P) / x.stride + 1; n < last; n += kPatches) {
      const int64_t count = smaller(last - n, kPatches);
      const float* patch = multiply(b, n, count, worker);
      for (int64_t i = n; i < n + count; ++i, patch += weight.width) {
        const int64_t start = i * x.stride - t;
        const int64_t stop_p = smaller(size.P, stop - t - start);
        for (int64_t p = start < 0 ? -start : 0; p < stop_p; ++p) total[start + p] += patch[p];
      }
    }
    const int64_t there = smaller(stop, size.T) - t;
    for (int64_t i = there; i < stop - t; ++i) total[there - 1] += total[i];
    const Floats spread = broadcast(*reinterpret_cast<const float*>(x.spread.at(b)));
    for (int64_t i = 0; i < there; i += kLanes) store(total + i, load(total + i) / spread);
    store_row(total, x.d_samples.dtype, x.d_samples.stride[1], there, x.d_samples.at(b, t));
  }

  // The gradients of patches n to n + count - 1 of row b, as rows of weight.width.
  const float* multiply(int64_t b, int64_t n, int64_t count, int worker) const {
    auto* loaded = working.as<float>(worker * scratch);
    auto* patches = working.as<float>(worker * scratch + grad_bytes);
    for (int64_t c = 0; c < size.C; c += kBlock) {
      const int64_t depth = smaller(size.C - c, kBlock);
      const Rows<float> grad = rows_of_grad(b, n, count, c, depth, loaded);
      const Panels<float> right = weight.from(packed.as<float>(), c);
      if (c == 0) {
        FloatEngine::multiply<false>(grad, right, patches, weight.width, count, weight.width,
                                     depth);
      } else {
        FloatEngine::multiply<true>(grad, right, patches, weight.width, count, weight.width, depth);
      }
    }
    return patches;
  }

  // In place if they can be read there.
  Rows<float> rows_of_grad(int64_t b, int64_t n, int64_t count, int64_t c, int64_t depth,
                           float* loaded) const {
    if (x.grad.dtype == DType::kFloat32 && x.grad.stride[2] == 1) {
      return {reinterpret_cast<const float*>(x.grad.at(b, n, c)), x.grad.stride[1], 0};
    }
    for (int64_t i = 0; i < count; ++i) {
      load_row(x.grad.at(b, n + i, c), x.grad.dtype, x.grad.stride[2], depth, loaded + i * kBlock);
    }
    return {loaded, kBlock, 0};
  }
};

}  // namespace

void patch_embed_backward(const PatchEmbedBackward& x) {
  if (x.d_samples.data != nullptr) SamplesGradient{x}.run();
  if (x.d_weight.data != nullptr || x.d_bias.data != nullptr) WeightGradient{x}.run();
}

}  // namespace pyseq::PYSEQ_ISA
