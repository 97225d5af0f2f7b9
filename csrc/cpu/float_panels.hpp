// Matrices packed for FloatEngine, and rows padded for it.
#pragma once

#include "cpu/packed_rows.hpp"

namespace pyseq::PYSEQ_ISA {

inline constexpr int64_t kColumns = FloatEngine::kColumns;  // of a panel

// Rows that the engine multiplies without its slow single ones; those behind `rows` are zeros.
constexpr int64_t fitted(int64_t rows) {
  const int64_t whole = rows / FloatEngine::kRows * FloatEngine::kRows;
  return whole + smaller(round_up(rows - whole, 4), FloatEngine::kRows);
}

constexpr int64_t float_bytes(int64_t floats) {
  return padded_bytes(floats * int64_t{sizeof(float)});
}

// A matrix (rows, columns), columns `step` apart, as the B of products: every panel holds all its
// rows. What lies behind the matrix is 0.
inline void pack(const float* from, int64_t row, int64_t step, int64_t rows, int64_t columns,
                 int64_t packed_rows, int64_t packed_columns, float* to) {
  for (int64_t p = 0; p < packed_columns; p += kColumns) {
    for (int64_t i = 0; i < packed_rows; ++i, to += kColumns) {
      for (int64_t j = 0; j < kColumns; ++j) {
        to[j] = i < rows && p + j < columns ? from[i * row + (p + j) * step] : 0;
      }
    }
  }
}

}  // namespace pyseq::PYSEQ_ISA
