// The symbol of one of 128 lags ago; the lag that was right most often is heard.
#include <array>
#include <vector>

#include "predictors/predictor.hpp"

namespace pyseq::predictors {

namespace {

constexpr int64_t kLags = 128;

class Lag final : public Predictor {
 public:
  Lag(Symbols symbols, int64_t alphabet) : Predictor(symbols, 1), last_(alphabet, kNever) {
    take_in(0);
  }

 private:
  static constexpr int64_t kNever = -kLags - 1;  // further back than any lag, at any position

  void guess(int64_t begin, int64_t end) override {
    for (int64_t position = begin; position < end; ++position) {
      count(symbols_[position - 1 - winner_] == symbols_[position]);
      // Only the lags that are right are visited, the shortest first, which is last in a tie.
      int64_t seen = last_[symbols_[position]];
      while (seen >= position - kLags) {
        const int64_t lag = position - seen - 1;
        if (++right_[lag] >= right_[winner_]) winner_ = lag;
        seen = before_[seen % kLags];
      }
      take_in(position);
    }
  }

  void take_in(int64_t position) {
    int64_t& last = last_[symbols_[position]];
    before_[position % kLags] = last;
    last = position;
  }

  std::vector<int64_t> last_;            // where each symbol was seen last
  std::array<int64_t, kLags> before_{};  // where the symbol of one of the last positions was before
  std::array<int64_t, kLags> right_{};
  int64_t winner_ = 0;
};

}  // namespace

std::unique_ptr<Predictor> lag(Symbols symbols, int64_t alphabet) {
  return std::make_unique<Lag>(symbols, alphabet);
}

void count_equal_at_lags(Symbols symbols, std::span<int64_t> equal) {
  // So few symbols that they stay in the cache for all lags, and 16 bits can count them.
  constexpr int64_t kBlock = 8192;
  const auto size = static_cast<int64_t>(symbols.size());
  std::fill(equal.begin(), equal.end(), 0);
  for (int64_t begin = 0; begin < size; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, size);
    for (int64_t lag = 1; lag <= static_cast<int64_t>(equal.size()); ++lag) {
      uint16_t found = 0;
      for (int64_t position = std::max(begin, lag); position < end; ++position) {
        found += symbols[position] == symbols[position - lag] ? 1 : 0;
      }
      equal[lag - 1] += found;
    }
  }
}

}  // namespace pyseq::predictors
