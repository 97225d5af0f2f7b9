// One distribution over the whole alphabet, learned from few symbols or many.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mixture/count_stage.hpp"

namespace pyseq {

constexpr size_t kMostDepth = 8;  // of bins, two bits of a symbol each

// What a marginal says of one symbol.
struct MarginalTrial {
  std::array<double, kMostDepth + 1> at_depth;  // if all symbols of a bin were alike
  double smooth;                                // the mixture of these
  uint32_t count;
  double probability;
};

// Symbols fall into bins of 4^(D-d) neighbours at depth d = 0..D. A bin's quarters are told apart
// by the estimate of Krichevsky and Trofimov; below depth d all symbols of a bin are alike. Depths
// are mixed, the uniform law (d = 0) first, and a stage of plain counts comes on top of it.
class Marginal {
 public:
  explicit Marginal(uint32_t alphabet);

  void prepare();
  // What comes before the stage of counts and after it.
  void evaluate(uint32_t symbol, MarginalTrial& trial) const;
  Guess guess() const;
  void update(uint32_t symbol, const MarginalTrial& trial);

 private:
  uint32_t alphabet_;
  uint32_t depth_;                // D
  std::vector<uint32_t> counts_;  // of bins; those of depth d begin at first_[d]
  std::array<uint32_t, kMostDepth + 1> first_{};
  std::array<uint32_t, kMostDepth + 1> last_bin_{};
  std::array<double, kMostDepth + 1> last_width_{};  // of the alphabet's symbols in the last bin
  std::array<double, kMostDepth + 1> weights_{}, prior_{};
  int64_t updates_ = 0;
  Followers seen_;
  CountStage<8> stage_;
};

}  // namespace pyseq
