#include "window_loader/batch_memory.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>

#include "cpu/parallel.hpp"

namespace pyseq {

BatchMemory::~BatchMemory() { keep_none(); }

void BatchMemory::keep_none() noexcept {
  const std::lock_guard lock(mutex_);
  most_kept_ = 0;
  for (void* memory : kept_) std::free(memory);
  kept_.clear();
}

void* BatchMemory::take() {
  constexpr int64_t kHugePage = int64_t{2} << 20;
  constexpr int64_t kLine = 64;
  {
    const std::lock_guard lock(mutex_);
    if (!kept_.empty()) {
      void* memory = kept_.back();
      kept_.pop_back();
      return memory;
    }
    kept_.reserve(static_cast<size_t>(most_kept_));  // so that giving back cannot throw
  }
  const int64_t alignment = bytes_ >= kHugePage ? kHugePage : kLine;
  const auto bytes = static_cast<size_t>(std::max<int64_t>(bytes_, 1));
  void* memory = nullptr;
  if (posix_memalign(&memory, static_cast<size_t>(alignment), bytes) != 0) throw std::bad_alloc();
  wish_huge_pages(memory, bytes_);
  return memory;
}

void BatchMemory::give_back(void* memory) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (static_cast<int64_t>(kept_.size()) < most_kept_) {
      kept_.push_back(memory);
      return;
    }
  }
  std::free(memory);
}

}  // namespace pyseq
