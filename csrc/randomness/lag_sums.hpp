// Of a stretch of symbols and those before it: sums of products and counts of equals, lag by lag.
#pragma once

#include <stdint.h>

#include "cpu/isa.hpp"

namespace pyseq {

// For every k in 1..lags: products[k - 1] += sum of c[t] c[t - k] and equals[k - 1] += how often
// symbols[t] == symbols[t - k], over 0 <= t < count, with c = symbol - 32768. Symbols before
// symbols[0] are read, as many as there are lags. Sums are exact up to 2^33 symbols.
struct LagSums {
  const uint16_t* symbols;
  int64_t count;
  int64_t lags;
  int64_t* products;
  int64_t* equals;
};

PYSEQ_FOR_EVERY_WIDTH(lag_sums, LagSums)

void lag_sums(const LagSums& arguments);

}  // namespace pyseq
