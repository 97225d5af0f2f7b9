// The symbols that came, as far back as anything looks.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace pyseq {

// The last 2^24 symbols; memory grows with them.
class History {
 public:
  static constexpr size_t kMost = size_t{1} << 24;

  int64_t size() const { return size_; }
  // The first symbol that is still there.
  int64_t first() const { return std::max<int64_t>(0, size_ - static_cast<int64_t>(kMost)); }
  uint16_t operator[](int64_t place) const { return ring_[place & mask_]; }
  uint16_t back(int64_t lag) const { return (*this)[size_ - lag]; }

  void push(uint16_t symbol) {
    if (static_cast<size_t>(size_) == ring_.size() && ring_.size() < kMost) {
      ring_.resize(ring_.size() * 2);
      mask_ = static_cast<int64_t>(ring_.size()) - 1;
    }
    ring_[size_++ & mask_] = symbol;
  }

 private:
  std::vector<uint16_t> ring_ = std::vector<uint16_t>(1024);
  int64_t mask_ = 1023;
  int64_t size_ = 0;
};

}  // namespace pyseq
