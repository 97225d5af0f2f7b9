// How many floating point operations a machine can do at most: a ceiling to measure beside kernels.
#pragma once

#include "cpu/isa.hpp"
#include "cpu/tensor.hpp"

namespace pyseq {

// Multiply-adds of registers that wait neither for memory nor for each other, in tasks of a fixed
// length; to be timed by the caller.
struct Peak {
  DType dtype;  // kBFloat16 where there are instructions for its products; float32 else
  int64_t tasks;
  int threads;
  int64_t* operations;  // how many were done: two for each multiply-add
};

PYSEQ_FOR_EVERY_ISA(peak, Peak)

void peak(const Peak& arguments);

}  // namespace pyseq
