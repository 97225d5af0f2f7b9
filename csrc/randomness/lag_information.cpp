#include "randomness/lag_information.hpp"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "cpu/parallel.hpp"

namespace pyseq {

namespace {

double times_log(int64_t n) { return n ? static_cast<double>(n) * std::log(n) : 0.0; }

void shuffle(std::span<uint8_t> classes, uint64_t seed, int64_t row) {
  std::seed_seq words{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
                      static_cast<uint32_t>(row), static_cast<uint32_t>(row >> 32)};
  std::mt19937_64 random(words);
  for (auto left = static_cast<uint64_t>(classes.size()); left > 1; --left) {
    // The product's upper half lies in 0..left - 1, evenly but for left / 2^64.
    const auto place =
        static_cast<uint64_t>((static_cast<unsigned __int128>(random()) * left) >> 64);
    std::swap(classes[left - 1], classes[place]);
  }
}

class PairCounts {
 public:
  explicit PairCounts(int kinds) : kinds_(kinds), counts_(kTables * kinds * kinds) {}

  // Sum over pairs of n ln n, of classes[t] and classes[t - lag] on a circle.
  double sum_times_log(std::span<const uint8_t> classes, int64_t lag) {
    std::fill(counts_.begin(), counts_.end(), 0);
    const auto size = std::ssize(classes);
    lag %= size;
    count(classes.data() + size - lag, classes.data(), lag);
    count(classes.data(), classes.data() + lag, size - lag);
    const int64_t cells = int64_t{kinds_} * kinds_;
    double sum = 0;
    for (int64_t cell = 0; cell < cells; ++cell) {
      int64_t n = 0;
      for (int table = 0; table < kTables; ++table) n += counts_[table * cells + cell];
      sum += times_log(n);
    }
    return sum;
  }

 private:
  static constexpr int kTables = 4;  // so that equal pairs in a row do not wait for each other

  void count(const uint8_t* before, const uint8_t* now, int64_t pairs) {
    const int64_t cells = int64_t{kinds_} * kinds_;
    uint32_t* table[kTables];
    for (int k = 0; k < kTables; ++k) table[k] = counts_.data() + k * cells;
    int64_t i = 0;
    for (; i + kTables <= pairs; i += kTables) {
      for (int k = 0; k < kTables; ++k) ++table[k][before[i + k] * kinds_ + now[i + k]];
    }
    for (; i < pairs; ++i) ++table[0][before[i] * kinds_ + now[i]];
  }

  int kinds_;
  std::vector<uint32_t> counts_;
};

struct Work {
  std::span<const uint8_t> classes;
  int kinds;
  std::span<const int64_t> lags;
  uint64_t seed;
  double marginal;  // sum of n ln n over classes
  double* out;
  std::vector<std::vector<uint8_t>> shuffled;  // by worker
  std::vector<PairCounts> counts;
};

void row_of_information(void* context, int64_t row, int worker) {
  auto& work = *static_cast<Work*>(context);
  std::span<const uint8_t> sequence = work.classes;
  if (row > 0) {
    auto& own = work.shuffled[worker];
    std::copy(work.classes.begin(), work.classes.end(), own.begin());
    shuffle(own, work.seed, row);
    sequence = own;
  }
  const auto size = static_cast<double>(sequence.size());
  double* out = work.out + row * std::ssize(work.lags);
  for (const int64_t lag : work.lags) {
    const double joint = work.counts[worker].sum_times_log(sequence, lag);
    *out++ = std::log(size) + (joint - 2 * work.marginal) / size;
  }
}

}  // namespace

void lag_information(std::span<const uint8_t> classes, int kinds, std::span<const int64_t> lags,
                     uint64_t seed, int64_t rows, double* out, int threads) {
  if (classes.empty()) return;
  std::vector<int64_t> counts(kinds);
  for (const uint8_t c : classes) ++counts[c];
  double marginal = 0;
  for (const int64_t n : counts) marginal += times_log(n);
  const int workers = std::max(1, threads);
  Work work{classes, kinds, lags, seed, marginal, out, {}, {}};
  work.shuffled.assign(workers, std::vector<uint8_t>(rows > 1 ? classes.size() : 0));
  work.counts.assign(workers, PairCounts(kinds));
  run_tasks(rows, workers, row_of_information, &work);
}

}  // namespace pyseq
