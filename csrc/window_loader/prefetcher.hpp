// Batches of windows, gathered ahead of whoever takes them by threads of their own.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "gather_windows/gather_windows.hpp"
#include "gather_windows/symbol_source.hpp"
#include "window_loader/window_order.hpp"

namespace pyseq {

// Which windows the batches of an epoch have: those at places `place`, `place` + 1, ... of the
// order for the first, `step` places later for the second, and so on.
struct Batches {
  int64_t place;
  int64_t step;
  int64_t share;   // windows of a batch
  int64_t count;   // batches, from the first
  int64_t length;  // symbols of a window
  int64_t stride;  // symbols between neighbouring windows
  int64_t start;   // first symbol of window 0
  SymbolType type;
};

// Batches are submitted, gathered and taken in their order. One thread at a time may call.
class Prefetcher {
 public:
  // The source must live as long as this. The system is asked for the windows of `asked_ahead`
  // batches before they are gathered, if they are not in its cache.
  Prefetcher(const SymbolSource& source, WindowOrder order, const Batches& batches, int threads,
             int64_t asked_ahead);
  // Waits for what is being gathered. In a forked child, which has no such threads, does nothing.
  ~Prefetcher();
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  // Begins to gather the next batch: `share` offsets and as many windows. Both stay with the
  // caller, and must live until the batch is taken or this has stopped.
  void submit(int64_t* offsets, void* windows);

  // Waits for the oldest batch that was submitted and gathers with the threads meanwhile. Throws
  // what gathering it threw, or std::logic_error if there is none or this has stopped.
  void take();

  // Ends the threads; what was not taken is unspecified.
  void stop();

 private:
  struct Batch {
    int64_t number;
    int64_t* offsets;
    void* windows;
    int64_t begun = 0;  // parts
    int64_t done = 0;
    std::exception_ptr error = nullptr;
  };
  struct Task {
    Batch* batch;    // null: to ask for a batch
    int64_t number;  // of the part, or of the batch to ask for
  };
  struct Shared {
    std::mutex mutex;
    std::condition_variable work;
    std::condition_variable done;
    std::deque<std::unique_ptr<Batch>> batches;  // submitted and not taken, oldest first
    std::deque<Batch*> waiting;                  // those of which parts were not begun
    int64_t submitted = 0;
    int64_t asked = 0;
    bool stopped = false;
    std::vector<std::thread> threads;
  };
  using Lock = std::unique_lock<std::mutex>;

  void work();
  bool next(Task& task);                   // under the lock; false: there is nothing to do
  void run(const Task& task, Lock& lock);  // lets go of the lock meanwhile
  void ask_for(int64_t batch) const;
  void gather(const Batch& batch, int64_t part) const;
  void offsets(int64_t batch, int64_t first, std::span<int64_t> out) const;

  const SymbolSource& source_;
  const WindowOrder order_;
  const Batches batches_;
  const int64_t parts_;  // of a batch
  const int64_t asked_ahead_;
  const int process_;
  std::unique_ptr<Shared> shared_;  // what a forked child leaves as it is, locked or not
};

}  // namespace pyseq
