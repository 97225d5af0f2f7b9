// What followed each context, and which symbol followed it most often.
#pragma once

#include <cstdint>
#include <vector>

#include "predictors/flat_table.hpp"

namespace pyseq::predictors {

struct Guess {
  uint16_t symbol;
  int64_t count;  // how often it followed
};

class FollowerCounts {
 public:
  // The budget must outlive this.
  explicit FollowerCounts(MemoryBudget& budget) : budget_(budget), counts_(budget) {}

  // A context that `symbol` followed once; its number, from 1, or 0 if the memory is used up.
  uint64_t add_context(uint16_t symbol) {
    if (contexts_.size() == contexts_.capacity() && !grow()) return 0;
    contexts_.push_back({.count = 1, .only = 1, .symbol = symbol});
    return contexts_.size();
  }

  // The symbol that followed most often; among equals the largest.
  Guess best(uint64_t context) const {
    const Context& known = contexts_[context - 1];
    return {static_cast<uint16_t>(known.symbol), static_cast<int64_t>(known.count)};
  }

  // Counts a symbol; one that never followed before only if `may_add`. Whether it was added.
  bool count(uint64_t context, uint16_t symbol, bool may_add);

 private:
  struct Context {
    uint64_t count : 47;
    uint64_t only : 1;  // nothing else ever followed, and the count is not in the table
    uint64_t symbol : 16;
  };
  static_assert(sizeof(Context) == sizeof(uint64_t));

  bool grow();

  MemoryBudget& budget_;
  std::vector<Context> contexts_;
  FlatTable counts_;
};

}  // namespace pyseq::predictors
