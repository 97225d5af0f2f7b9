// The order of windows in an epoch; pyseq/data/order.py says what it is and keeps it short.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace pyseq {

class WindowOrder {
 public:
  static constexpr int kRounds = 8;
  using Keys = std::array<uint64_t, kRounds>;

  // 0, 1, 2, ...
  WindowOrder() = default;
  // As the table says; for few windows.
  explicit WindowOrder(std::vector<int64_t> table) : table_(std::move(table)) {}
  // A keyed permutation of 0..windows-1, windows at least 1.
  WindowOrder(int64_t windows, const Keys& keys);

  // How many places there are.
  int64_t size() const {
    if (!table_.empty()) return static_cast<int64_t>(table_.size());
    return shuffles_ ? static_cast<int64_t>(windows_) : INT64_MAX;
  }

  // The windows at places first, first + 1, ... of the epoch; the places must exist.
  void windows(int64_t first, std::span<int64_t> out) const;

 private:
  uint64_t encrypt(uint64_t x) const;

  std::vector<int64_t> table_;
  bool shuffles_ = false;
  uint64_t windows_ = 0;
  Keys keys_{};
  int low_bits_ = 0;
  uint64_t high_mask_ = 0;
  uint64_t low_mask_ = 0;
};

}  // namespace pyseq
