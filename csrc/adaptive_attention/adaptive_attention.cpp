#include "adaptive_attention/adaptive_attention.hpp"

namespace pyseq {

void adaptive_attention(const AdaptiveAttention& arguments) {
  PYSEQ_CALL(adaptive_attention, arguments)
}

void adaptive_attention_backward(const AdaptiveAttentionBackward& arguments) {
  PYSEQ_CALL(adaptive_attention_backward, arguments)
}

}  // namespace pyseq
