#include "mixture/marginal.hpp"

#include <algorithm>
#include <bit>
#include <span>

#include "mixture/blends.hpp"

namespace pyseq {

Marginal::Marginal(uint32_t alphabet)
    : alphabet_(alphabet),
      depth_(static_cast<uint32_t>(std::bit_width(alphabet - 1) + 1) / 2),
      stage_(kDiscounts, kPulls) {
  uint32_t bins = 0;
  for (uint32_t depth = 0; depth <= depth_; ++depth) {
    const uint32_t below = 2 * (depth_ - depth);
    first_[depth] = bins;
    bins += 1u << 2 * depth;
    last_bin_[depth] = (alphabet - 1) >> below;
    last_width_[depth] = alphabet - (last_bin_[depth] << below);
  }
  counts_.resize(bins);
  favour_first(std::span(prior_).first(depth_ + 1));
  weights_ = prior_;
}

void Marginal::prepare() { stage_.prepare(seen_); }

void Marginal::evaluate(uint32_t symbol, MarginalTrial& trial) const {
  constexpr double kPrior = 2;  // occurrences: half of one for each quarter
  double reached = 1.0;
  double width = alphabet_;  // symbols of the bin
  uint32_t all = counts_[0];
  trial.at_depth[0] = 1.0 / width;
  double smooth = weights_[0] * trial.at_depth[0];
  for (uint32_t depth = 1; depth <= depth_; ++depth) {
    const uint32_t below = 2 * (depth_ - depth);
    const uint32_t bin = symbol >> below;
    const double finer = bin == last_bin_[depth] ? last_width_[depth] : 1u << below;
    const uint32_t count = counts_[first_[depth] + bin];
    // The probability of one symbol if all of the finer bin are alike, times its width.
    reached *= (count * width + kPrior * finer) / ((all + kPrior) * width);
    trial.at_depth[depth] = reached / finer;
    smooth += weights_[depth] * trial.at_depth[depth];
    width = finer;
    all = count;
  }
  trial.smooth = smooth;
  trial.count = all;
  trial.probability = stage_.probability(trial.count, smooth);
}

Guess Marginal::guess() const { return stage_.guess(seen_, {seen_.best, 1.0 / alphabet_}); }

void Marginal::update(uint32_t symbol, const MarginalTrial& trial) {
  stage_.update(trial.count, trial.smooth, trial.probability);
  const size_t depths = depth_ + 1;
  reweigh(std::span(weights_).first(depths), std::span(trial.at_depth).first(depths), trial.smooth,
          std::span(prior_).first(depths), share_at(updates_++));
  for (uint32_t depth = 0; depth <= depth_; ++depth) {
    ++counts_[first_[depth] + (symbol >> 2 * (depth_ - depth))];
  }
  seen_.add(static_cast<uint16_t>(symbol), trial.count + 1);
}

}  // namespace pyseq
