// Copies windows of a 16-bit stream into a dense array, widening on the way.
#pragma once

#include <cstdint>
#include <span>

#include "gather_windows/symbol_source.hpp"
#include "gather_windows/widen_rows.hpp"

namespace pyseq {

// Bytes of one number of that type.
int64_t size_of(SymbolType type);

// Where windows are copied to and how: window n to the n-th `length` numbers of `type`.
struct DenseWindows {
  void* out;
  int64_t length;
  SymbolType type;
  bool past_caches;  // see WidenRows

  // The same from window n on.
  DenseWindows from(int64_t n) const;
};

// Into how many parts a gather is worth cutting; at least 1.
int64_t useful_parts(int64_t windows, int64_t length);

// out[n, i] = stream[offsets[n] + i], by this thread. Every window must lie inside the source.
// Throws std::runtime_error when a file became shorter or a read fails; `out` is then unspecified.
void gather_part(const SymbolSource& source, std::span<const int64_t> offsets,
                 const DenseWindows& windows);

// The same on at most `threads` threads, at least one.
void gather_windows(const SymbolSource& source, std::span<const int64_t> offsets, int64_t length,
                    SymbolType type, void* out, int threads);

}  // namespace pyseq
