// Weights over predictors that follow Bayes' rule and never forget a predictor for good.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace pyseq {

// What is shared out after a weight's t-th update. It falls like 1 / t, in steps: staying with one
// predictor costs about log2(1 + t / 64) / 16 bits in all (1 at t = 1e6, which matters where the
// code length is evidence), leaving it for another at time t about log2(16 (t + 64)) bits.
inline double share_at(int64_t updates) {
  return 1.0 / (static_cast<double>(std::bit_floor(static_cast<uint64_t>(updates) + 64)) * 16);
}

// w <- (1 - share) w p / mixed + share * prior, where mixed is the sum of w p. The sum of w comes
// out as 1 each time, so that rounding does not add up.
inline void reweigh(std::span<double> weights, std::span<const double> probabilities, double mixed,
                    std::span<const double> prior, double share) {
  const double kept = (1 - share) / mixed;
  for (size_t i = 0; i < weights.size(); ++i) {
    weights[i] = weights[i] * probabilities[i] * kept + share * prior[i];
  }
}

// Half the weight for the first predictor, the plainest, and the rest in equal parts.
inline void favour_first(std::span<double> prior) {
  const double rest = prior.size() > 1 ? 0.5 / static_cast<double>(prior.size() - 1) : 0;
  for (double& weight : prior) weight = rest;
  prior[0] = 1 - rest * static_cast<double>(prior.size() - 1);
}

}  // namespace pyseq
