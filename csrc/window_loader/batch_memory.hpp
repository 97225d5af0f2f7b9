// Memory for batches of one size, used again once nobody looks at a batch any more.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

namespace pyseq {

// The pages of new memory cost more to make than the windows to copy, so that of freed batches is
// kept. It must outlive what it gave out; any thread may call.
class BatchMemory {
 public:
  // Keeps at most `most_kept` freed batches of `bytes` each.
  BatchMemory(int64_t bytes, int64_t most_kept) : bytes_(bytes), most_kept_(most_kept) {}
  ~BatchMemory();
  BatchMemory(const BatchMemory&) = delete;
  BatchMemory& operator=(const BatchMemory&) = delete;

  void* take();  // throws std::bad_alloc
  void give_back(void* memory) noexcept;

  // From now on, and of what is kept already.
  void keep_none() noexcept;

 private:
  const int64_t bytes_;
  int64_t most_kept_;
  std::mutex mutex_;
  std::vector<void*> kept_;
};

}  // namespace pyseq
