// Softmax attention of the newest queries over prepared keys, which are read where they lie.
#pragma once

#include "cpu/isa.hpp"
#include "cpu/preparation.hpp"
#include "cpu/tensor.hpp"

namespace pyseq {

// query and out (B, H, T, D), key and value (B, G, S, D), of one dtype; scale (H,) float32; lengths
// (B,) int32 or int64, or absent: all S. The last query of an entry stands at its last valid key.
// A query sees the first `prefix` keys and, of the others up to its own position, the last `window`
// (0: all). Where `bounded`, exp(logit - offset) of every logit, and their sum, is a normal
// float32.
struct CosineDecode {
  Tensor query;
  Tensor key;
  Tensor value;
  Tensor scale;
  Tensor lengths;
  Tensor out;
  Preparation prepare_query;
  int64_t window;
  int64_t prefix;
  bool bounded;
  float offset;
  int threads;
};

PYSEQ_FOR_EVERY_WIDTH(cosine_decode, CosineDecode)

void cosine_decode(const CosineDecode& arguments);

}  // namespace pyseq
