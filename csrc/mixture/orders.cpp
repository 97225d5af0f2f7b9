#include "mixture/orders.hpp"

#include <bit>

#include "mixture/blends.hpp"

namespace pyseq {

namespace {

constexpr uint32_t kTableBits = 16;               // contexts of the longest order of a table
constexpr size_t kMostStrings = size_t{1} << 23;  // places for them, 256 MiB

// Contexts should recur; strings of text up to some 6 bytes do.
uint32_t longest_order(uint32_t alphabet) { return alphabet <= 256 ? 6 : 3; }

}  // namespace

DenseOrders::DenseOrders(uint32_t alphabet)
    : bits_(alphabet <= 2 ? 1 : static_cast<uint32_t>(std::bit_width(alphabet - 1))) {
  const double symbols = alphabet;
  const CountStage<4> stage({}, {kEndless, 0.125, symbols / 2, symbols * 4});
  for (uint32_t order = 1; order * bits_ <= kTableBits; order += order < 8 ? 1 : 2) {
    orders_.push_back(order);
    tables_.emplace_back(size_t{1} << order * bits_, alphabet, stage);
  }
}

void DenseOrders::prepare(const History& history) {
  if (history.size() == 0) return;
  code_ = code_ << bits_ | history.back(1);
  for (size_t i = 0; i < tables_.size() && orders_[i] <= history.size(); ++i) {
    tables_[i].prepare(code_ & ((uint64_t{1} << orders_[i] * bits_) - 1));
  }
}

void DenseOrders::evaluate(uint32_t symbol, double lower, std::span<double> out) const {
  for (size_t i = 0; i < tables_.size(); ++i) {
    lower = tables_[i].probability(symbol, lower);
    out[i] = lower;
  }
}

void DenseOrders::guess(const Guess& lower, std::span<Guess> out) const {
  Guess longest = lower;
  for (size_t i = 0; i < tables_.size(); ++i) {
    longest = tables_[i].guess(longest);
    out[i] = longest;
  }
}

void DenseOrders::update(uint32_t symbol, double lower, std::span<const double> said) {
  for (size_t i = 0; i < tables_.size(); ++i) {
    tables_[i].update(symbol, lower, said[i]);
    lower = said[i];
  }
}

SparseOrders::SparseOrders(uint32_t alphabet)
    : trie_(kMostStrings), stages_(longest_order(alphabet), CountStage<8>(kDiscounts, kPulls)) {
  for (uint32_t order = 1; order <= longest(); ++order) orders_.push_back(order);
}

void SparseOrders::prepare() {
  if (!trie_.has_room(kMostOrders)) grow();
  for (uint32_t order = 1; order < known_; ++order) {
    stages_[order - 1].prepare(trie_[contexts_[order]].followers);
  }
}

void SparseOrders::evaluate(uint32_t symbol, double lower, Trial& trial,
                            std::span<double> out) const {
  const auto narrow = static_cast<uint16_t>(symbol);
  std::array<uint32_t, kMostOrders> homes;
  for (uint32_t order = 0; order < known_; ++order) {
    homes[order] = trie_.home(id_of(order), narrow);
    trie_.prefetch(homes[order]);
  }
  bool followed = true;  // what never followed a context never followed a longer one
  for (uint32_t order = 0; order <= longest(); ++order) {
    trial.places[order] = ContextTrie::kNone;
    trial.counts[order] = 0;
    if (order < known_) {
      if (followed) trial.places[order] = trie_.find(homes[order], id_of(order), narrow);
      followed = trial.places[order] != ContextTrie::kNone;
      if (followed) trial.counts[order] = trie_[trial.places[order]].count;
      if (order > 0) lower = stages_[order - 1].probability(trial.counts[order], lower);
    }
    if (order > 0) out[order - 1] = lower;
  }
}

void SparseOrders::guess(const Guess& lower, std::span<Guess> out) const {
  Guess found = lower;
  for (uint32_t order = 1; order <= longest(); ++order) {
    if (order < known_) {
      found = stages_[order - 1].guess(trie_[contexts_[order]].followers, found);
    }
    out[order - 1] = found;
  }
}

void SparseOrders::update(uint32_t symbol, double lower, const Trial& trial,
                          std::span<const double> said) {
  for (uint32_t order = 1; order < known_; ++order) {
    stages_[order - 1].update(trial.counts[order], lower, said[order - 1]);
    lower = said[order - 1];
  }
  count(symbol, trial);
}

void SparseOrders::count(uint32_t symbol, const Trial& trial) {
  const auto narrow = static_cast<uint16_t>(symbol);
  bool shorter_known = true;  // whether the next shorter string had occurred before
  uint32_t known = 1;
  const std::array<uint32_t, kMostOrders> contexts = contexts_;
  for (uint32_t order = 0; order < known_; ++order) {
    uint32_t place = trial.places[order];
    const bool had_occurred = place != ContextTrie::kNone;
    if (had_occurred) {
      ++trie_[place].count;
    } else if (shorter_known) {
      const uint32_t parent = order == 0 ? ContextTrie::kEmptyString : trie_[contexts[order]].id;
      place = trie_.insert(parent, narrow);
    }
    if (place == ContextTrie::kNone) break;
    if (order > 0) trie_[contexts[order]].followers.add(narrow, trie_[place].count);
    if (order < longest()) contexts_[known++] = place;
    shorter_known = had_occurred;
  }
  known_ = known;
}

// The trie's places move; contexts are found again by their names.
void SparseOrders::grow() {
  struct Name {
    uint32_t parent;
    uint16_t symbol;
  };
  std::array<Name, kMostOrders> names{};
  for (uint32_t order = 1; order < known_; ++order) {
    const ContextNode& node = trie_[contexts_[order]];
    names[order] = {node.parent, node.symbol};
  }
  trie_.grow();
  for (uint32_t order = 1; order < known_; ++order) {
    const auto [parent, symbol] = names[order];
    contexts_[order] = trie_.find(trie_.home(parent, symbol), parent, symbol);
  }
}

}  // namespace pyseq
