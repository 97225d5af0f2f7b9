// Which keys a query sees.
#pragma once

#include "cpu/vector.hpp"

namespace pyseq::PYSEQ_ISA {

// The first `prefix` keys, and those from `begin` to `end`.
struct Seen {
  int64_t prefix;
  int64_t begin;
  int64_t end;

  bool any() const { return prefix > 0 || begin < end; }
  int64_t count() const {
    const int64_t from = begin < prefix ? prefix : begin;
    return prefix + (from < end ? end - from : 0);
  }
  bool all_of(int64_t first, int64_t last) const {
    return (begin <= first && last <= end) || last <= prefix;
  }
  bool sees(int64_t key) const { return key < prefix || (begin <= key && key < end); }
  // Calls body(begin, end) for what is seen of keys first to last.
  template <typename Body>
  PYSEQ_INLINE void within(int64_t first, int64_t last, const Body& body) const {
    const int64_t early = prefix < last ? prefix : last;
    if (first < early) body(first, early);
    int64_t from = begin > prefix ? begin : prefix;
    from = from > first ? from : first;
    const int64_t to = end < last ? end : last;
    if (from < to) body(from, to);
  }
  // Of kLanes keys.
  PYSEQ_INLINE Ints hidden(int64_t first) const {
    const Ints key = lanes() + static_cast<int32_t>(first);
    return (key >= static_cast<int32_t>(prefix)) &
           ((key < static_cast<int32_t>(begin)) | (key >= static_cast<int32_t>(end)));
  }
  // How many of the marked keys are seen, where marked[s] counts those before s.
  int64_t count(const int32_t* marked) const {
    const int64_t from = begin < prefix ? prefix : begin;
    return marked[prefix] + (from < end ? marked[end] - marked[from] : 0);
  }
};

// By query t of T, the last of which stands at the last of S keys. window 0: none.
inline Seen seen_by(int64_t t, int64_t T, int64_t S, bool causal, int64_t window = 0,
                    int64_t prefix = 0) {
  const int64_t position = t + S - T;
  Seen seen = {prefix < S ? prefix : S, 0, S};
  if (causal && position + 1 < S) seen.end = position + 1;
  if (window > 0) {
    if (position - window >= 0) seen.begin = position - window + 1;
    if (!causal && position < S - window) seen.end = position + window;
  }
  if (seen.end < 0) seen.end = 0;
  if (seen.begin > seen.end) seen.begin = seen.end;
  return seen;
}

}  // namespace pyseq::PYSEQ_ISA
