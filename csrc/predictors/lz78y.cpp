// Of what followed the last 1 to 16 symbols before, the symbol with the highest count.
#include <array>
#include <vector>

#include "predictors/context_tree.hpp"
#include "predictors/predictor.hpp"

namespace pyseq::predictors {

namespace {

// The standard's dictionary, for symbols of 8 bits: at most 65,536 contexts of 1 to 16 symbols,
// the longest added first, each looked up by itself. What follows them is not limited, but can be
// no more than 65,536 * 256 pairs.
class StandardDictionary {
 public:
  explicit StandardDictionary(Symbols symbols)
      : symbols_(symbols),
        budget_(ContextTree::kNoLimit),
        followers_(budget_),
        entries_(2 * kMostContexts) {}

  int64_t visit(int64_t position, Guesses& guesses) {
    uint64_t newest = 0;  // 8 symbols, the last in the low byte
    uint64_t oldest = 0;
    for (int64_t back = 8; back >= 1; --back) {
      newest = newest << 8 | symbols_[position - back];
      oldest = oldest << 8 | symbols_[position - back - 8];
    }
    int64_t found = 0;
    for (int64_t length = kLongestContext; length >= 1; --length) {
      newest = low_bytes(newest, length);
      oldest = low_bytes(oldest, length - 8);
      Entry& entry = place(newest, oldest, static_cast<uint8_t>(length));
      if (entry.context != 0) {
        guesses[found++] = followers_.best(entry.context);
        followers_.count(entry.context, symbols_[position], true);
      } else if (contexts_ < kMostContexts) {
        ++contexts_;
        entry = {newest, oldest, followers_.add_context(symbols_[position]),
                 static_cast<uint8_t>(length)};
      }
    }
    std::reverse(guesses.begin(), guesses.begin() + found);
    return found;
  }

  bool full() const { return false; }

 private:
  static constexpr int64_t kMostContexts = 65'536;

  struct Entry {
    uint64_t newest = 0;
    uint64_t oldest = 0;
    uint64_t context : 56 = 0;
    uint64_t length : 8 = 0;
  };

  static uint64_t low_bytes(uint64_t word, int64_t bytes) {
    if (bytes >= 8) return word;
    return bytes <= 0 ? 0 : word & ((uint64_t{1} << 8 * bytes) - 1);
  }

  Entry& place(uint64_t newest, uint64_t oldest, uint8_t length) {
    uint64_t hash = newest * 0x9E3779B97F4A7C15u;
    hash = (hash ^ (hash >> 32) ^ oldest) * 0xD6E8FEB86659FD93u;
    hash = (hash ^ (hash >> 32) ^ length) * 0x9E3779B97F4A7C15u;
    const uint64_t mask = entries_.size() - 1;
    uint64_t index = (hash ^ (hash >> 32)) & mask;
    while (true) {
      Entry& entry = entries_[index];
      if (entry.context == 0 ||
          (entry.newest == newest && entry.oldest == oldest && entry.length == length)) {
        return entry;
      }
      index = (index + 1) & mask;
    }
  }

  Symbols symbols_;
  MemoryBudget budget_;
  FollowerCounts followers_;
  std::vector<Entry> entries_;
  int64_t contexts_ = 0;
};

template <typename Contexts>
class Lz78y final : public Predictor {
 public:
  template <typename... Arguments>
  explicit Lz78y(Symbols symbols, Arguments... arguments)
      : Predictor(symbols, kLongestContext + 1), contexts_(symbols, arguments...) {
    Guesses none;
    contexts_.visit(kLongestContext, none);
  }

  int64_t full_at() const override { return full_at_; }

 private:
  void guess(int64_t begin, int64_t end) override {
    Guesses guesses;
    for (int64_t position = begin; position < end; ++position) {
      const int64_t known = contexts_.visit(position, guesses);
      Guess best = {0, 0};
      for (int64_t guess = 0; guess < known; ++guess) {
        if (guesses[guess].count >= best.count) best = guesses[guess];  // the longest of equals
      }
      count(known > 0 && best.symbol == symbols_[position]);
      if (full_at_ < 0 && contexts_.full()) full_at_ = position;
    }
  }

  Contexts contexts_;
  int64_t full_at_ = -1;
};

}  // namespace

std::unique_ptr<Predictor> lz78y(Symbols symbols, int64_t alphabet, int64_t memory) {
  if (alphabet <= kWidestOfStandard) return std::make_unique<Lz78y<StandardDictionary>>(symbols);
  return std::make_unique<Lz78y<ContextTree>>(symbols, alphabet, ContextTree::kNoLimit, memory);
}

}  // namespace pyseq::predictors
