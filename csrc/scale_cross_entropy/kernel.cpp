// scale_cross_entropy for one instruction set.
#include "scale_cross_entropy/logits.hpp"

namespace pyseq::PYSEQ_ISA {

namespace {

constexpr int64_t kUnit = 4 * kSymbols;  // symbols whose masses one task sums up

// What exponentials of logits sum to: e^best times `total`.
struct Mass {
  float best = -kInfinity;
  float total = 0;

  // Adds the symbols of a bin in a row of logits. A NaN is in no maximum, but in the total.
  template <bool kMasked>
  PYSEQ_INLINE void add(const float* logits, Bin bin) {
    const int64_t start = bin.first / kLanes * kLanes;
    const auto logits_at = [&](int64_t v) {
      const Floats found = load(logits + v);
      return kMasked && (v < bin.first || v + kLanes > bin.stop)
                 ? bin.holds(v) ? found : broadcast(-kInfinity)
                 : found;
    };
    Floats top = broadcast(best);
    for (int64_t v = start; v < bin.stop; v += kLanes) top = maximum(logits_at(v), top);
    const float highest = largest(top);
    const float shift = highest == -kInfinity ? 0 : highest;  // nothing finite yet
    Floats sums = {};
    for (int64_t v = start; v < bin.stop; v += kLanes) sums += exponential(logits_at(v) - shift);
    total = total * expf(best - shift) + sum(sums);
    best = highest;
  }
};

// Differences of maxima and of sums, because a logarithm would drown in a large maximum, and the
// little that is left of a mass outside the bin in a logarithm of about 1.
float loss_of(Mass all, Mass bin) {
  const float rest = (all.total - bin.total) / bin.total;
  if (all.best == bin.best && rest < 0.5F) return log1pf(rest > 0 ? rest : 0);
  return (all.best - bin.best) + (logf(all.total) - logf(bin.total));
}

template <typename Engine>
class Forward {
 public:
  explicit Forward(const ScaleCrossEntropy& x) : x_(x) {}

  void run() {
    logits_.load_bias();
    for (int64_t token = 0; token < logits_.N; token += logits_.chunk) {
      const int64_t blocks = (logits_.tokens_from(token) + kTokens - 1) / kTokens;
      for_tasks(blocks, logits_.threads, [&](int64_t block, int worker) {
        logits_.pack_hidden(token, block, scratch(worker),
                            [&](int64_t n, float* row) { logits_.load_hidden(n, row); });
      });
      for (int64_t symbol = 0; symbol < logits_.V; symbol += logits_.section) {
        for_tasks(
            logits_.columns_from(symbol).tasks, logits_.threads,
            [&](int64_t task, int worker) { logits_.pack_weight(symbol, task, scratch(worker)); });
        const int64_t units = (logits_.symbols_from(symbol) + kUnit - 1) / kUnit;
        for_tasks(blocks * units, logits_.threads, [&](int64_t task, int worker) {
          sum_unit(token, task % blocks, symbol, task / blocks * kUnit, worker);
        });
      }
      for_tasks(blocks, logits_.threads, [&](int64_t block, int) { merge(token, block); });
    }
  }

 private:
  // The masses of a block's tokens in the unit that begins at `start` of a section.
  void sum_unit(int64_t token, int64_t block, int64_t symbol, int64_t start, int worker) const {
    const int64_t first = token + block * kTokens;
    const int64_t count = smaller(logits_.N - first, kTokens);
    const int64_t end = smaller(start + kUnit, logits_.symbols_from(symbol));
    float* logits = scratch(worker);
    auto* masses = reinterpret_cast<Mass*>(logits + kTokens * kBlockRow);
    for (int64_t i = 0; i < count * masses_; ++i) masses[i] = Mass{};

    Engine::begin();
    for (int64_t v = start; v < end; v += kSymbols) {
      const int64_t width = round_up(smaller(end - v, kSymbols), Engine::kColumns);
      logits_.multiply_block(block, count, symbol, v, width, logits);
      for (int64_t i = 0; i < count; ++i) {
        add_row(first + i, symbol + v, width, logits + i * kBlockRow, masses + i * masses_);
      }
    }
    Engine::end();

    for (int64_t m = 0; m < masses_; ++m) {
      float* best = part((symbol + start) / kUnit, m) + block * kTokens;
      for (int64_t i = 0; i < kTokens; ++i) {
        const Mass mass = i < count ? masses[i * masses_ + m] : Mass{};
        best[i] = mass.best;
        best[logits_.chunk + i] = mass.total;
      }
    }
  }

  void add_row(int64_t n, int64_t symbol, int64_t width, float* logits, Mass* masses) const {
    const float* bias = logits_.bias(symbol);
    for (int64_t v = 0; v < width; v += kLanes)
      store(logits + v, load(logits + v) + load(bias + v));
    masses[0].add<false>(logits, {0, width});
    for (int64_t s = 0; s < x_.logits.scale_count; ++s) {
      const Bin bin = bin_of(x_.logits, n, s).within(symbol, width);
      if (!bin.empty()) masses[1 + s].add<true>(logits, bin);
    }
  }

  // All units' masses of a block's tokens, in the units' order, and the losses.
  void merge(int64_t token, int64_t block) const {
    const int64_t first = token + block * kTokens;
    const int64_t count = smaller(logits_.N - first, kTokens);
    for (int64_t i = 0; i < count; i += kLanes) {
      const int64_t there = smaller(count - i, kLanes);
      Mass all[kLanes];
      for (int64_t m = 0; m < masses_; ++m) {
        Mass found[kLanes];
        merge(m, block * kTokens + i, found);
        for (int64_t j = 0; j < there; ++j) {
          const int64_t n = first + i + j;
          mass_at(0, m)[n] = found[j].best;
          mass_at(1, m)[n] = found[j].total;
          if (m == 0) {
            all[j] = found[j];
          } else {
            reinterpret_cast<float*>(x_.losses.data)[(m - 1) * logits_.N + n] =
                loss_of(all[j], found[j]);
          }
        }
      }
    }
  }

  // Of kLanes tokens from the chunk's token i on.
  void merge(int64_t m, int64_t i, Mass* found) const {
    Floats best = broadcast(-kInfinity);
    for (int64_t u = 0; u < units_; ++u) best = maximum(load(part(u, m) + i), best);
    const Floats shift = best == -kInfinity ? Floats{} : best;
    Floats total = {};
    for (int64_t u = 0; u < units_; ++u) {
      const float* of_unit = part(u, m) + i;
      total += load(of_unit + logits_.chunk) * exponential(load(of_unit) - shift);
    }
    for (int j = 0; j < kLanes; ++j) found[j] = {best[j], total[j]};
  }

  // Maxima of a chunk's tokens in one unit; as many totals follow.
  float* part(int64_t unit, int64_t m) const {
    return memory_.as<float>(parts_) + (unit * masses_ + m) * 2 * logits_.chunk;
  }
  float* mass_at(int64_t which, int64_t m) const {
    return reinterpret_cast<float*>(x_.masses.data) + (which * masses_ + m) * logits_.N;
  }
  float* scratch(int worker) const { return memory_.as<float>(working_ + worker * scratch_bytes_); }

  const ScaleCrossEntropy& x_;
  Layout layout_;
  const Logits<Engine> logits_{x_.logits, layout_, memory_};
  const int64_t masses_ = 1 + x_.logits.scale_count;
  const int64_t units_ = (logits_.V + kUnit - 1) / kUnit;
  const int64_t parts_ = layout_.add<float>(units_ * masses_ * 2 * logits_.chunk);
  const int64_t block_bytes_ =
      kTokens * (kBlockRow * int64_t{sizeof(float)} + masses_ * int64_t{sizeof(Mass)});
  const int64_t scratch_bytes_ =
      padded_bytes(logits_.scratch_bytes > block_bytes_ ? logits_.scratch_bytes : block_bytes_);
  const int64_t working_ = layout_.add<char>(logits_.threads * scratch_bytes_);
  const Buffer memory_{layout_.bytes};
};

}  // namespace

void scale_cross_entropy(const ScaleCrossEntropy& x) {
  with_engine(x.logits.hidden.dtype, 1, [&]<typename Engine>() { Forward<Engine>(x).run(); });
}

}  // namespace pyseq::PYSEQ_ISA
