// Work shared by threads, and memory for it.
#pragma once

#include <stdint.h>

namespace pyseq {

// Calls body(context, task, worker) once for every task, on at most `threads` threads; worker
// counts them. Tasks are begun in order. A body must not throw.
void run_tasks(int64_t tasks, int threads, void (*body)(void* context, int64_t task, int worker),
               void* context);

// Asks for pages of 2 MiB in memory that nobody has touched yet, where page faults would cost as
// much as the work. Does nothing where there are few bytes.
void wish_huge_pages(void* data, int64_t bytes);

// Bytes aligned to cache lines (pages of 2 MiB where there are many of them), not initialised. Of
// those given back one is kept for the next call.
class Buffer {
 public:
  explicit Buffer(int64_t bytes);  // throws std::bad_alloc
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  template <typename T>
  T* as(int64_t byte_offset = 0) const {
    return reinterpret_cast<T*>(static_cast<char*>(data_) + byte_offset);
  }

 private:
  void* data_;
  int64_t bytes_;  // at least those asked for
};

}  // namespace pyseq
