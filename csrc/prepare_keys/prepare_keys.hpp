// Normalises, weights and rotates keys once, for a cache.
#pragma once

#include "cpu/isa.hpp"
#include "cpu/preparation.hpp"
#include "cpu/tensor.hpp"

namespace pyseq {

// key and out (B, G, S, D), of one dtype; key s stands at `position` + s.
struct PrepareKeys {
  Tensor key;
  Tensor out;
  Preparation prepare;
  int64_t position;
  int threads;
};

PYSEQ_FOR_EVERY_ISA(prepare_keys, PrepareKeys)

void prepare_keys(const PrepareKeys& arguments);

}  // namespace pyseq
