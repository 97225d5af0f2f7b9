#include "hard_attention/hard_attention.hpp"

namespace pyseq {

void hard_attention(const HardAttention& arguments) { PYSEQ_CALL(hard_attention, arguments) }

}  // namespace pyseq
