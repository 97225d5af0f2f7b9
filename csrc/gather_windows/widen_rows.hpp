// Rows of 16-bit symbols, wherever they lie, into one dense array of wider numbers.
#pragma once

#include <stdint.h>

#include "cpu/isa.hpp"

namespace pyseq {

enum class SymbolType { kUint16, kInt32, kInt64, kFloat32 };

// out[n, i] = rows[n][i] for n < count and i < length, row-major, in `type`.
struct WidenRows {
  const uint16_t* const* rows;
  int64_t count;
  int64_t length;
  SymbolType type;
  void* out;
  // Writes past the caches: right where they have no room, or something better to hold. Only for an
  // `out` aligned to its numbers.
  bool past_caches;
};

PYSEQ_FOR_EVERY_WIDTH(widen_rows, WidenRows)

void widen_rows(const WidenRows& arguments);

}  // namespace pyseq
