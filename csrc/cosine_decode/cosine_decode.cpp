#include "cosine_decode/cosine_decode.hpp"

namespace pyseq {

void cosine_decode(const CosineDecode& arguments) { PYSEQ_CALL(cosine_decode, arguments) }

}  // namespace pyseq
