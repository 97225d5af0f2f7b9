// What follows each value at one lag, counted in full.
#pragma once

#include <cstdint>
#include <vector>

#include "mixture/count_stage.hpp"

namespace pyseq {

class LagCounts {
 public:
  // The pull towards the marginal of as many symbols as each row must learn, less, and more.
  explicit LagCounts(uint32_t alphabet)
      : alphabet_(alphabet),
        counts_(size_t{alphabet} * alphabet),
        rows_(alphabet),
        stage_({0, 0, 0, 0.5}, {0, alphabet / 2.0, alphabet * 8.0, 0.5}) {}

  void prepare(uint16_t value) {
    row_ = value;
    ready_ = true;
    stage_.prepare(rows_[row_]);
  }
  // Before there is a symbol at the lag, `lower`.
  double probability(uint32_t symbol, double lower) const {
    return ready_ ? stage_.probability(count(symbol), lower) : lower;
  }
  Guess guess(const Guess& lower) const {
    return ready_ ? stage_.guess(rows_[row_], lower) : lower;
  }
  void update(uint32_t symbol, double lower, double mixed) {
    if (!ready_) return;
    stage_.update(count(symbol), lower, mixed);
    rows_[row_].add(static_cast<uint16_t>(symbol),
                    ++counts_[size_t{row_} * alphabet_ + symbol]);
  }

 private:
  uint32_t count(uint32_t symbol) const { return counts_[size_t{row_} * alphabet_ + symbol]; }

  uint32_t alphabet_;
  std::vector<uint32_t> counts_;  // (value at the lag, symbol)
  std::vector<Followers> rows_;
  CountStage<4> stage_;
  uint32_t row_ = 0;
  bool ready_ = false;
};

}  // namespace pyseq
