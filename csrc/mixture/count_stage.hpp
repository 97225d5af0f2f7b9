// From the probabilities of a shorter context to those of a longer one, by counts.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mixture/share.hpp"

namespace pyseq {

// What followed a context: how often anything, how many kinds, and how often the most frequent.
struct Followers {
  uint32_t total = 0;
  uint32_t kinds = 0;
  uint32_t best_count = 0;
  uint16_t best = 0;

  // Count one more occurrence of a symbol that now has `count` of them.
  void add(uint16_t symbol, uint32_t count) {
    ++total;
    if (count == 1) ++kinds;
    if (count > best_count) {
      best_count = count;
      best = symbol;
    }
  }
};

// The other of two candidates for a guess, and what is known to be its probability at least.
struct Guess {
  uint16_t symbol = 0;
  double mass = 0;
};

// A mixture, over J blends, of
//
//   (max(c - D, 0) + (theta + D T) lower) / (n + theta)
//
// with c the count of the symbol, n the sum of counts and T the number of kinds; the first blend
// is `lower` alone. Contexts of about the same n and T share their weights, so that what a context
// seen once or a context that was always followed by the same symbol is worth is learned.
template <size_t J>
class CountStage {
 public:
  using Numbers = std::array<double, J>;

  // The first of discounts and pulls stands for `lower` alone and is not read.
  CountStage(const Numbers& discount, const Numbers& pull) : discount_(discount), pull_(pull) {
    favour_first(prior_);
  }

  // Look at a context before its symbol is known.
  void prepare(const Followers& seen) {
    total_ = seen.total;
    kinds_ = seen.kinds;
    if (total_ == 0) return;
    current_ = &weights_of(total_, kinds_);
    const Numbers& weight = current_->weight;
    per_count_ = discounted_ = 0;
    per_lower_ = weight[0];
    for (size_t j = 1; j < J; ++j) {
      inverse_[j] = 1.0 / (total_ + pull_[j]);
      back_[j] = (pull_[j] + discount_[j] * kinds_) * inverse_[j];
    }
    for (size_t j = 1; j < J; ++j) {
      per_count_ += weight[j] * inverse_[j];
      discounted_ += weight[j] * inverse_[j] * discount_[j];
      per_lower_ += weight[j] * back_[j];
    }
  }

  // The probability of a symbol that followed `count` times. Discounts are below 1, so that a
  // count of 1 or more is never below them.
  double probability(uint32_t count, double lower) const {
    if (total_ == 0) return lower;
    const double own = count > 0 ? count * per_count_ - discounted_ : 0.0;
    return own + per_lower_ * lower;
  }

  Guess guess(const Followers& seen, const Guess& lower) const {
    if (total_ == 0) return lower;
    const double own = seen.best_count * per_count_ - discounted_;
    const double passed_on = per_lower_ * lower.mass;
    if (seen.best == lower.symbol) return {seen.best, own + passed_on};
    return own >= passed_on ? Guess{seen.best, own} : Guess{lower.symbol, passed_on};
  }

  // Learn from the symbol that came; `mixed` is what `probability` said.
  void update(uint32_t count, double lower, double mixed) {
    if (total_ == 0) return;
    Numbers said;
    said[0] = lower;
    for (size_t j = 1; j < J; ++j) {
      const double own = count > 0 ? (count - discount_[j]) * inverse_[j] : 0.0;
      said[j] = own + back_[j] * lower;
    }
    reweigh(current_->weight, said, mixed, prior_, share_at(current_->updates++));
  }

 private:
  static constexpr size_t kTotals = 18;
  static constexpr size_t kKinds = 4;

  struct Weights {
    Numbers weight;
    int64_t updates = 0;
    bool used = false;
  };

  static size_t total_class(uint32_t total) {
    return total <= 4 ? total - 1 : std::min<size_t>(kTotals - 1, 1 + std::bit_width(total));
  }

  static size_t kinds_class(uint32_t total, uint32_t kinds) {
    if (kinds == 1) return 0;
    if (kinds == total) return 1;
    return uint64_t{kinds} * 4 > total ? 2 : 3;
  }

  // Weights that were never used start from those of the next smaller total: on symbols that no
  // context predicts, this is learned once and not once for each size.
  Weights& weights_of(uint32_t total, uint32_t kinds) {
    const size_t row = kinds_class(total, kinds) * kTotals;
    const size_t place = row + total_class(total);
    Weights& found = classes_[place];
    if (!found.used) {
      found.used = true;
      found.weight = prior_;
      for (size_t smaller = place; smaller-- > row;) {
        if (!classes_[smaller].used) continue;
        found.weight = classes_[smaller].weight;
        break;
      }
    }
    return found;
  }

  Numbers discount_, pull_, prior_;
  std::array<Weights, kTotals * kKinds> classes_{};
  // Of the context that was looked at last.
  uint32_t total_ = 0, kinds_ = 0;
  Weights* current_ = nullptr;
  Numbers inverse_{}, back_{};
  double per_count_ = 0, discounted_ = 0, per_lower_ = 1;
};

}  // namespace pyseq
