#include "prepare_keys/prepare_keys.hpp"

namespace pyseq {

void prepare_keys(const PrepareKeys& arguments) { PYSEQ_CALL(prepare_keys, arguments) }

void prepare_keys_backward(const PrepareKeysBackward& arguments) {
  PYSEQ_CALL(prepare_keys_backward, arguments)
}

}  // namespace pyseq
