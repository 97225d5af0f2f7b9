#include "gather_windows/symbol_source.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace pyseq {

namespace {

void read_file(const Segment& segment, int64_t first, std::span<uint16_t> out) {
  auto* to = reinterpret_cast<char*>(out.data());
  int64_t left = static_cast<int64_t>(out.size_bytes());
  int64_t from = segment.byte_offset + first * static_cast<int64_t>(sizeof(uint16_t));
  while (left > 0) {
    const ssize_t got = ::pread(segment.descriptor, to, static_cast<size_t>(left), from);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw std::runtime_error(std::string("read failed: ") + std::strerror(errno));
    if (got == 0) throw std::runtime_error("the file is shorter than when it was opened");
    to += got;
    from += got;
    left -= got;
  }
}

}  // namespace

SymbolSource::SymbolSource(std::vector<Segment> segments) : segments_(std::move(segments)) {
  starts_.reserve(segments_.size() + 1);
  starts_.push_back(0);
  for (const Segment& segment : segments_) starts_.push_back(starts_.back() + segment.count);
}

size_t SymbolSource::segment_of(int64_t symbol) const {
  const auto after = std::upper_bound(starts_.begin(), starts_.end(), symbol);
  return static_cast<size_t>(after - starts_.begin()) - 1;
}

const uint16_t* SymbolSource::in_place(int64_t first, int64_t length) const {
  const size_t index = segment_of(first);
  const bool whole = first + length <= starts_[index + 1];
  const Segment& segment = segments_[index];
  return whole && segment.memory != nullptr ? segment.memory + (first - starts_[index]) : nullptr;
}

void SymbolSource::prefetch(int64_t first) const {
  constexpr int64_t kSymbolsPerLine = 32;  // 64-byte cache lines
  constexpr int64_t kLines = 4;            // the hardware goes on from there
  const size_t index = segment_of(first);
  const uint16_t* memory = segments_[index].memory;
  if (memory == nullptr) return;
  for (int64_t line = 0; line < kLines; ++line) {
    __builtin_prefetch(memory + (first - starts_[index]) + line * kSymbolsPerLine);
  }
}

void SymbolSource::read(int64_t first, std::span<uint16_t> out) const {
  while (!out.empty()) {
    const size_t index = segment_of(first);
    const Segment& segment = segments_[index];
    const int64_t inside = first - starts_[index];
    const auto here = static_cast<size_t>(
        std::min<int64_t>(segment.count - inside, static_cast<int64_t>(out.size())));
    if (segment.memory != nullptr) {
      std::copy_n(segment.memory + inside, here, out.data());
    } else {
      read_file(segment, inside, out.first(here));
    }
    first += static_cast<int64_t>(here);
    out = out.subspan(here);
  }
}

}  // namespace pyseq
