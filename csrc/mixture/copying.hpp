// Predictors that name one symbol, or a few, and learn how far to be trusted.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mixture/count_stage.hpp"
#include "mixture/history.hpp"

namespace pyseq {

// What others say of a symbol: a shorter context, or all of them alike.
struct Fallback {
  double lower;
  double uniform;
};

// p = a [symbol named] + b lower + c uniform. The three are what the components of such a mixture
// were responsible for so far, the running estimate of expectation maximisation. Where a named
// symbol is not what came, it may be noise and nothing that `lower` knows.
class Trust {
 public:
  double value() const { return named_ / tries(); }
  double of_lower() const { return lower_ / tries(); }
  double probability(bool named, const Fallback& else_) const {
    const double credit = lower_ * else_.lower + uniform_ * else_.uniform;
    return ((named ? named_ : 0.0) + credit) / tries();
  }
  void update(bool named, const Fallback& else_, double mixed) {
    const double each = 1 / (mixed * tries());
    if (named) named_ += named_ * each;
    lower_ += lower_ * else_.lower * each;
    uniform_ += uniform_ * else_.uniform * each;
    if (tries() > kLongest) {  // a law that changes is followed
      named_ *= 0.5;
      lower_ *= 0.5;
      uniform_ *= 0.5;
    }
  }

 private:
  static constexpr double kLongest = 1 << 16;
  double tries() const { return named_ + lower_ + uniform_; }

  double named_ = 0.2, lower_ = 0.7, uniform_ = 0.1;
};

// What followed the last place at which the last few symbols stood.
class LongMatch {
 public:
  // Matches begin at `fewest` symbols.
  explicit LongMatch(uint32_t fewest);

  void prepare(const History& history);
  bool found() const { return place_ != kNowhere; }
  uint16_t named() const { return named_; }
  const Trust& trust() const { return trusts_[trust_class()]; }
  // How far back the symbol stands that is named, if several before it agreed, or 0.
  int64_t distance(const History& history) const {
    return found() && length_ >= kLongLength ? history.size() - place_ : 0;
  }
  // After the history has the symbol that came; `mixed` is the probability it was given.
  void update(const History& history, const Fallback& else_, double mixed);

 private:
  static constexpr int64_t kNowhere = -1;
  static constexpr size_t kFirstPlaces = size_t{1} << 12;
  static constexpr uint32_t kLongest = 32;  // lengths beyond are not told apart
  static constexpr uint32_t kLongLength = 12;
  static constexpr uint32_t kRecent = 16;  // guesses that are remembered
  static constexpr size_t kLengths = 12;

  size_t trust_class() const;
  uint64_t roll(uint64_t hash, const History& history, int64_t end) const;
  uint32_t& place_of(uint64_t hash);
  void remember(const History& history);
  uint32_t common_length(const History& history, int64_t end) const;

  uint32_t fewest_;
  uint64_t dropped_factor_;       // of the symbol that leaves the hash
  uint64_t hash_ = 0;             // of the last `fewest_` symbols
  std::vector<uint32_t> places_;  // the low bits of where a hash was last seen
  int64_t place_ = kNowhere;      // of the symbol that is named
  uint16_t named_ = 0;
  uint32_t length_ = 0;  // symbols that agreed since the last that did not
  uint32_t recent_ = 0;  // the last guesses, 1 for wrong
  uint32_t wrong_ = 0;   // of them
  std::array<Trust, kLengths * 4> trusts_{};
};

// The most frequent symbol among those 1, 2, ... 16 periods back, for a period that others found.
class PeriodVote {
 public:
  void prepare(const History& history, int64_t period);
  bool found() const { return tried_ > 0; }
  uint16_t named() const { return named_; }
  const Trust& trust() const { return trusts_[votes_ * (kMostTried + 1) + tried_]; }
  void update(uint16_t symbol, const Fallback& else_, double mixed);
  // Whether another period should be tried.
  bool fails() const { return right_ < kFewestRight; }

 private:
  static constexpr size_t kMostTried = 16;
  static constexpr uint32_t kRecent = 32;       // guesses that are remembered
  static constexpr uint32_t kFewestRight = 20;  // of them

  uint16_t named_ = 0;
  size_t votes_ = 0, tried_ = 0;
  uint32_t recent_ = 0, right_ = 0;
  std::array<Trust, (kMostTried + 1) * (kMostTried + 1)> trusts_{};
};

// The most frequent symbol so far, which needs no count of the others.
class Favourite {
 public:
  void prepare(const History& history, uint16_t most_frequent) {
    found_ = history.size() > 0;
    named_ = most_frequent;
  }
  bool found() const { return found_; }
  uint16_t named() const { return named_; }
  const Trust& trust() const { return trust_; }
  void update(uint16_t symbol, const Fallback& else_, double mixed) {
    if (found_) trust_.update(symbol == named_, else_, mixed);
  }

 private:
  bool found_ = false;
  uint16_t named_ = 0;
  Trust trust_;
};

// One symbol for each value at a lag: the one that followed it last time.
class Successors {
 public:
  explicit Successors(uint32_t alphabet) : successors_(alphabet) {}

  void prepare(uint16_t value) {
    at_ = &successors_[value];
    // An entry is a chance access to a table larger than a cache, and wanted soon.
    __builtin_prefetch(at_);
  }
  bool found() const { return at_ != nullptr && at_->known; }
  uint16_t named() const { return at_->symbol; }
  const Trust& trust() const { return trusts_[at_->agreed]; }
  void update(uint16_t symbol, const Fallback& else_, double mixed) {
    if (at_ == nullptr) return;
    const bool named = at_->known && at_->symbol == symbol;
    if (at_->known) trusts_[at_->agreed].update(named, else_, mixed);
    at_->agreed = named ? at_->agreed + (at_->agreed < kMostAgreed) : 0;
    at_->symbol = symbol;
    at_->known = true;
    at_ = nullptr;
  }

 private:
  static constexpr uint8_t kMostAgreed = 7;
  struct Successor {
    uint16_t symbol = 0;
    uint8_t agreed = 0;  // times in a row
    bool known = false;
  };

  std::vector<Successor> successors_;
  std::array<Trust, kMostAgreed + 1> trusts_{};
  Successor* at_ = nullptr;
};

// x_t is a copy of x_(t-L) with a probability for each lag L, or none: what remains falls to
// `lower`. The probabilities are the running estimate of expectation maximisation.
class CopyLags {
 public:
  CopyLags(uint32_t alphabet, uint32_t most_lags);

  void prepare(const History& history);
  // The lags at which a symbol stands, with their probabilities' sum as `probability`.
  struct Trial {
    std::vector<uint32_t> lags;
    double probability = 0;
  };
  void evaluate(const History& history, uint32_t symbol, double lower, Trial& trial) const;
  Guess guess(const History& history) const;
  // The most frequent lag, or 0 if none has much.
  int64_t best() const {
    return best_ <= active_ && credit_[best_] > 0.02 * all_credit_ ? best_ : 0;
  }
  // Before the history has the symbol.
  void update(const History& history, uint32_t symbol, double lower, const Trial& trial);

 private:
  void narrow();

  uint32_t window_;
  std::vector<int64_t> last_;     // where each symbol stood last, or -1
  std::vector<uint32_t> before_;  // from each place, how far back its symbol stood; 0: not near
  std::vector<double> credit_;    // of each lag
  double lower_credit_ = 1;       // of no lag
  double all_credit_ = 1;         // of those and the lags there have been symbols at
  uint32_t active_ = 0;
  uint32_t best_ = 1;
  int64_t visited_ = 0;  // in the present block
};

}  // namespace pyseq
