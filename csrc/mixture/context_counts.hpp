// What follows each of a few contexts, counted in full.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mixture/count_stage.hpp"

namespace pyseq {

// One table for one kind of context, say the value at a lag; contexts are 0..C-1. The stage is a
// CountStage or a FixedBlend.
template <typename Stage>
class ContextCounts {
 public:
  ContextCounts(size_t contexts, uint32_t alphabet, const Stage& stage)
      : alphabet_(alphabet), counts_(contexts * alphabet), followers_(contexts), stage_(stage) {}

  // The context of the symbol to come. Until there is one, `lower` is passed on.
  void prepare(size_t context) {
    context_ = context;
    ready_ = true;
    stage_.prepare(followers_[context]);
  }
  double probability(uint32_t symbol, double lower) const {
    return ready_ ? stage_.probability(counts_[place(symbol)], lower) : lower;
  }
  Guess guess(const Guess& lower) const {
    return ready_ ? stage_.guess(followers_[context_], lower) : lower;
  }
  void update(uint32_t symbol, double lower, double mixed) {
    if (!ready_) return;
    uint32_t& count = counts_[place(symbol)];
    stage_.update(count, lower, mixed);
    followers_[context_].add(static_cast<uint16_t>(symbol), ++count);
  }

 private:
  size_t place(uint32_t symbol) const { return context_ * alphabet_ + symbol; }

  uint32_t alphabet_;
  std::vector<uint32_t> counts_;  // (context, symbol)
  std::vector<Followers> followers_;
  Stage stage_;
  size_t context_ = 0;
  bool ready_ = false;
};

}  // namespace pyseq
