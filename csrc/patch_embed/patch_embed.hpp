// A series cut into patches, normalised, and embedded by one linear layer, in one pass.
#pragma once

#include "cpu/isa.hpp"
#include "cpu/tensor.hpp"

namespace pyseq {

// samples (B, T) of uint16, int16 or floating; weight (C, P), bias (C,) or absent, and out (B, N,
// C) of one floating dtype, out contiguous; center and spread (B,) float32. Patch n of row b holds
// the samples n * stride to n * stride + P - 1; those past the end are copies of the last one. The
// embedding is weight . (samples - center[b]) / spread[b] + bias, summed in float32.
struct PatchEmbed {
  Tensor samples;
  Tensor weight;
  Tensor bias;
  Tensor center;
  Tensor spread;
  Tensor out;
  int64_t stride;
  int threads;
};

// grad, of out, has any strides; d_samples is like samples, d_weight and d_bias like weight and
// bias. Those that are not wanted are absent. No size is 0.
struct PatchEmbedBackward {
  Tensor grad;
  Tensor samples;
  Tensor weight;
  Tensor center;
  Tensor spread;
  Tensor d_samples;
  Tensor d_weight;
  Tensor d_bias;
  int64_t stride;
  int threads;
};

PYSEQ_FOR_EVERY_ISA(patch_embed, PatchEmbed)
PYSEQ_FOR_EVERY_WIDTH(patch_embed_backward, PatchEmbedBackward)

void patch_embed(const PatchEmbed& arguments);
void patch_embed_backward(const PatchEmbedBackward& arguments);

}  // namespace pyseq
