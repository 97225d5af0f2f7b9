// Counts that lean on a marginal by as much as one fixed pull says.
#pragma once

#include <cstdint>

#include "mixture/count_stage.hpp"

namespace pyseq {

// p = (c + theta lower) / (n + theta): a third of the time of a CountStage, whose place it takes
// where contexts are few and all of them seen often, so that theta hardly matters.
class FixedBlend {
 public:
  explicit FixedBlend(double pull) : pull_(pull) {}

  void prepare(const Followers& seen) { inverse_ = 1.0 / (seen.total + pull_); }
  double probability(uint32_t count, double lower) const {
    return (count + pull_ * lower) * inverse_;
  }
  Guess guess(const Followers& seen, const Guess& lower) const {
    const double own = seen.best_count * inverse_;
    const double passed_on = pull_ * inverse_ * lower.mass;
    if (seen.best == lower.symbol) return {seen.best, own + passed_on};
    return own >= passed_on ? Guess{seen.best, own} : Guess{lower.symbol, passed_on};
  }
  void update(uint32_t, double, double) {}

 private:
  double pull_;
  double inverse_ = 1;
};

}  // namespace pyseq
