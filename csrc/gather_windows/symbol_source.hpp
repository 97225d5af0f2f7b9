// Where 16-bit symbols lie: in memory (a tensor), in a mapped file, or behind a file descriptor.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "gather_windows/resident_bound.hpp"

namespace pyseq {

// A run of consecutive symbols: in memory, in a file, or, if it is mapped, in both.
struct Segment {
  const uint16_t* memory = nullptr;
  int descriptor = -1;
  int64_t byte_offset = 0;  // of the first symbol in the file behind `descriptor`
  int64_t count = 0;        // symbols

  bool mapped() const { return memory != nullptr && descriptor >= 0; }
};

// Segments laid end to end and addressed as one long stream. Owns nothing: whoever builds it keeps
// the memory mapped and the descriptors open for as long as it lives. Any number of threads may
// read at once.
class SymbolSource {
 public:
  // Mapped files are let go whenever more than about `most_resident` bytes of them are resident.
  explicit SymbolSource(std::vector<Segment> segments, int64_t most_resident = INT64_MAX);

  int64_t size() const { return starts_.back(); }

  // Copies symbols [first, first + out.size()) to `out`; the range must lie inside the stream.
  // Throws std::runtime_error when a file turns out shorter than it was.
  void read(int64_t first, std::span<uint16_t> out) const;

  // The symbols in place when they lie in one memory segment, else nullptr.
  const uint16_t* in_place(int64_t first, int64_t length) const;

  // Whether windows like those that begin with `symbols`, a few, had better be asked for: one of
  // them is in a file and not in the system's cache, or one of the last calls' was.
  bool worth_asking(std::span<const int64_t> symbols) const;

  // Asks the system to load windows of files, and waits for nothing but a full queue of the disk.
  void ask_for(std::span<const int64_t> offsets, int64_t length) const;

  // Throws std::runtime_error if a file that holds one of the windows is shorter than it was. A
  // mapped page beyond a file's end faults, but what a file lost of its last page reads as zeros.
  void require_whole(std::span<const int64_t> offsets, int64_t length) const;

  // Keeps to `most_resident`; called now and then by whoever reads.
  void keep_bound() const { resident_->keep(); }

 private:
  size_t segment_of(int64_t symbol) const;
  // Calls body(segment, first symbol in it, count) for each part of a window.
  template <typename Body>
  void for_parts(int64_t first, int64_t length, const Body& body) const;
  bool cached(int64_t symbol) const;

  std::vector<Segment> segments_;
  std::vector<int64_t> starts_;  // first symbol of each segment, then the total
  std::unique_ptr<ResidentBound> resident_;
  bool in_files_ = false;
  std::unique_ptr<std::atomic<int>> calls_to_ask_;  // whatever the cache holds
};

}  // namespace pyseq
