#include "exponential_smoothing/exponential_smoothing.hpp"

namespace pyseq {

void exponential_smoothing(const ExponentialSmoothing& arguments) {
  PYSEQ_CALL(exponential_smoothing, arguments)
}

void exponential_smoothing_backward(const ExponentialSmoothingBackward& arguments) {
  PYSEQ_CALL(exponential_smoothing_backward, arguments)
}

}  // namespace pyseq
