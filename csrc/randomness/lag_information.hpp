// Mutual information of a sequence with itself, lag by lag, and the same of its shuffles.
#pragma once

#include <cstdint>
#include <span>

namespace pyseq {

// out[s, l]: plug-in mutual information in nats of classes[t] and classes[t - lags[l]], where the
// sequence is a circle, so that both have the same counts. Row 0 is of the sequence as it is, every
// row after it of one more shuffle, which depends on the seed and the row only. Classes lie below
// `kinds` <= 256, lags in 0..count. Throws std::bad_alloc.
void lag_information(std::span<const uint8_t> classes, int kinds, std::span<const int64_t> lags,
                     uint64_t seed, int64_t rows, double* out, int threads);

}  // namespace pyseq
