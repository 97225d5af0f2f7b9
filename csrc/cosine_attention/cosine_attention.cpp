#include "cosine_attention/cosine_attention.hpp"

namespace pyseq {

void cosine_attention(const CosineAttention& arguments) { PYSEQ_CALL(cosine_attention, arguments) }

void cosine_attention_backward(const CosineAttentionBackward& arguments) {
  PYSEQ_CALL(cosine_attention_backward, arguments)
}

}  // namespace pyseq
