// Markov models of orders 1 to 16, by counting; the order that was right most often is heard.
#include <array>

#include "predictors/context_tree.hpp"
#include "predictors/predictor.hpp"

namespace pyseq::predictors {

namespace {

constexpr int64_t kMostPairs = 100'000;  // of an order, by the standard

class MultiMmc final : public Predictor {
 public:
  MultiMmc(Symbols symbols, int64_t alphabet, int64_t most_pairs, int64_t memory)
      : Predictor(symbols, 2), tree_(symbols, alphabet, most_pairs, memory) {
    Guesses none;
    tree_.visit(1, none);
  }

  int64_t full_at() const override { return full_at_; }

 private:
  void guess(int64_t begin, int64_t end) override {
    Guesses guesses;
    for (int64_t position = begin; position < end; ++position) {
      const int64_t known = tree_.visit(position, guesses);
      const int64_t heard = winner_;
      for (int64_t order = 0; order < known; ++order) {
        const bool right = guesses[order].symbol == symbols_[position];
        if (right && ++right_[order] >= right_[winner_]) winner_ = order;
        // Where the order that is heard knows nothing, a run of correct guesses is not ended: so
        // does NIST's own program.
        if (order == heard) count(right);
      }
      if (full_at_ < 0 && tree_.full()) full_at_ = position;
    }
  }

  ContextTree tree_;
  std::array<int64_t, kLongestContext> right_{};
  int64_t winner_ = 0;
  int64_t full_at_ = -1;
};

}  // namespace

std::unique_ptr<Predictor> multi_mmc(Symbols symbols, int64_t alphabet, int64_t memory) {
  const bool standard = alphabet <= kWidestOfStandard;
  return std::make_unique<MultiMmc>(symbols, alphabet,
                                    standard ? kMostPairs : ContextTree::kNoLimit,
                                    standard ? ContextTree::kNoLimit : memory);
}

}  // namespace pyseq::predictors
