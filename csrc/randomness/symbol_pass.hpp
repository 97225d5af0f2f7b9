// What the tests of randomness ask of every symbol of a stream, gathered in one pass.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace pyseq {

class SymbolPass {
 public:
  static constexpr int64_t kAlphabet = 65'536;
  static constexpr int64_t kLags = 64;
  static constexpr int64_t kClasses = 16;  // of symbols, whose gaps are counted
  static constexpr int64_t kGaps = 512;    // gaps of that many symbols and more share a count
  // Pairs of bytes of neighbours: high and high, low and low, high and low, low and high.
  static constexpr int64_t kPairTables = 4;

  // Symbols above `threshold` are "above"; classes (kAlphabet,) gives each symbol's class.
  SymbolPass(uint16_t threshold, std::span<const uint8_t> classes);

  // The next symbols of the stream, in pieces of any size; in up to five threads. One caller at a
  // time.
  void add(std::span<const uint16_t> symbols, int threads);

  int64_t size() const { return size_; }
  std::span<const int64_t> histogram() const { return histogram_; }  // (kAlphabet,)
  std::span<const int64_t> pairs() const { return pairs_; }          // (kPairTables, 256, 256)
  std::span<const int64_t> gaps() const { return gaps_; }            // (kClasses, kGaps); [g - 1]
  std::span<const int64_t> products() const { return products_; }    // (kLags,), see LagSums
  std::span<const int64_t> equals() const { return equals_; }        // (kLags,)
  std::span<const uint16_t> first() const { return first_; }         // up to kLags symbols
  std::span<const uint16_t> last() const { return last_; }
  int64_t above() const { return above_; }
  int64_t runs() const { return runs_; }  // maximal stretches above or not above
  int64_t longest_above() const { return longest_[1]; }
  int64_t longest_not_above() const { return longest_[0]; }
  int64_t longest_equal() const { return longest_equal_; }  // of one and the same symbol
  uint16_t longest_symbol() const { return longest_symbol_; }

 private:
  void count_symbols(std::span<const uint16_t> symbols);
  void count_pairs(std::span<const uint16_t> symbols);
  void count_lags(std::span<const uint16_t> symbols);
  void count_gaps(std::span<const uint16_t> symbols);
  void count_runs(std::span<const uint16_t> symbols);
  void keep_ends(std::span<const uint16_t> symbols);

  uint16_t threshold_;
  std::array<uint8_t, kAlphabet> classes_;
  int64_t size_ = 0;
  std::vector<int64_t> histogram_, pairs_, gaps_;
  std::vector<uint32_t> narrow_pairs_;  // of a piece; the threads allocate nothing
  std::array<int64_t, kLags> products_{}, equals_{};
  std::vector<uint16_t> first_, last_;
  std::array<int64_t, kClasses> seen_at_;
  int64_t above_ = 0, runs_ = 0, run_length_ = 0, equal_length_ = 0, longest_equal_ = 0;
  std::array<int64_t, 2> longest_{};
  bool run_above_ = false;
  uint16_t previous_ = 0, longest_symbol_ = 0;
};

}  // namespace pyseq
