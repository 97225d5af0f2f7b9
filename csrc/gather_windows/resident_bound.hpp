// A bound on how much of mapped files counts as this process's memory.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace pyseq {

// Only the system knows what is resident: a page fault maps 64 KiB around it, or 2 MiB where the
// file's pages are that large, and asking takes longer than a fault. So parts of files that are
// read for the first time are counted, and the system is asked after some of them. Any number of
// threads may call.
class ResidentBound {
 public:
  using Range = std::span<const uint16_t>;

  // `mapped` may have empty ranges. Whatever else of files is resident now is not counted.
  ResidentBound(const std::vector<Range>& mapped, int64_t most_bytes);

  // Says that `length` symbols of range number `range` are about to be read.
  void touch(size_t range, const uint16_t* from, int64_t length);

  // Lets go of the files if more than the bound is resident: the system's cache keeps what it
  // likes, and the next read maps it again.
  void keep();

 private:
  static constexpr int64_t kBlockBytes = 1 << 16;
  static constexpr int64_t kBitsPerWord = 64;
  static constexpr int64_t kBlocksPerLook = 64;

  struct Blocks {
    uintptr_t mapped;  // where the range begins, inside of the first block
    uintptr_t begin;   // of the first block
    int64_t bytes;     // from there to the end of the range
    std::unique_ptr<std::atomic<uint64_t>[]> touched;
    int64_t words;
  };

  void let_go();

  std::vector<Blocks> ranges_;
  int64_t most_bytes_;
  bool reachable_ = false;              // whether so much is mapped
  std::atomic<int64_t> touched_ = 0;    // blocks
  std::atomic<int64_t> looked_at_ = 0;  // of those, when the system was asked last
  std::atomic<int64_t> others_ = 0;     // bytes of other files
};

}  // namespace pyseq
