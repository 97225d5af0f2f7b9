#include "gather_windows/symbol_source.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace pyseq {

namespace {

constexpr int64_t kSymbolBytes = sizeof(uint16_t);
constexpr int kAskedAfter = 64;  // calls, after one that found a symbol missing

[[noreturn]] void fail(const char* what) {
  throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}

void read_file(const Segment& segment, int64_t first, std::span<uint16_t> out) {
  auto* to = reinterpret_cast<char*>(out.data());
  int64_t left = static_cast<int64_t>(out.size_bytes());
  int64_t from = segment.byte_offset + first * kSymbolBytes;
  while (left > 0) {
    const ssize_t got = ::pread(segment.descriptor, to, static_cast<size_t>(left), from);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("read failed");
    if (got == 0) throw std::runtime_error("the file is shorter than when it was opened");
    to += got;
    from += got;
    left -= got;
  }
}

}  // namespace

SymbolSource::SymbolSource(std::vector<Segment> segments, int64_t most_resident)
    : segments_(std::move(segments)), calls_to_ask_(std::make_unique<std::atomic<int>>(0)) {
  starts_.reserve(segments_.size() + 1);
  starts_.push_back(0);
  std::vector<ResidentBound::Range> ranges;
  for (const Segment& segment : segments_) {
    starts_.push_back(starts_.back() + segment.count);
    in_files_ = in_files_ || segment.descriptor >= 0;
    ranges.push_back(segment.mapped()
                         ? ResidentBound::Range(segment.memory, static_cast<size_t>(segment.count))
                         : ResidentBound::Range());
  }
  resident_ = std::make_unique<ResidentBound>(ranges, most_resident);
}

size_t SymbolSource::segment_of(int64_t symbol) const {
  const auto after = std::upper_bound(starts_.begin(), starts_.end(), symbol);
  return static_cast<size_t>(after - starts_.begin()) - 1;
}

template <typename Body>
void SymbolSource::for_parts(int64_t first, int64_t length, const Body& body) const {
  while (length > 0) {
    const size_t index = segment_of(first);
    const int64_t inside = first - starts_[index];
    const int64_t here = std::min(segments_[index].count - inside, length);
    body(index, inside, here);
    first += here;
    length -= here;
  }
}

const uint16_t* SymbolSource::in_place(int64_t first, int64_t length) const {
  const size_t index = segment_of(first);
  const Segment& segment = segments_[index];
  if (segment.memory == nullptr || first + length > starts_[index + 1]) return nullptr;
  const uint16_t* symbols = segment.memory + (first - starts_[index]);
  if (segment.mapped()) resident_->touch(index, symbols, length);
  return symbols;
}

void SymbolSource::read(int64_t first, std::span<uint16_t> out) const {
  auto* to = out.data();
  for_parts(first, static_cast<int64_t>(out.size()), [&](size_t index, int64_t inside, int64_t n) {
    const Segment& segment = segments_[index];
    if (segment.memory == nullptr) {
      read_file(segment, inside, {to, static_cast<size_t>(n)});
    } else {
      if (segment.mapped()) resident_->touch(index, segment.memory + inside, n);
      std::copy_n(segment.memory + inside, n, to);
    }
    to += n;
  });
}

bool SymbolSource::cached(int64_t symbol) const {
#ifdef RWF_NOWAIT
  const size_t index = segment_of(symbol);
  const Segment& segment = segments_[index];
  if (segment.descriptor < 0) return true;
  char byte;
  iovec target = {.iov_base = &byte, .iov_len = 1};
  const int64_t from = segment.byte_offset + (symbol - starts_[index]) * kSymbolBytes;
  if (::preadv2(segment.descriptor, &target, 1, from, RWF_NOWAIT) >= 0) return true;
  return errno != EAGAIN && errno != EOPNOTSUPP;  // where nobody can tell, asking is the safe side
#else
  static_cast<void>(symbol);
  return false;
#endif
}

bool SymbolSource::worth_asking(std::span<const int64_t> symbols) const {
  if (!in_files_) return false;
  const auto missing = [this](int64_t symbol) { return !cached(symbol); };
  if (std::any_of(symbols.begin(), symbols.end(), missing)) {
    calls_to_ask_->store(kAskedAfter, std::memory_order_relaxed);
    return true;
  }
  if (calls_to_ask_->load(std::memory_order_relaxed) <= 0) return false;
  calls_to_ask_->fetch_sub(1, std::memory_order_relaxed);
  return true;
}

void SymbolSource::ask_for(std::span<const int64_t> offsets, int64_t length) const {
  for (const int64_t offset : offsets) {
    for_parts(offset, length, [&](size_t index, int64_t inside, int64_t n) {
      const Segment& segment = segments_[index];
      if (segment.descriptor < 0) return;
      ::posix_fadvise(segment.descriptor, segment.byte_offset + inside * kSymbolBytes,
                      n * kSymbolBytes, POSIX_FADV_WILLNEED);
    });
  }
}

void SymbolSource::require_whole(std::span<const int64_t> offsets, int64_t length) const {
  if (!in_files_) return;
  std::vector<bool> seen(segments_.size());
  size_t left = segments_.size();
  for (const int64_t offset : offsets) {
    if (left == 0) return;
    for_parts(offset, length, [&](size_t index, int64_t, int64_t) {
      if (seen[index]) return;
      seen[index] = true;
      --left;
      const Segment& segment = segments_[index];
      if (segment.descriptor < 0) return;
      struct stat now;
      if (::fstat(segment.descriptor, &now) != 0) fail("the file cannot be asked for its size");
      if (now.st_size < segment.byte_offset + segment.count * kSymbolBytes) {
        throw std::runtime_error("the file is shorter than when it was opened");
      }
    });
  }
}

}  // namespace pyseq
