#include "gather_windows/bus_error_guard.hpp"

#include <pthread.h>
#include <signal.h>

#include <mutex>

namespace pyseq {

constinit thread_local sigjmp_buf* bus_error_target = nullptr;

namespace {

std::mutex mutex;
int guards = 0;           // guarded reads under way, all threads
struct sigaction before;  // the handler that was there, valid while guards > 0

void on_bus_error(int signal, siginfo_t* info, void* context) {
  if (bus_error_target != nullptr) siglongjmp(*bus_error_target, 1);
  // Not ours: let whoever was there before decide.
  if ((before.sa_flags & SA_SIGINFO) != 0 && before.sa_sigaction != nullptr) {
    before.sa_sigaction(signal, info, context);
  } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
    before.sa_handler(signal);
  } else {
    ::signal(SIGBUS, SIG_DFL);  // the access is tried again and ends the process as it would have
  }
}

// A forked child has none of the threads that read here, and must not inherit their lock.
[[maybe_unused]] const int for_forks = pthread_atfork([] { mutex.lock(); }, [] { mutex.unlock(); },
                                                      [] {
                                                        if (guards > 0)
                                                          sigaction(SIGBUS, &before, nullptr);
                                                        guards = 0;
                                                        mutex.unlock();
                                                      });

}  // namespace

BusErrorHandler::BusErrorHandler() {
  const std::lock_guard lock(mutex);
  if (guards++ > 0) return;
  struct sigaction ours = {};
  ours.sa_sigaction = on_bus_error;
  ours.sa_flags = SA_SIGINFO;
  sigemptyset(&ours.sa_mask);
  sigaction(SIGBUS, &ours, &before);
}

BusErrorHandler::~BusErrorHandler() {
  const std::lock_guard lock(mutex);
  if (--guards == 0) sigaction(SIGBUS, &before, nullptr);
}

}  // namespace pyseq
