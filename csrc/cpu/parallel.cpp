#include "cpu/parallel.hpp"

#include <algorithm>
#include <cstdlib>
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

Buffer::Buffer(int64_t bytes) {
  constexpr size_t kLine = 64;
  const auto wanted = static_cast<size_t>(std::max<int64_t>(bytes, 1));
  const size_t alignment = wanted >= kHugePage ? kHugePage : kLine;
  const size_t rounded = (wanted + alignment - 1) / alignment * alignment;
  data_ = std::aligned_alloc(alignment, rounded);
  if (data_ == nullptr) throw std::bad_alloc();
  wish_huge_pages(data_, static_cast<int64_t>(rounded));
}

Buffer::~Buffer() { std::free(data_); }

}  // namespace pyseq
