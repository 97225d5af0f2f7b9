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
// with c the count of the symbol, n the sum of counts and T the number of kinds. A blend with an
// endless theta is `lower` alone. Contexts of about the same n and T share their weights,
// so that what a context seen once, or one always followed by the same symbol, is worth is learned.
template <size_t J>
class CountStage {
  static_assert(J % 2 == 0, "blends are computed in pairs");

 public:
  using Numbers = std::array<double, J>;

  // Discounts below 1, and pulls above 0.
  CountStage(const Numbers& discount, const Numbers& pull) {
    Numbers prior;
    favour_first(prior);
    for (size_t j = 0; j < J; ++j) {
      discount_[j / 2][j % 2] = discount[j];
      pull_[j / 2][j % 2] = pull[j];
      prior_[j / 2][j % 2] = prior[j];
    }
  }

  // Look at a context before its symbol is known.
  void prepare(const Followers& seen) {
    total_ = seen.total;
    if (total_ == 0) return;
    kinds_ = seen.kinds;
    current_ = class_of(seen.total, seen.kinds);
    const Pairs& weight = classes_[current_].weight;
    Pair per_count{}, discounted{}, per_lower{};
    for (size_t i = 0; i < J / 2; ++i) {
      inverse_[i] = 1.0 / (total_ + pull_[i]);
      const Pair weighted = weight[i] * inverse_[i];
      per_count += weighted;
      discounted += weighted * discount_[i];
      back_[i] = (pull_[i] + discount_[i] * kinds_) * inverse_[i];
      per_lower += weight[i] * back_[i];
    }
    per_count_ = per_count[0] + per_count[1];
    discounted_ = discounted[0] + discounted[1];
    per_lower_ = per_lower[0] + per_lower[1];
  }

  // The probability of a symbol that followed `count` times; a discount is less than any count.
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
    Weights& learned = classes_[current_];
    const double seen = count > 0 ? 1 : 0;
    const double kept = (1 - learned.share) / mixed;
    for (size_t i = 0; i < J / 2; ++i) {
      const Pair own = seen * inverse_[i] * (count - discount_[i]);
      const Pair said = own + back_[i] * lower;
      learned.weight[i] = learned.weight[i] * said * kept + learned.share * prior_[i];
    }
    ++learned.updates;
    if ((learned.updates & (learned.updates - 1)) == 0) learned.share = share_at(learned.updates);
  }

 private:
  static constexpr size_t kTotals = 18;
  static constexpr size_t kKinds = 4;

  typedef double Pair __attribute__((vector_size(2 * sizeof(double))));
  using Pairs = std::array<Pair, J / 2>;

  struct Weights {
    Pairs weight{};
    double share = share_at(0);
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
  size_t class_of(uint32_t total, uint32_t kinds) {
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
    return place;
  }

  Pairs discount_{}, pull_{}, prior_{};
  std::array<Weights, kTotals * kKinds> classes_{};
  // Of the context that was looked at last.
  double total_ = 0, kinds_ = 0;
  size_t current_ = 0;
  Pairs inverse_{}, back_{};
  double per_count_ = 0, discounted_ = 0, per_lower_ = 1;
};

}  // namespace pyseq
