#include "gather_windows/resident_bound.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace pyseq {

namespace {

// Of all files that this process maps; 0 where the system does not say.
int64_t resident_bytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "re");
  if (file == nullptr) return 0;
  long long shared = 0;
  const bool told = std::fscanf(file, "%*s %*s %lld", &shared) == 1;
  std::fclose(file);
  return told ? shared * sysconf(_SC_PAGESIZE) : 0;
}

}  // namespace

ResidentBound::ResidentBound(const std::vector<Range>& mapped, int64_t most_bytes)
    : most_bytes_(most_bytes) {
  int64_t whole = 0;
  for (const Range& range : mapped) whole += static_cast<int64_t>(range.size_bytes());
  reachable_ = whole > most_bytes;
  if (!reachable_) return;
  others_ = resident_bytes();
  for (const Range& range : mapped) {
    const auto first = reinterpret_cast<uintptr_t>(range.data());
    const uintptr_t begin = first / kBlockBytes * kBlockBytes;
    const auto bytes = static_cast<int64_t>(first + range.size_bytes() - begin);
    const int64_t blocks = (bytes + kBlockBytes - 1) / kBlockBytes;
    const int64_t words = (blocks + kBitsPerWord - 1) / kBitsPerWord;
    ranges_.push_back(
        {.mapped = first,
         .begin = begin,
         .bytes = bytes,
         .touched = std::make_unique<std::atomic<uint64_t>[]>(static_cast<size_t>(words)),
         .words = range.empty() ? 0 : words});
  }
}

void ResidentBound::touch(size_t range, const uint16_t* from, int64_t length) {
  if (!reachable_) return;
  Blocks& blocks = ranges_[range];
  const auto first = static_cast<int64_t>(reinterpret_cast<uintptr_t>(from) - blocks.begin);
  const int64_t last = (first + length * int64_t{sizeof(uint16_t)} - 1) / kBlockBytes;
  for (int64_t block = first / kBlockBytes; block <= last; ++block) {
    std::atomic<uint64_t>& word = blocks.touched[static_cast<size_t>(block / kBitsPerWord)];
    const uint64_t bit = uint64_t{1} << (block % kBitsPerWord);
    if ((word.load(std::memory_order_relaxed) & bit) != 0) continue;
    if ((word.fetch_or(bit, std::memory_order_relaxed) & bit) == 0) {
      touched_.fetch_add(1, std::memory_order_relaxed);
    }
  }
}

void ResidentBound::keep() {
  int64_t looked_at = looked_at_.load();  // first: both go back to zero, this one last
  const int64_t touched = touched_.load();
  if (touched - looked_at < kBlocksPerLook) return;
  if (!looked_at_.compare_exchange_strong(looked_at, touched)) return;  // another thread looks
  if (resident_bytes() - others_ <= most_bytes_) return;
  let_go();
  // What is left belongs to others, or was read meanwhile by other threads; only if it is much do
  // we believe that there is more of others than before.
  const int64_t left = resident_bytes();
  others_ = left < others_ ? left : std::max<int64_t>(others_, left - most_bytes_ / 2);
}

void ResidentBound::let_go() {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  touched_ = 0;
  looked_at_ = 0;
  for (Blocks& blocks : ranges_) {
    if (blocks.words == 0) continue;
    for (int64_t word = 0; word < blocks.words; ++word) {
      blocks.touched[static_cast<size_t>(word)].store(0, std::memory_order_relaxed);
    }
    const uintptr_t begin = blocks.mapped / page * page;
    const uintptr_t end = blocks.begin + static_cast<uintptr_t>(blocks.bytes);
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
}

}  // namespace pyseq
