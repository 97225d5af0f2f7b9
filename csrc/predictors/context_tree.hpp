// What followed the last 1, 2, ... 16 symbols whenever they occurred before.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "predictors/follower_counts.hpp"
#include "predictors/predictor.hpp"

namespace pyseq::predictors {

inline constexpr int64_t kLongestContext = 16;  // symbols
using Guesses = std::array<Guess, kLongestContext>;

// A tree: the context of m + 1 symbols is a child, by its oldest symbol, of that of its last m. A
// context that occurred once is a leaf that stands for all longer ones too, and grows by a level
// when it occurs again; so a stream without repetitions costs one leaf per symbol.
class ContextTree {
 public:
  static constexpr int64_t kNoLimit = int64_t{1} << 62;

  // Of contexts of each length, so many pairs of a context and a symbol that followed it are
  // remembered; and no more than `memory` bytes hold. What is remembered counts on after that.
  ContextTree(Symbols symbols, int64_t alphabet, int64_t most_pairs, int64_t memory);
  ContextTree(const ContextTree&) = delete;  // its tables refer to its budget
  ContextTree& operator=(const ContextTree&) = delete;

  // Guesses the symbol at a position, from 1 on, by each context that was seen, the shortest
  // first, and then remembers it. How many contexts that is; the longer ones were not seen.
  int64_t visit(int64_t position, Guesses& guesses);

  bool full() const { return budget_.refused(); }

 private:
  // 0: nothing. Even: twice a context's number in `followers_`. Odd: a leaf.
  using Node = uint64_t;
  struct Leaf {
    int64_t position;  // of the symbol that followed
    int64_t longest;   // context that it stands for
  };
  static Node node(Leaf leaf) {
    return static_cast<uint64_t>(leaf.position) << 8 | static_cast<uint64_t>(leaf.longest) << 1 | 1;
  }
  static Leaf leaf(Node node) {
    return {static_cast<int64_t>(node >> 8), static_cast<int64_t>(node >> 1 & 127)};
  }

  void add_leaf(Node* place, int64_t position, int64_t length);
  uint64_t expand(Node& place, int64_t length);
  int64_t guess_by_leaf(Leaf known, int64_t position, int64_t length, Guesses& guesses) const;
  static int64_t longest_at(int64_t position) { return std::min(position, kLongestContext); }
  bool may_add(int64_t length) const { return pairs_[length] < most_pairs_; }

  Symbols symbols_;
  int64_t most_pairs_;
  std::array<int64_t, kLongestContext + 1> pairs_{};  // by length of the context
  MemoryBudget budget_;
  std::vector<Node> roots_;  // contexts of one symbol
  FlatTable children_;       // Node by parent << 16 | symbol
  FollowerCounts followers_;
};

}  // namespace pyseq::predictors
