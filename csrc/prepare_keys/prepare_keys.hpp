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

// From the gradient of out that of key, and of the gain, (D,) contiguous float32; either may be
// absent.
struct PrepareKeysBackward {
  Tensor grad;
  Tensor key;
  Tensor grad_key;
  Tensor grad_gain;
  Preparation prepare;
  int64_t position;
  int threads;
};

PYSEQ_FOR_EVERY_WIDTH(prepare_keys, PrepareKeys)
PYSEQ_FOR_EVERY_WIDTH(prepare_keys_backward, PrepareKeysBackward)

void prepare_keys(const PrepareKeys& arguments);
void prepare_keys_backward(const PrepareKeysBackward& arguments);

}  // namespace pyseq
