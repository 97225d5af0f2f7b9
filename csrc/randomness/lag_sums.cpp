#include "randomness/lag_sums.hpp"

namespace pyseq {

void lag_sums(const LagSums& arguments) { PYSEQ_CALL(lag_sums, arguments) }

}  // namespace pyseq
