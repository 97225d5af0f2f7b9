// An online mixture of count models: the probability of each symbol given all before it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "mixture/context_counts.hpp"
#include "mixture/copying.hpp"
#include "mixture/count_stage.hpp"
#include "mixture/fixed_blend.hpp"
#include "mixture/history.hpp"
#include "mixture/marginal.hpp"
#include "mixture/orders.hpp"

namespace pyseq {

// Every number it keeps is a function of the symbols that were scored; for each context the
// probabilities of all symbols sum to 1. Symbols handed over in pieces get the same bits.
class Mixture {
 public:
  // From 1 to 65,536 symbols.
  explicit Mixture(uint32_t alphabet);
  Mixture(const Mixture&) = delete;
  Mixture& operator=(const Mixture&) = delete;

  uint32_t alphabet() const { return alphabet_; }
  int64_t size() const { return history_.size(); }

  // Code length of each symbol in bits, and whether the guess made before it was right.
  // All symbols must lie below the alphabet.
  void score(std::span<const uint16_t> symbols, std::span<double> bits, std::span<bool> hits);
  // Of each symbol of the alphabet to come next.
  void probabilities(std::span<double> out);

  const std::vector<std::string>& names() const { return names_; }
  std::span<const double> weights() const { return weights_; }
  // Summed over all symbols so far.
  std::span<const double> weight_sums() const { return weight_sums_; }

 private:
  // What all experts say of one symbol, and what they looked up for it.
  struct Trial {
    MarginalTrial marginal, difference, second_difference;
    SparseOrders::Trial strings;
    CopyLags::Trial copies;
    std::vector<double> probabilities;  // by expert
    double mixed = 0;
  };

  void prepare();
  void evaluate(uint32_t symbol, Trial& trial) const;
  void vote(size_t expert, const Guess& guess);
  uint16_t guess();
  void update(uint32_t symbol, const Trial& trial);
  uint32_t difference_to(uint32_t symbol) const;
  uint32_t second_difference_to(uint32_t symbol) const;
  const std::vector<uint32_t>& orders() const;

  uint32_t alphabet_;
  History history_;
  Marginal marginal_;
  std::optional<DenseOrders> dense_orders_;  // for small alphabets, else
  std::optional<SparseOrders> sparse_orders_;
  std::vector<ContextCounts<FixedBlend>> few_counts_;     // of lags, for small alphabets,
  std::vector<ContextCounts<CountStage<2>>> lag_counts_;  // for those up to 256, else
  std::vector<Successors> successors_;
  CopyLags copies_;
  LongMatch match_;
  Favourite favourite_;
  PeriodVote period_, long_period_;
  int64_t long_distance_ = 0;
  std::optional<Marginal> difference_, second_difference_;

  std::vector<std::string> names_;
  std::vector<double> weights_, prior_, weight_sums_;
  Trial trial_;
  struct Vote {
    uint16_t symbol;
    double mass;
  };
  std::vector<Vote> votes_;
  std::vector<Guess> order_guesses_;
};

}  // namespace pyseq
