#include "mixture/marginal.hpp"

#include <algorithm>
#include <bit>
#include <span>

#include "mixture/blends.hpp"

namespace pyseq {

Marginal::Marginal(uint32_t alphabet)
    : alphabet_(alphabet),
      bits_(static_cast<uint32_t>(std::bit_width(alphabet - 1))),
      counts_(size_t{2} << bits_),
      stage_(kDiscounts, kPulls) {
  for (uint32_t depth = 0; depth <= bits_; ++depth) {
    const uint32_t width = 1u << (bits_ - depth);
    regular_[depth] = 1.0 / width;
    ragged_[depth] = 1.0 / (alphabet - (alphabet - 1) / width * width);
  }
  favour_first(std::span(prior_).first(bits_ + 1));
  weights_ = prior_;
}

void Marginal::prepare() { stage_.prepare(seen_); }

void Marginal::evaluate(uint32_t symbol, MarginalTrial& trial) const {
  double reached = 1.0;
  double inside = 1.0 / alphabet_;  // 1 / symbols of the bin
  trial.at_depth[0] = inside;
  double smooth = weights_[0] * inside;
  for (uint32_t depth = 1; depth <= bits_; ++depth) {
    const uint32_t below = bits_ - depth;
    const uint32_t bin = symbol >> below;
    const double finer = bin == (alphabet_ - 1) >> below ? ragged_[depth] : regular_[depth];
    const uint32_t all = counts_[(1u << (depth - 1)) + (bin >> 1)];
    reached *= (counts_[(1u << depth) + bin] + inside / finer) / (all + 1.0);
    inside = finer;
    trial.at_depth[depth] = reached * inside;
    smooth += weights_[depth] * trial.at_depth[depth];
  }
  trial.smooth = smooth;
  trial.count = counts_[(1u << bits_) + symbol];
  trial.probability = stage_.probability(trial.count, smooth);
}

Guess Marginal::guess() const { return stage_.guess(seen_, {seen_.best, 1.0 / alphabet_}); }

void Marginal::update(uint32_t symbol, const MarginalTrial& trial) {
  stage_.update(trial.count, trial.smooth, trial.probability);
  const size_t depths = bits_ + 1;
  reweigh(std::span(weights_).first(depths), std::span(trial.at_depth).first(depths), trial.smooth,
          std::span(prior_).first(depths), share_at(updates_++));
  for (uint32_t depth = 0; depth <= bits_; ++depth) {
    ++counts_[(1u << depth) + (symbol >> (bits_ - depth))];
  }
  seen_.add(static_cast<uint16_t>(symbol), trial.count + 1);
}

}  // namespace pyseq
