#include "cosine_attention/cosine_attention.hpp"

namespace pyseq {

void cosine_attention(const CosineAttention& arguments) { PYSEQ_CALL(cosine_attention, arguments) }

}  // namespace pyseq
