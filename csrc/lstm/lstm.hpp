// One LSTM layer over time, for several models side by side.
#pragma once

#include "cpu/isa.hpp"
#include "cpu/tensor.hpp"

namespace pyseq {

// x (S, B, T, I) and outputs (S, B, T, H) of floating dtypes and any strides; weight_ih (S, 4H, I),
// weight_hh (S, 4H, H), bias (S, 4H), with the gates i, f, g, o, and hidden, cell, last_hidden and
// last_cell (S, B, H) contiguous float32. No size is 0.
// tape (S, T, B, 5H), contiguous float32: what the backward needs, the gates after their
// activations and the cell; absent where there is none.
struct Lstm {
  Tensor x;
  Tensor weight_ih;
  Tensor weight_hh;
  Tensor bias;
  Tensor hidden;
  Tensor cell;
  Tensor outputs;
  Tensor last_hidden;
  Tensor last_cell;
  Tensor tape;
  int threads;
};

// grad_outputs has any floating dtype and strides, grad_hidden and grad_cell, of the last states,
// are contiguous float32; each is absent where it is 0. Gradients are like what they are of, and
// absent where not wanted.
struct LstmBackward {
  Tensor grad_outputs;
  Tensor grad_hidden;
  Tensor grad_cell;
  Tensor x;
  Tensor weight_ih;
  Tensor weight_hh;
  Tensor hidden;
  Tensor cell;
  Tensor tape;
  Tensor d_x;
  Tensor d_weight_ih;
  Tensor d_weight_hh;
  Tensor d_bias;
  Tensor d_hidden;
  Tensor d_cell;
  int threads;
};

PYSEQ_FOR_EVERY_WIDTH(lstm, Lstm)
PYSEQ_FOR_EVERY_WIDTH(lstm_backward, LstmBackward)

void lstm(const Lstm& arguments);
void lstm_backward(const LstmBackward& arguments);

}  // namespace pyseq
