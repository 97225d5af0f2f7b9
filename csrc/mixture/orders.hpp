// The last 1, 2, ... symbols as contexts, each order leaning on the next shorter one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "mixture/context_counts.hpp"
#include "mixture/context_trie.hpp"
#include "mixture/count_stage.hpp"
#include "mixture/history.hpp"

namespace pyseq {

constexpr size_t kMostOrders = 17;  // 0..16

// Orders 1 and up of a small alphabet, all their contexts in tables. Above 8 every other is left
// out, which is for time.
class DenseOrders {
 public:
  static constexpr uint32_t kMostSymbols = 16;

  explicit DenseOrders(uint32_t alphabet);

  // Ascending.
  const std::vector<uint32_t>& orders() const { return orders_; }
  void prepare(const History& history);
  // From `lower`, the probability of order 0, to those of the others.
  void evaluate(uint32_t symbol, double lower, std::span<double> out) const;
  // The guess of each order.
  void guess(const Guess& lower, std::span<Guess> out) const;
  void update(uint32_t symbol, double lower, std::span<const double> said);

 private:
  uint32_t bits_;      // of a symbol
  uint64_t code_ = 0;  // of the last symbols, the newest lowest
  std::vector<uint32_t> orders_;
  std::vector<ContextCounts<CountStage<4>>> tables_;
};

// Orders 1 and up of a larger alphabet, of whose contexts those that occur are kept. A string is
// counted from its second occurrence or so on: once the string without its first symbol is known.
// When there is no room no string is added any more.
class SparseOrders {
 public:
  explicit SparseOrders(uint32_t alphabet);

  // What was looked up for a symbol, by order.
  struct Trial {
    std::array<uint32_t, kMostOrders> places;  // of the context with the symbol, in the trie
    std::array<uint32_t, kMostOrders> counts;  // of that string
  };

  const std::vector<uint32_t>& orders() const { return orders_; }
  void prepare();
  void evaluate(uint32_t symbol, double lower, Trial& trial, std::span<double> out) const;
  void guess(const Guess& lower, std::span<Guess> out) const;
  void update(uint32_t symbol, double lower, const Trial& trial, std::span<const double> said);

 private:
  void count(uint32_t symbol, const Trial& trial);
  void grow();
  uint32_t longest() const { return static_cast<uint32_t>(stages_.size()); }
  uint32_t id_of(uint32_t order) const {
    return order == 0 ? ContextTrie::kEmptyString : trie_[contexts_[order]].id;
  }

  std::vector<uint32_t> orders_;
  ContextTrie trie_;
  // Places of the last 0, 1, ... symbols; known_ of them are known, the first (which has none) too.
  std::array<uint32_t, kMostOrders> contexts_{};
  uint32_t known_ = 1;
  std::vector<CountStage<8>> stages_;
};

}  // namespace pyseq
