#include "adaptive_attention/adaptive_attention.hpp"

namespace pyseq {

void adaptive_attention(const AdaptiveAttention& arguments) {
  PYSEQ_CALL(adaptive_attention, arguments)
}

}  // namespace pyseq
