// Where 16-bit symbols lie: in memory (a tensor, a mapped file) or behind a file descriptor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pyseq {

// A run of consecutive symbols. Exactly one of `memory` and `descriptor` is set.
struct Segment {
  const uint16_t* memory = nullptr;
  int descriptor = -1;
  int64_t byte_offset = 0;  // of the first symbol in the file behind `descriptor`
  int64_t count = 0;        // symbols
};

// Segments laid end to end and addressed as one long stream. Owns nothing: whoever builds it keeps
// the memory mapped and the descriptors open for as long as it lives.
class SymbolSource {
 public:
  explicit SymbolSource(std::vector<Segment> segments);

  int64_t size() const { return starts_.back(); }

  // Copies symbols [first, first + out.size()) to `out`; the range must lie inside the stream.
  // Throws std::runtime_error when a file turns out shorter than it was.
  void read(int64_t first, std::span<uint16_t> out) const;

  // The symbols in place when they lie in one memory segment, else nullptr.
  const uint16_t* in_place(int64_t first, int64_t length) const;

  // Starts to load the symbols from `first` on, if they lie in memory; never faults.
  void prefetch(int64_t first) const;

 private:
  size_t segment_of(int64_t symbol) const;

  std::vector<Segment> segments_;
  std::vector<int64_t> starts_;  // first symbol of each segment, then the total
};

}  // namespace pyseq
