#include "randomness/linear_structure.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>
#include <vector>

namespace pyseq {

namespace {

constexpr int64_t kWordBits = 64;

// to ^= from << shift, over the first `words` words of `to`; `from` has as many.
void add_shifted(std::vector<uint64_t>& to, const std::vector<uint64_t>& from, int64_t shift,
                 int64_t words) {
  const int64_t skip = shift / kWordBits;
  const int64_t bits = shift % kWordBits;
  if (bits == 0) {
    for (int64_t i = skip; i < words; ++i) to[i] ^= from[i - skip];
    return;
  }
  if (skip < words) to[skip] ^= from[0] << bits;
  for (int64_t i = skip + 1; i < words; ++i) {
    to[i] ^= from[i - skip] << bits | from[i - skip - 1] >> (kWordBits - bits);
  }
}

}  // namespace

int64_t linear_complexity(std::span<const uint8_t> bits) {
  const auto size = std::ssize(bits);
  const int64_t words = size / kWordBits + 2;
  // The sequence backwards: what the polynomial meets at step n begins at bit size - 1 - n.
  std::vector<uint64_t> backwards(words + 1);
  for (int64_t t = 0; t < size; ++t) {
    const int64_t at = size - 1 - t;
    backwards[at / kWordBits] |= uint64_t{bits[t] != 0} << at % kWordBits;
  }
  std::vector<uint64_t> connection(words), before(words), kept(words);
  connection[0] = before[0] = 1;
  int64_t length = 0;
  int64_t since = 1;  // steps since the length last grew, and one
  for (int64_t n = 0; n < size; ++n) {
    const int64_t at = size - 1 - n;
    const uint64_t* window = backwards.data() + at / kWordBits;
    const int64_t shift = at % kWordBits;
    const int64_t used =
        length / kWordBits + 1;  // words that hold the polynomial's length + 1 bits
    uint64_t met = 0;
    if (shift == 0) {
      for (int64_t i = 0; i < used; ++i) met ^= connection[i] & window[i];
    } else {
      for (int64_t i = 0; i < used; ++i) {
        met ^= connection[i] & (window[i] >> shift | window[i + 1] << (kWordBits - shift));
      }
    }
    if (std::popcount(met) % 2 == 0) {
      ++since;
      continue;
    }
    const bool grows = 2 * length <= n;
    const int64_t next = grows ? n + 1 - length : length;
    if (grows) std::copy_n(connection.begin(), used, kept.begin());
    add_shifted(connection, before, since, next / kWordBits + 1);
    if (grows) {
      std::swap(before, kept);
      std::fill(before.begin() + used, before.end(), 0);
      length = next;
      since = 1;
    } else {
      ++since;
    }
  }
  return length;
}

int binary_rank(std::span<const uint64_t, kRankSize> given) {
  std::array<uint64_t, kRankSize> rows;
  std::copy(given.begin(), given.end(), rows.begin());
  int rank = 0;
  for (int64_t column = 0; column < kRankSize; ++column) {
    const uint64_t bit = uint64_t{1} << column;
    int64_t pivot = rank;
    while (pivot < kRankSize && !(rows[pivot] & bit)) ++pivot;
    if (pivot == kRankSize) continue;
    std::swap(rows[rank], rows[pivot]);
    for (int64_t row = rank + 1; row < kRankSize; ++row) {
      if (rows[row] & bit) rows[row] ^= rows[rank];
    }
    ++rank;
  }
  return rank;
}

}  // namespace pyseq
