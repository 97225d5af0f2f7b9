// Strided tensors as the kernels see them: pointers and sizes, nothing of Python.
#pragma once

#include <stdint.h>

namespace pyseq {

enum class DType { kFloat32, kBFloat16, kFloat16, kUint16, kInt16, kInt32, kInt64 };

constexpr int64_t size_of(DType dtype) {
  return dtype == DType::kInt64 ? 8 : dtype == DType::kFloat32 || dtype == DType::kInt32 ? 4 : 2;
}

// At most four axes; those that are absent have size 1. Strides count elements. Owns nothing.
struct Tensor {
  void* data = nullptr;  // null where an optional tensor is absent
  DType dtype = DType::kFloat32;
  int64_t shape[4] = {1, 1, 1, 1};
  int64_t stride[4] = {0, 0, 0, 0};

  char* at(int64_t a, int64_t b = 0, int64_t c = 0, int64_t d = 0) const {
    return static_cast<char*>(data) +
           size_of(dtype) * (a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3]);
  }
};

}  // namespace pyseq
