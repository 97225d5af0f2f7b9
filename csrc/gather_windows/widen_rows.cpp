#include "gather_windows/widen_rows.hpp"

namespace pyseq {

void widen_rows(const WidenRows& arguments) { PYSEQ_CALL(widen_rows, arguments) }

}  // namespace pyseq
