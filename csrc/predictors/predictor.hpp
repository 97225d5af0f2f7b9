// The four predictors of NIST SP 800-90B, sections 6.3.7 to 6.3.10, for symbols of up to 16 bits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace pyseq::predictors {

using Symbols = std::span<const uint16_t>;

struct Score {
  int64_t correct = 0;
  int64_t longest_run = 0;  // of correct guesses
};

// Guesses every symbol of a stream from those before it.
class Predictor {
 public:
  virtual ~Predictor() = default;
  Predictor(const Predictor&) = delete;
  Predictor& operator=(const Predictor&) = delete;

  // Guesses up to `count` symbols more, and says how many are left.
  int64_t advance(int64_t count) {
    const int64_t end = next_ + std::min(count, left());
    guess(next_, end);
    next_ = end;
    return left();
  }

  const Score& score() const { return score_; }
  // The first symbol that a full memory could not take in, or -1.
  virtual int64_t full_at() const { return -1; }

 protected:
  // The symbols must outlive this; `first` is the first that is guessed.
  Predictor(Symbols symbols, int64_t first) : symbols_(symbols), next_(first) {}

  virtual void guess(int64_t begin, int64_t end) = 0;

  void count(bool correct) {
    run_ = correct ? run_ + 1 : 0;
    score_.correct += correct ? 1 : 0;
    score_.longest_run = std::max(score_.longest_run, run_);
  }

  Symbols symbols_;

 private:
  int64_t left() const {
    return std::max<int64_t>(0, static_cast<int64_t>(symbols_.size()) - next_);
  }

  int64_t next_;
  int64_t run_ = 0;
  Score score_;
};

// Up to this alphabet the dictionaries have the standard's sizes; above, those of the memory.
inline constexpr int64_t kWidestOfStandard = 256;

// Each wants symbols below `alphabet`, at least as many as named; `memory` is in bytes.
std::unique_ptr<Predictor> multi_mcw(Symbols symbols, int64_t alphabet);                  // 64
std::unique_ptr<Predictor> lag(Symbols symbols, int64_t alphabet);                        // 2
std::unique_ptr<Predictor> multi_mmc(Symbols symbols, int64_t alphabet, int64_t memory);  // 3
std::unique_ptr<Predictor> lz78y(Symbols symbols, int64_t alphabet, int64_t memory);      // 18

// How often a symbol equals the one `lag` before it, for the lags from 1 to the size of `equal`.
void count_equal_at_lags(Symbols symbols, std::span<int64_t> equal);

}  // namespace pyseq::predictors
