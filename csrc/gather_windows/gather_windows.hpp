// Copies windows of a 16-bit stream into a dense array, widening on the way.
#pragma once

#include <cstdint>
#include <span>

#include "gather_windows/symbol_source.hpp"

namespace pyseq {

enum class SymbolType { kUint16, kInt32, kInt64, kFloat32 };

// out[n, i] = stream[offsets[n] + i] for i < length, row-major, in `type`; at most `threads`
// threads, at least one. Every window must lie inside the source. Throws std::runtime_error when a
// mapped file was truncated or a read fails; `out` is then unspecified.
void gather_windows(const SymbolSource& source, std::span<const int64_t> offsets, int64_t length,
                    SymbolType type, void* out, int threads);

}  // namespace pyseq
