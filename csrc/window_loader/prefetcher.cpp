#include "window_loader/prefetcher.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace pyseq {

Prefetcher::Prefetcher(const SymbolSource& source, WindowOrder order, const Batches& batches,
                       int threads, int64_t asked_ahead)
    : source_(source),
      order_(std::move(order)),
      batches_(batches),
      parts_(useful_parts(batches.share, batches.length)),
      asked_ahead_(asked_ahead),
      process_(getpid()),
      shared_(std::make_unique<Shared>()) {
  try {
    for (int i = 0; i < threads; ++i) shared_->threads.emplace_back([this] { work(); });
  } catch (const std::system_error&) {
    // The system has no more of them; whoever takes a batch gathers too, and is enough.
  }
}

Prefetcher::~Prefetcher() {
  if (getpid() == process_) {
    stop();
  } else {
    static_cast<void>(shared_.release());  // no thread of ours is here to be waited for
  }
}

void Prefetcher::submit(int64_t* offsets, void* windows) {
  const Lock lock(shared_->mutex);
  if (shared_->submitted == batches_.count) throw std::logic_error("all batches were submitted");
  shared_->batches.push_back(std::make_unique<Batch>(
      Batch{.number = shared_->submitted++, .offsets = offsets, .windows = windows}));
  shared_->waiting.push_back(shared_->batches.back().get());
  parts_ == 1 ? shared_->work.notify_one() : shared_->work.notify_all();
}

void Prefetcher::take() {
  Lock lock(shared_->mutex);
  if (shared_->batches.empty()) throw std::logic_error("no batch was submitted");
  const Batch* oldest = shared_->batches.front().get();
  while (oldest->done < parts_) {
    Task task;
    if (shared_->stopped) throw std::logic_error("the prefetcher was stopped");
    if (next(task)) {
      run(task, lock);
    } else {
      shared_->done.wait(lock);
    }
  }
  const std::unique_ptr<Batch> taken = std::move(shared_->batches.front());
  shared_->batches.pop_front();
  if (taken->error) std::rethrow_exception(taken->error);
}

void Prefetcher::stop() {
  std::vector<std::thread> ending;
  {
    const Lock lock(shared_->mutex);
    shared_->stopped = true;
    ending.swap(shared_->threads);
  }
  shared_->work.notify_all();
  for (std::thread& thread : ending) thread.join();
}

void Prefetcher::work() {
  Lock lock(shared_->mutex);
  while (!shared_->stopped) {
    Task task;
    if (next(task)) {
      run(task, lock);
    } else {
      shared_->work.wait(lock);
    }
  }
}

bool Prefetcher::next(Task& task) {
  std::deque<Batch*>& waiting = shared_->waiting;
  const int64_t gathered = shared_->submitted - static_cast<int64_t>(waiting.size());
  shared_->asked = std::max(shared_->asked, gathered);  // too late for those before
  if (shared_->asked < std::min(gathered + asked_ahead_, batches_.count)) {
    task = {.batch = nullptr, .number = shared_->asked++};
    return true;
  }
  if (waiting.empty()) return false;
  task = {.batch = waiting.front(), .number = waiting.front()->begun++};
  if (task.batch->begun == parts_) waiting.pop_front();
  return true;
}

void Prefetcher::run(const Task& task, Lock& lock) {
  lock.unlock();
  std::exception_ptr error;
  try {
    if (task.batch == nullptr) {
      ask_for(task.number);
    } else {
      gather(*task.batch, task.number);
    }
  } catch (...) {
    error = std::current_exception();
  }
  lock.lock();
  if (task.batch == nullptr) return;  // what cannot be asked for cannot be read either
  if (error) task.batch->error = error;
  if (++task.batch->done == parts_) shared_->done.notify_one();
}

void Prefetcher::ask_for(int64_t batch) const {
  std::array<int64_t, 2> looked_at;
  offsets(batch, 0, std::span(looked_at).first(1));
  offsets(batch, batches_.share - 1, std::span(looked_at).last(1));
  if (!source_.worth_asking(looked_at)) return;
  std::vector<int64_t> wanted(static_cast<size_t>(batches_.share));
  offsets(batch, 0, wanted);
  source_.ask_for(wanted, batches_.length);
}

void Prefetcher::gather(const Batch& batch, int64_t part) const {
  const int64_t begin = batches_.share * part / parts_;
  const int64_t end = batches_.share * (part + 1) / parts_;
  const std::span<int64_t> ours(batch.offsets + begin, static_cast<size_t>(end - begin));
  offsets(batch.number, begin, ours);
  const DenseWindows windows{.out = batch.windows,
                             .length = batches_.length,
                             .type = batches_.type,
                             .past_caches = true};  // whoever takes it has much else to do first
  gather_part(source_, ours, windows.from(begin));
}

void Prefetcher::offsets(int64_t batch, int64_t first, std::span<int64_t> out) const {
  order_.windows(batches_.place + batch * batches_.step + first, out);
  for (int64_t& window : out) window = window * batches_.stride + batches_.start;
}

}  // namespace pyseq
