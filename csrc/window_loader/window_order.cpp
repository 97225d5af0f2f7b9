#include "window_loader/window_order.hpp"

#include <algorithm>
#include <bit>
#include <numeric>

namespace pyseq {

namespace {

uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

uint64_t ones(int bits) { return (uint64_t{1} << bits) - 1; }

}  // namespace

WindowOrder::WindowOrder(int64_t windows, const Keys& keys)
    : shuffles_(true), windows_(static_cast<uint64_t>(windows)), keys_(keys) {
  const int bits = std::max<int>(std::bit_width(windows_ - 1), 2);
  low_bits_ = bits / 2;
  high_mask_ = ones(bits - low_bits_);
  low_mask_ = ones(low_bits_);
}

uint64_t WindowOrder::encrypt(uint64_t x) const {
  uint64_t high = x >> low_bits_;
  uint64_t low = x & low_mask_;
  for (int round = 0; round < kRounds; round += 2) {
    high ^= mix(low ^ keys_[static_cast<size_t>(round)]) & high_mask_;
    low ^= mix(high ^ keys_[static_cast<size_t>(round) + 1]) & low_mask_;
  }
  return (high << low_bits_) | low;
}

void WindowOrder::windows(int64_t first, std::span<int64_t> out) const {
  if (!table_.empty()) {
    std::copy_n(table_.begin() + first, out.size(), out.begin());
    return;
  }
  std::iota(out.begin(), out.end(), first);
  if (!shuffles_) return;
  // In a loop of its own without branches, where the windows' multiplications overlap.
  for (int64_t& window : out) window = static_cast<int64_t>(encrypt(static_cast<uint64_t>(window)));
  for (int64_t& window : out) {
    auto x = static_cast<uint64_t>(window);
    while (x >= windows_) x = encrypt(x);
    window = static_cast<int64_t>(x);
  }
}

}  // namespace pyseq
