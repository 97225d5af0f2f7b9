// What is done to a query or a key before the product.
#pragma once

#include "cpu/tensor.hpp"

namespace pyseq {

enum class Norm { kNone, kL2, kRms, kLayer };

struct Preparation {
  Norm norm = Norm::kNone;
  float eps = 0;
  Tensor gain;  // (D,) contiguous float32, or absent
  Tensor cos;   // (positions, D / 2) float32, or absent; row p turns the row at position p
  Tensor sin;

  bool changes() const {
    return norm != Norm::kNone || gain.data != nullptr || cos.data != nullptr;
  }
};

}  // namespace pyseq
