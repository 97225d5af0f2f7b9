// Dropout as a pure function of a seed and of where an element stands, the same numbers under every
// instruction set; pyseq/ops/dropout.py specifies it.
#pragma once

#include "cpu/vector.hpp"

namespace pyseq::PYSEQ_ISA {

// A key for what has this index below what `key` stands for: the finaliser of SplitMix64.
constexpr uint64_t key_below(uint64_t key, int64_t index) {
  uint64_t z = key + static_cast<uint64_t>(index + 1) * 0x9e3779b97f4a7c15U;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
  z = (z ^ z >> 27) * 0x94d049bb133111ebU;
  return z ^ z >> 31;
}

// Elements of a row in blocks of 32: elements j and j + 16 of a block are drawn from the halves of
// the same word, so that a vector of words makes two vectors of draws without a permutation.
inline constexpr int64_t kDropoutBlock = 32;
inline constexpr int64_t kDropoutWords = kDropoutBlock / 2;

// Which elements of a row are kept, and what those are multiplied with.
class DropoutRow {
 public:
  DropoutRow() = default;

  // `dropped` of 65536 draws.
  DropoutRow(uint64_t key, int32_t dropped)
      : before_(static_cast<uint32_t>(key)),
        between_(static_cast<uint32_t>(key >> 32)),
        dropped_(dropped),
        factor_(factor_of(dropped)) {}

  static constexpr float factor_of(int32_t dropped) {
    return 65536.0F / static_cast<float>(65536 - dropped);
  }

  // Words `first` to first + kLanes - 1: a hash of 32 bits with half of the key before it and half
  // between its two rounds, or rows whose keys lie close together would share stretches of words.
  PYSEQ_INLINE Words words(int64_t first) const {
    Words x = (Words)(lanes() + static_cast<int32_t>(first)) + before_;
    x = (x ^ x >> 16) * 0x7feb352dU;
    x ^= between_;
    x = (x ^ x >> 15) * 0x846ca68bU;
    return x ^ x >> 16;
  }

  // What the elements that words belong to are multiplied with, by half: 0 or the factor.
  PYSEQ_INLINE Floats factors(Words words, int half) const {
    const Ints draw = (Ints)(half == 0 ? words & 0xffff : words >> 16);
    return (Floats)((Ints)broadcast(factor_) & (draw >= dropped_));
  }

 private:
  uint32_t before_ = 0;
  uint32_t between_ = 0;
  int32_t dropped_ = 0;
  float factor_ = 1;
};

}  // namespace pyseq::PYSEQ_ISA
