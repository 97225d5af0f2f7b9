#include "softmax_attention/softmax_attention.hpp"

namespace pyseq {

void softmax_attention(const SoftmaxAttention& arguments) {
  PYSEQ_CALL(softmax_attention, arguments)
}

void softmax_attention_backward(const SoftmaxAttentionBackward& arguments) {
  PYSEQ_CALL(softmax_attention_backward, arguments)
}

}  // namespace pyseq
