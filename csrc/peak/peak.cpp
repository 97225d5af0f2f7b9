#include "peak/peak.hpp"

namespace pyseq {

void peak(const Peak& arguments) { PYSEQ_CALL(peak, arguments) }

}  // namespace pyseq
