#include "cpu/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace pyseq {

void run_tasks(int64_t tasks, int threads, void (*body)(void* context, int64_t task, int worker),
               void* context) {
  const auto team = static_cast<int>(std::min<int64_t>(threads, tasks));
  if (team <= 1) {  // also keeps forked workers away from the parent's thread pool
    for (int64_t task = 0; task < tasks; ++task) body(context, task, 0);
    return;
  }
#ifdef _OPENMP
#pragma omp parallel for num_threads(team) schedule(dynamic, 1)
  for (int64_t task = 0; task < tasks; ++task) body(context, task, omp_get_thread_num());
#else
  for (int64_t task = 0; task < tasks; ++task) body(context, task, 0);
#endif
}

namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr int64_t kLargestSpare = int64_t{64} << 20;

// A buffer given back, whose first bytes hold its size: the system's new pages take longer to get
// than to fill, and malloc gives so many bytes back. No lock, that a forked process could find
// held.
std::atomic<void*> spare = nullptr;

int64_t size_of_spare(const void* data) {
  int64_t bytes;
  std::memcpy(&bytes, data, sizeof bytes);
  return bytes;
}

bool keep_as_spare(void* data, int64_t bytes) {
  if (bytes < static_cast<int64_t>(kHugePage) || bytes > kLargestSpare) return false;
  std::memcpy(data, &bytes, sizeof bytes);
  std::free(spare.exchange(data));
  return true;
}

// A spare buffer of at least so many bytes, and not many more; or null.
void* take_spare(int64_t bytes) {
  constexpr int64_t kWaste = 8;
  void* found = spare.exchange(nullptr);
  if (found == nullptr) return nullptr;
  const int64_t there = size_of_spare(found);
  if (there >= bytes && there / kWaste <= bytes) return found;
  keep_as_spare(found, there);
  return nullptr;
}

}  // namespace

void wish_huge_pages(void* data, int64_t bytes) {
#ifdef __linux__
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t last = (begin + static_cast<uintptr_t>(bytes)) / kHugePage * kHugePage;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)data;
  (void)bytes;
#endif
}

Buffer::Buffer(int64_t bytes) : data_(take_spare(bytes)) {
  if (data_ != nullptr) {
    bytes_ = size_of_spare(data_);
    return;
  }
  constexpr size_t kLine = 64;
  const auto wanted = static_cast<size_t>(std::max<int64_t>(bytes, 1));
  const size_t alignment = wanted >= kHugePage ? kHugePage : kLine;
  const size_t rounded = (wanted + alignment - 1) / alignment * alignment;
  data_ = std::aligned_alloc(alignment, rounded);
  if (data_ == nullptr) throw std::bad_alloc();
  bytes_ = static_cast<int64_t>(rounded);
  wish_huge_pages(data_, bytes_);
}

Buffer::~Buffer() {
  if (!keep_as_spare(data_, bytes_)) std::free(data_);
}

}  // namespace pyseq
