#include "predictors/follower_counts.hpp"

#include <algorithm>

namespace pyseq::predictors {

bool FollowerCounts::count(uint64_t context, uint16_t symbol, bool may_add) {
  Context& known = contexts_[context - 1];
  if (known.only == 1) {
    if (symbol == known.symbol) {
      ++known.count;
      return false;
    }
    if (!may_add) return false;
    uint64_t* const first = counts_.find_or_insert(context << 16 | known.symbol);
    if (first == nullptr) return false;
    *first = known.count;
    known.only = 0;
  }
  const uint64_t key = context << 16 | symbol;
  uint64_t* const followed = may_add ? counts_.find_or_insert(key) : counts_.find(key);
  if (followed == nullptr) return false;
  const uint64_t now = ++*followed;
  if (now > known.count || (now == known.count && symbol > known.symbol)) {
    known.count = now;
    known.symbol = symbol;
  }
  return now == 1;
}

bool FollowerCounts::grow() {
  constexpr size_t kSmallest = 1024;
  const size_t before = contexts_.capacity();
  const size_t wanted = std::max(kSmallest, 2 * before);
  const auto bytes = [](size_t contexts) {
    return static_cast<int64_t>(contexts * sizeof(Context));
  };
  if (!budget_.take(bytes(wanted))) return false;
  contexts_.reserve(wanted);
  budget_.give_back(bytes(before));
  return true;
}

}  // namespace pyseq::predictors
