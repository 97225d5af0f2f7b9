// How counts lean on a shorter context: discounts D and pulls theta of the blends that are mixed.
#pragma once

#include <array>

namespace pyseq {

// A pull that leaves nothing to counts, and whose reciprocal times a weight is a normal number.
constexpr double kEndless = 1e100;

// The first stands for the shorter context alone. Without a discount, a pull of half the number of
// likely followers is Krichevsky and Trofimov's; with one it is the Pitman-Yor family, for
// alphabets of which most symbols are rare.
constexpr std::array<double, 8> kDiscounts = {0, 0, 0, 0, 0, 0.4, 0.75, 0.92};
constexpr std::array<double, 8> kPulls = {kEndless, 1.0 / 16, 1, 8, 64, 0.5, 0.5, 0.5};

}  // namespace pyseq
