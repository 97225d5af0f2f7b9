#include "gather_windows/gather_windows.hpp"

#include <algorithm>
#include <array>
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

// From here on an output is written past the caches: about what a core has for itself.
constexpr int64_t kPastCachesBytes = int64_t{1} << 20;

constexpr int64_t kRowsAtOnce = 64;

// Windows that lie in one piece of memory, until there are enough for a call of the kernel.
class Rows {
 public:
  Rows(const SymbolSource& source, const DenseWindows& windows) : source_(source), next_(windows) {}

  void add(const uint16_t* row) {
    rows_[static_cast<size_t>(count_++)] = row;
    if (count_ == kRowsAtOnce) flush();
  }

  // The place of the next window, which somebody else fills.
  void* skip() {
    flush();
    void* place = next_.out;
    next_ = next_.from(1);
    return place;
  }

  void flush() {
    if (count_ == 0) return;
    widen_rows({.rows = rows_.data(),
                .count = count_,
                .length = next_.length,
                .type = next_.type,
                .out = next_.out,
                .past_caches = next_.past_caches});
    next_ = next_.from(count_);
    count_ = 0;
    source_.keep_bound();
  }

 private:
  const SymbolSource& source_;
  DenseWindows next_;
  std::array<const uint16_t*, kRowsAtOnce> rows_;
  int64_t count_ = 0;
};

}  // namespace

int64_t size_of(SymbolType type) {
  switch (type) {
    case SymbolType::kUint16:
      return sizeof(uint16_t);
    case SymbolType::kInt32:
      return sizeof(int32_t);
    case SymbolType::kInt64:
      return sizeof(int64_t);
    case SymbolType::kFloat32:
      return sizeof(float);
  }
  return 0;
}

DenseWindows DenseWindows::from(int64_t n) const {
  DenseWindows rest = *this;
  rest.out = static_cast<char*>(out) + n * length * size_of(type);
  return rest;
}

int64_t useful_parts(int64_t windows, int64_t length) {
  return std::clamp<int64_t>(windows * length / kSymbolsPerThread, 1,
                             std::max<int64_t>(windows, 1));
}

void gather_part(const SymbolSource& source, std::span<const int64_t> offsets,
                 const DenseWindows& windows) {
  if (offsets.empty()) return;
  std::vector<uint16_t> scratch(static_cast<size_t>(windows.length));  // outside of the guard
  Rows rows(source, windows);
  const bool readable = without_bus_error([&] {
    for (const int64_t offset : offsets) {
      if (const uint16_t* row = source.in_place(offset, windows.length)) {
        rows.add(row);
      } else if (windows.type == SymbolType::kUint16) {
        source.read(offset, {static_cast<uint16_t*>(rows.skip()), scratch.size()});
      } else {
        source.read(offset, scratch);
        rows.add(scratch.data());
        rows.flush();  // scratch is used again
      }
    }
    rows.flush();
  });
  if (!readable) throw std::runtime_error("the file is shorter than when it was mapped");
  source.require_whole(offsets, windows.length);
}

void gather_windows(const SymbolSource& source, std::span<const int64_t> offsets, int64_t length,
                    SymbolType type, void* out, int threads) {
  const auto windows = static_cast<int64_t>(offsets.size());
  if (windows == 0) return;
  const bool aligned =
      reinterpret_cast<uintptr_t>(out) % static_cast<uintptr_t>(size_of(type)) == 0;
  const bool past_caches = aligned && windows * length * size_of(type) >= kPastCachesBytes;
  const DenseWindows dense{.out = out, .length = length, .type = type, .past_caches = past_caches};
  const auto team = static_cast<int>(
      std::max<int64_t>(1, std::min<int64_t>(threads, useful_parts(windows, length))));
  const std::array<int64_t, 2> looked_at{offsets.front(), offsets.back()};
  if (source.worth_asking(looked_at)) source.ask_for(offsets, length);
  std::vector<std::exception_ptr> errors(static_cast<size_t>(team));
  const auto share = [&](int part) {
    const int64_t begin = windows * part / team;
    const int64_t end = windows * (part + 1) / team;
    try {
      gather_part(source,
                  offsets.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
                  dense.from(begin));
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

}  // namespace pyseq
