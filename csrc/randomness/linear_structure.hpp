// Linear algebra over two elements: how short a linear recurrence makes a sequence of bits, and the
// rank of square matrices of bits.
#pragma once

#include <cstdint>
#include <span>

namespace pyseq {

// Length of the shortest linear feedback shift register that makes the bits (0 or 1 each).
// Source: Massey 1969, Shift-register synthesis and BCH decoding.
int64_t linear_complexity(std::span<const uint8_t> bits);

inline constexpr int64_t kRankSize = 64;

// Rank of a matrix of kRankSize rows, a word each.
int binary_rank(std::span<const uint64_t, kRankSize> rows);

}  // namespace pyseq
