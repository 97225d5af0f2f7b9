"""Samples straight to embeddings: patches exist in registers only."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.patch_embed import limits
from pyseq.kernels.patch_embed.patches import load_patches, load_row, product


@triton.jit
def embed_kernel(
    samples_ptr, weight_ptr, bias_ptr, center_ptr, spread_ptr, out_ptr,
    stride_sb, stride_st, stride_wc, stride_wp, stride_bias, stride_center, stride_spread,
    N, T, C, stride,
    P: tl.constexpr, PAD_END: tl.constexpr, HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
    HALVES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program makes a tile of the embeddings of one row; grid (B * patch tiles * C tiles).

    Writing the output is the work: 2 * C bytes for the 2 * stride bytes of a patch. So the tiles of
    C are programs of their own, side by side: they find their samples and the weight in L2, and
    there are enough programs to keep the stores coming when the batch is small. With a loop over C
    inside the program a row of 65536 samples would be 64 programs.
    """
    c_tiles = tl.cdiv(C, BLOCK_C)
    n_tiles = tl.cdiv(N, BLOCK_N)
    row = tl.program_id(0) // c_tiles
    batch = (row // n_tiles).to(tl.int64)
    offs_n = row % n_tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    offs_c = tl.program_id(0) % c_tiles * BLOCK_C + tl.arange(0, BLOCK_C)
    mask_c = offs_c < C
    center, spread = load_row(center_ptr, spread_ptr, batch, stride_center, stride_spread)
    acc = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for start in tl.range(0, P, BLOCK_P):
        offs_p = start + tl.arange(0, BLOCK_P)
        x = load_patches(
            samples_ptr + batch * stride_sb, offs_n, offs_p, N, T, stride, stride_st,
            center, spread, P, PAD_END,
        )  # fmt: skip
        places = weight_ptr + offs_c[None, :].to(tl.int64) * stride_wc
        places += offs_p[:, None].to(tl.int64) * stride_wp
        w = tl.load(places, mask=(offs_p < P)[:, None] & mask_c[None, :], other=0.0)
        acc = product(x, w, acc, HALVES, PRECISION)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + offs_c.to(tl.int64) * stride_bias, mask=mask_c, other=0.0)
        acc += bias.to(tl.float32)[None, :]
    places = out_ptr + (batch * N + offs_n[:, None]) * C + offs_c[None, :]
    tl.store(places, acc.to(out_ptr.dtype.element_ty), mask=(offs_n < N)[:, None] & mask_c[None, :])


def patch_embed_forward(
    samples: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    center: Tensor,
    spread: Tensor,
    N: int,
    stride: int,
    pad_end: bool,
) -> Tensor:
    """The embeddings (B, N, C) of N patches a row; center and spread are () or (B,)."""
    (B, T), (C, P) = samples.shape, weight.shape
    out = weight.new_empty(B, N, C)
    if out.numel() == 0:
        return out
    block_n, block_c, block_p, stages = limits.forward_tiles(N, C, P, weight.dtype)
    with torch.cuda.device_of(samples):  # Triton launches on the current device
        embed_kernel[(B * triton.cdiv(N, block_n) * triton.cdiv(C, block_c),)](
            samples, weight, bias, center, spread, out,
            *samples.stride(), *weight.stride(), 0 if bias is None else bias.stride(0),
            center.stride(0) if center.dim() else 0, spread.stride(0) if spread.dim() else 0,
            N, T, C, stride, P=P, PAD_END=pad_end, HAS_BIAS=bias is not None,
            BLOCK_N=block_n, BLOCK_C=block_c, BLOCK_P=block_p,
            HALVES=weight.dtype != torch.float32, PRECISION=launch.dot_precision(weight.dtype),
            num_warps=4, num_stages=stages, **launch.OPTIONS,
        )  # fmt: skip
    return out
