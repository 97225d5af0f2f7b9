#include "hard_attention/hard_attention.hpp"

namespace pyseq {

void hard_attention(const HardAttention& arguments) { PYSEQ_CALL(hard_attention, arguments) }

void hard_attention_copy_backward(const HardAttentionCopyBackward& arguments) {
  PYSEQ_CALL(hard_attention_copy_backward, arguments)
}

}  // namespace pyseq
