#include "randomness/symbol_pass.hpp"

#include <algorithm>
#include <utility>

#include "cpu/parallel.hpp"
#include "randomness/lag_sums.hpp"

namespace pyseq {

namespace {

constexpr int64_t kNever = -1;
constexpr int64_t kTable = 256 * 256;  // pairs of bytes

}  // namespace

SymbolPass::SymbolPass(uint16_t threshold, std::span<const uint8_t> classes)
    : threshold_(threshold),
      histogram_(kAlphabet),
      pairs_(kPairTables * kTable),
      gaps_(kClasses * kGaps),
      narrow_pairs_(kTable) {
  std::copy_n(classes.begin(), kAlphabet, classes_.begin());
  seen_at_.fill(kNever);
}

void SymbolPass::add(std::span<const uint16_t> symbols, int threads) {
  if (symbols.empty()) return;
  using Part = void (SymbolPass::*)(std::span<const uint16_t>);
  // The parts write to members of their own only; the slowest comes first.
  struct Work {
    SymbolPass* pass;
    std::span<const uint16_t> symbols;
    std::array<Part, 5> parts;
  } work{this,
         symbols,
         {&SymbolPass::count_lags, &SymbolPass::count_gaps, &SymbolPass::count_runs,
          &SymbolPass::count_pairs, &SymbolPass::count_symbols}};
  const auto body = [](void* context, int64_t task, int) {
    const auto* given = static_cast<const Work*>(context);
    (given->pass->*given->parts[task])(given->symbols);
  };
  run_tasks(std::ssize(work.parts), threads, body, &work);
  keep_ends(symbols);
  size_ += std::ssize(symbols);
}

void SymbolPass::count_symbols(std::span<const uint16_t> symbols) {
  for (const uint16_t symbol : symbols) ++histogram_[symbol];
}

void SymbolPass::count_pairs(std::span<const uint16_t> symbols) {
  // One table at a time, of narrow counts, stays in the second cache.
  constexpr int64_t kPiece = int64_t{1} << 24;
  std::span<uint32_t> counts(narrow_pairs_);
  uint16_t before = size_ ? last_.back() : symbols.front();
  for (auto left = symbols.subspan(size_ ? 0 : 1); !left.empty();) {
    const auto piece = left.first(std::min<int64_t>(kPiece, std::ssize(left)));
    for (int64_t table = 0; table < kPairTables; ++table) {
      // Which byte of the first symbol, and which of the second.
      const int first = table == 0 || table == 2 ? 8 : 0;
      const int second = table == 0 || table == 3 ? 8 : 0;
      uint32_t row = (before >> first & 0xff) << 8;
      for (const uint16_t symbol : piece) {
        ++counts[row | (symbol >> second & 0xff)];
        row = (symbol >> first & 0xff) << 8;
      }
      int64_t* sums = pairs_.data() + table * kTable;
      for (int64_t pair = 0; pair < kTable; ++pair) sums[pair] += counts[pair];
      std::fill(counts.begin(), counts.end(), 0);
    }
    before = piece.back();
    left = left.subspan(piece.size());
  }
}

void SymbolPass::count_lags(std::span<const uint16_t> symbols) {
  const auto sums = [this](const uint16_t* from, int64_t count, int64_t lags) {
    lag_sums({from, count, lags, products_.data(), equals_.data()});
  };
  // The first symbols of the piece look back into those before it.
  const int64_t head = std::min<int64_t>(kLags, std::ssize(symbols));
  std::array<uint16_t, 2 * kLags> joined;
  std::copy_n(symbols.begin(), head, std::copy(last_.begin(), last_.end(), joined.begin()));
  const int64_t known = std::ssize(last_);
  for (int64_t i = 0; i < head; ++i) {
    sums(joined.data() + known + i, 1, std::min(kLags, known + i));
  }
  sums(symbols.data() + head, std::ssize(symbols) - head, kLags);
}

void SymbolPass::count_runs(std::span<const uint16_t> symbols) {
  int64_t above = 0, runs = 0;
  int64_t run_length = run_length_, equal_length = equal_length_;
  auto longest = longest_;
  bool run_above = run_above_;
  uint16_t previous = previous_;
  if (size_ == 0) {  // no run to go on with
    run_above = symbols.front() <= threshold_;
    previous = static_cast<uint16_t>(~symbols.front());
  }
  for (const uint16_t symbol : symbols) {
    // On unpredictable symbols branches cost more than all of this.
    const bool is_above = symbol > threshold_;
    const bool goes_on = is_above == run_above;
    above += is_above;
    runs += !goes_on;
    run_length = goes_on ? run_length + 1 : 1;
    longest[is_above] = std::max(longest[is_above], run_length);
    run_above = is_above;
    equal_length = symbol == previous ? equal_length + 1 : 1;
    previous = symbol;
    if (equal_length > longest_equal_) {  // hardly ever
      longest_equal_ = equal_length;
      longest_symbol_ = symbol;
    }
  }
  above_ += above;
  runs_ += runs;
  longest_ = longest;
  run_above_ = run_above;
  run_length_ = run_length;
  equal_length_ = equal_length;
  previous_ = previous;
}

void SymbolPass::count_gaps(std::span<const uint16_t> symbols) {
  int64_t at = size_;
  auto seen_at = seen_at_;
  for (const uint16_t symbol : symbols) {
    const int64_t c = classes_[symbol];
    if (seen_at[c] != kNever) ++gaps_[c * kGaps + std::min(at - seen_at[c], kGaps) - 1];
    seen_at[c] = at++;
  }
  seen_at_ = seen_at;
}

void SymbolPass::keep_ends(std::span<const uint16_t> symbols) {
  const int64_t missing = kLags - std::ssize(first_);
  const auto head = symbols.first(std::min<int64_t>(missing, std::ssize(symbols)));
  first_.insert(first_.end(), head.begin(), head.end());
  const auto tail = symbols.last(std::min<int64_t>(kLags, std::ssize(symbols)));
  last_.insert(last_.end(), tail.begin(), tail.end());
  last_.erase(last_.begin(), last_.begin() + std::max<int64_t>(0, std::ssize(last_) - kLags));
}

}  // namespace pyseq
