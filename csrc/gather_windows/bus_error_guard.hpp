// Reading a mapped file that was truncated raises SIGBUS; the guard turns that into `false`.
#pragma once

#include <setjmp.h>

namespace pyseq {

// Holds the process's SIGBUS handler while any guarded read runs anywhere, then gives it back.
class BusErrorHandler {
 public:
  BusErrorHandler();
  ~BusErrorHandler();
  BusErrorHandler(const BusErrorHandler&) = delete;
  BusErrorHandler& operator=(const BusErrorHandler&) = delete;
};

// Where this thread continues after a SIGBUS; null outside a guarded read. The signal handler reads
// it, so no access may allocate (CMakeLists.txt: -ftls-model) or initialise it (constinit).
extern constinit thread_local sigjmp_buf* bus_error_target;

// Runs `read` and returns true, or false if it touched a page that its file no longer has.
// `read` is left by a jump then: it must not hold anything that a destructor would have to free.
template <typename Read>
bool without_bus_error(Read&& read) {
  const BusErrorHandler handler;
  struct Reset {
    ~Reset() { bus_error_target = nullptr; }
  } reset;
  sigjmp_buf target;
  if (sigsetjmp(target, 1) != 0) return false;
  bus_error_target = &target;
  read();
  return true;
}

}  // namespace pyseq
