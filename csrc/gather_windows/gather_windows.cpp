#include "gather_windows/gather_windows.hpp"

#include <algorithm>
#include <cstddef>
#include <exception>
#include <stdexcept>
#include <vector>

#include "gather_windows/bus_error_guard.hpp"

namespace pyseq {

namespace {

// Below this many symbols waking a second thread costs more than it saves (a parallel region was
// measured at up to 100 microseconds, a gather moves some 1e9 symbols a second per thread).
constexpr int64_t kSymbolsPerThread = 1 << 16;

// Windows start at random, so every one begins with a cache miss unless it was asked for before.
constexpr int64_t kAhead = 4;

template <typename Out>
void copy_window(const SymbolSource& source, int64_t first, int64_t length, Out* out,
                 std::vector<uint16_t>& scratch) {
  const uint16_t* symbols = source.in_place(first, length);
  if (symbols == nullptr) {
    scratch.resize(static_cast<size_t>(length));
    source.read(first, scratch);
    symbols = scratch.data();
  }
  for (int64_t i = 0; i < length; ++i) out[i] = static_cast<Out>(symbols[i]);
}

template <typename Out>
void gather(const SymbolSource& source, std::span<const int64_t> offsets, int64_t length, Out* out,
            int threads) {
  const auto windows = static_cast<int64_t>(offsets.size());
  if (windows == 0) return;
  const int64_t useful = windows * length / kSymbolsPerThread;
  const auto team =
      static_cast<int>(std::max<int64_t>(1, std::min<int64_t>({threads, useful, windows})));
  std::vector<std::exception_ptr> errors(static_cast<size_t>(team));
  const auto share = [&](int part) {
    try {
      std::vector<uint16_t> scratch;
      scratch.reserve(static_cast<size_t>(length));  // nothing allocates inside the guard
      const bool readable = without_bus_error([&] {
        const int64_t end = windows * (part + 1) / team;
        for (int64_t n = windows * part / team; n < end; ++n) {
          if (n + kAhead < end) source.prefetch(offsets[static_cast<size_t>(n + kAhead)]);
          copy_window(source, offsets[static_cast<size_t>(n)], length, out + n * length, scratch);
        }
      });
      if (!readable) throw std::runtime_error("the file is shorter than when it was mapped");
    } catch (...) {
      errors[static_cast<size_t>(part)] = std::current_exception();
    }
  };
  if (team == 1) {  // also keeps forked workers away from the parent's thread pool
    share(0);
  } else {
#pragma omp parallel for num_threads(team) schedule(static, 1)
    for (int part = 0; part < team; ++part) share(part);
  }
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace

void gather_windows(const SymbolSource& source, std::span<const int64_t> offsets, int64_t length,
                    SymbolType type, void* out, int threads) {
  switch (type) {
    case SymbolType::kUint16:
      return gather(source, offsets, length, static_cast<uint16_t*>(out), threads);
    case SymbolType::kInt32:
      return gather(source, offsets, length, static_cast<int32_t*>(out), threads);
    case SymbolType::kInt64:
      return gather(source, offsets, length, static_cast<int64_t*>(out), threads);
    case SymbolType::kFloat32:
      return gather(source, offsets, length, static_cast<float*>(out), threads);
  }
}

}  // namespace pyseq
