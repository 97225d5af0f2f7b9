// The most common symbol of four sliding windows; the window that was right most often is heard.
#include <array>
#include <vector>

#include "predictors/predictor.hpp"

namespace pyseq::predictors {

namespace {

constexpr std::array<int64_t, 4> kLengths = {63, 255, 1023, 4095};

// The most common of the last `length` symbols; among equals the one seen last.
class SlidingMode {
 public:
  SlidingMode(Symbols symbols, int64_t alphabet, int64_t length)
      : symbols_(symbols), length_(length), counts_(alphabet), symbols_with_(length + 2) {}

  uint16_t mode() const { return mode_; }

  void take_in(int64_t position) {
    const uint16_t in = symbols_[position];
    bool lost = false;  // the mode has lost an occurrence
    if (position >= length_) {
      const uint16_t out = symbols_[position - length_];
      lost = out == mode_;
      drop(out);
    }
    add(in);
    if (counts_[in] >= most_) {
      most_ = counts_[in];
      mode_ = in;
    } else if (lost) {
      find_mode(position);
    }
  }

 private:
  void drop(uint16_t symbol) {
    const int64_t before = counts_[symbol]--;
    --symbols_with_[before];
    ++symbols_with_[before - 1];
    if (before == most_ && symbols_with_[before] == 0) --most_;
  }

  void add(uint16_t symbol) {
    const int64_t before = counts_[symbol]++;
    --symbols_with_[before];
    ++symbols_with_[before + 1];
  }

  // From the newest symbol back. A symbol that occurs m times goes out, and makes this search, at
  // most m times in `length` steps, and is found within some length / m symbols unless the stream
  // is built against it: constant time per step on the whole, `length` at worst.
  void find_mode(int64_t position) {
    if (counts_[mode_] == most_ && symbols_with_[most_] == 1) return;
    while (counts_[symbols_[position]] != most_) --position;
    mode_ = symbols_[position];
  }

  Symbols symbols_;
  int64_t length_;
  std::vector<uint16_t> counts_;       // of each symbol in the window
  std::vector<int64_t> symbols_with_;  // how many symbols have each count; [0] is meaningless
  int64_t most_ = 0;
  uint16_t mode_ = 0;
};

class MultiMcw final : public Predictor {
 public:
  MultiMcw(Symbols symbols, int64_t alphabet) : Predictor(symbols, kLengths[0]) {
    for (const int64_t length : kLengths) windows_.emplace_back(symbols, alphabet, length);
    for (int64_t position = 0; position < kLengths[0]; ++position) take_in(position);
  }

 private:
  void guess(int64_t begin, int64_t end) override {
    for (int64_t position = begin; position < end; ++position) {
      const uint16_t symbol = symbols_[position];
      count(windows_[winner_].mode() == symbol);
      for (size_t window = 0; window < kLengths.size(); ++window) {
        if (position < kLengths[window] || windows_[window].mode() != symbol) continue;
        if (++right_[window] >= right_[winner_]) winner_ = window;
      }
      take_in(position);
    }
  }

  void take_in(int64_t position) {
    for (SlidingMode& window : windows_) window.take_in(position);
  }

  std::vector<SlidingMode> windows_;
  std::array<int64_t, kLengths.size()> right_{};
  size_t winner_ = 0;
};

}  // namespace

std::unique_ptr<Predictor> multi_mcw(Symbols symbols, int64_t alphabet) {
  return std::make_unique<MultiMcw>(symbols, alphabet);
}

}  // namespace pyseq::predictors
