#include "scale_cross_entropy/scale_cross_entropy.hpp"

namespace pyseq {

void scale_cross_entropy(const ScaleCrossEntropy& arguments) {
  PYSEQ_CALL(scale_cross_entropy, arguments)
}

void scale_cross_entropy_backward(const ScaleCrossEntropyBackward& arguments) {
  PYSEQ_CALL(scale_cross_entropy_backward, arguments)
}

}  // namespace pyseq
