// Two linear layers with an activation and dropout between them, the hidden layer never in memory.
#pragma once

#include "cpu/isa.hpp"
#include "cpu/tensor.hpp"

namespace pyseq {

// How the hidden layer is made of its linear layer. Feature f of token n of stack s is kept as a
// function of the seed and of (s, n, f).
struct Hidden {
  bool gelu;  // else relu
  int64_t seed;
  int32_t dropped;  // of 65536
};

// x (S, N, C) and out (S, N, O) of one floating dtype and any strides; weight_in (S, F, C), bias_in
// (S, F), weight_out (S, O, F) and bias_out (S, O) contiguous float32. No size is 0.
struct FeedForward {
  Tensor x;
  Tensor weight_in;
  Tensor bias_in;
  Tensor weight_out;
  Tensor bias_out;
  Tensor out;
  Hidden hidden;
  int threads;
};

// grad, of out, has any strides; gradients are like what they are of, and absent where not wanted.
struct FeedForwardBackward {
  Tensor grad;
  Tensor x;
  Tensor weight_in;
  Tensor bias_in;
  Tensor weight_out;
  Tensor d_x;
  Tensor d_weight_in;
  Tensor d_bias_in;
  Tensor d_weight_out;
  Tensor d_bias_out;
  Hidden hidden;
  int threads;
};

PYSEQ_FOR_EVERY_WIDTH(feed_forward, FeedForward)
PYSEQ_FOR_EVERY_WIDTH(feed_forward_backward, FeedForwardBackward)

void feed_forward(const FeedForward& arguments);
void feed_forward_backward(const FeedForwardBackward& arguments);

}  // namespace pyseq
