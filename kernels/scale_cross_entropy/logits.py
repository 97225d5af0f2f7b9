"""What both directions of scale_cross_entropy share: bins of targets, and tiles of logits."""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.scale_cross_entropy.limits import Tiles

BLOCK = 1024  # rows per program where a row is a number


@triton.jit(do_not_specialize=["scale"])
def bins_kernel(targets_ptr, first_ptr, stop_ptr, N, V, scale, BLOCK: tl.constexpr):
    """First symbol of each target's bin and the one after its last; grid (ceil(N / BLOCK),)."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = row < N
    target = tl.load(targets_ptr + row, mask=mask, other=0)
    # A target outside the alphabet has an empty bin, that widens no range of bins.
    known = (target >= 0) & (target < V)
    first = target // scale * scale
    stop = tl.minimum(first + scale, V)
    tl.store(first_ptr + row, tl.where(known, first, V).to(tl.int32), mask=mask)
    tl.store(stop_ptr + row, tl.where(known, stop, 0).to(tl.int32), mask=mask)


@triton.jit
def logits_tile(
    hidden_ptr, weight_ptr, bias_ptr, offs_n, mask_n, offs_v, V, C,
    stride_hn, stride_hc, stride_wv, stride_wc, stride_bias,
    HAS_BIAS: tl.constexpr, EVEN_C: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Logits of some rows and symbols, (BLOCK_N, BLOCK_V) float32."""
    offs_c = tl.arange(0, BLOCK_C).to(tl.int64)
    hidden_ptr += offs_n[:, None].to(tl.int64) * stride_hn
    weight_ptr += offs_v[:, None].to(tl.int64) * stride_wv
    mask_n = mask_n[:, None]
    mask_v = offs_v < V
    logits = tl.zeros((BLOCK_N, BLOCK_V), tl.float32)
    for c in tl.range(0, C, BLOCK_C):
        columns = (offs_c + c)[None, :]
        if EVEN_C:
            h = tl.load(hidden_ptr + columns * stride_hc, mask=mask_n, other=0.0)
            w = tl.load(weight_ptr + columns * stride_wc, mask=mask_v[:, None], other=0.0)
        else:
            mask_c = columns < C
            h = tl.load(hidden_ptr + columns * stride_hc, mask=mask_n & mask_c, other=0.0)
            w = tl.load(weight_ptr + columns * stride_wc, mask=mask_v[:, None] & mask_c, other=0.0)
        logits = tl.dot(h, tl.trans(w), logits, input_precision=PRECISION)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + offs_v.to(tl.int64) * stride_bias, mask=mask_v, other=0.0)
        logits += bias.to(tl.float32)[None, :]
    return logits


@triton.jit
def in_bin(offs_v, first, stop):
    """Which symbols (columns,) lie in each row's bin, (rows, columns)."""
    return (offs_v[None, :] >= first[:, None]) & (offs_v[None, :] < stop[:, None])


def bins(targets: Tensor, V: int, scales: Sequence[int]) -> Tensor:
    """First symbols of the targets' bins and those after their last, (2, n_scales, N) int32."""
    N = len(targets)
    found = torch.empty(2, len(scales), N, dtype=torch.int32, device=targets.device)
    with torch.cuda.device_of(targets):
        for scale, first, stop in zip(scales, *found, strict=True):
            bins_kernel[triton.cdiv(N, BLOCK),](
                targets, first, stop, N, V, scale, BLOCK=BLOCK, **launch.OPTIONS
            )
    return found


def constants(hidden: Tensor, bias: Tensor | None, tiles: Tiles) -> dict[str, Any]:
    """What a kernel that makes logits is compiled for."""
    return {
        "HAS_BIAS": bias is not None,
        "EVEN_C": hidden.shape[1] % tiles.block_c == 0,
        "BLOCK_N": tiles.block_n,
        "BLOCK_V": tiles.block_v,
        "BLOCK_C": tiles.block_c,
        "PRECISION": launch.dot_precision(hidden.dtype),
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
        **launch.OPTIONS,
    }
