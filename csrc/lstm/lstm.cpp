#include "lstm/lstm.hpp"

namespace pyseq {

void lstm(const Lstm& arguments) { PYSEQ_CALL(lstm, arguments) }

void lstm_backward(const LstmBackward& arguments) { PYSEQ_CALL(lstm_backward, arguments) }

}  // namespace pyseq
