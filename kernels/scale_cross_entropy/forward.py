"""Cross-entropies at several scales in one pass over logits that are never stored."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.attention import LOG2_E
from pyseq.kernels.scale_cross_entropy import limits
from pyseq.kernels.scale_cross_entropy.logits import (
    BLOCK,
    bins,
    constants,
    in_bin,
    logits_tile,
)


@triton.jit
def add_mass(best, total, logits):
    """Maximum and sum of exp(logit - maximum) of each row, `logits` (rows, columns) added."""
    highest = tl.maximum(best, tl.max(logits, 1))
    shift = tl.where(highest == float("-inf"), 0.0, highest)  # nothing finite yet
    masses = tl.exp2((logits - shift[:, None]) * LOG2_E)
    return highest, total * tl.exp2((best - shift) * LOG2_E) + tl.sum(masses, 1)


@triton.jit
def scale_cross_entropy_forward_kernel(
    hidden_ptr, weight_ptr, bias_ptr, maxima_ptr, totals_ptr,
    stride_hn, stride_hc, stride_wv, stride_wc, stride_bias,
    N, V, C, splits, tiles_each,
    HAS_BIAS: tl.constexpr, EVEN_C: tl.constexpr, EVEN_V: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program reduces one part of the alphabet for BLOCK_N rows; grid (rows' tiles * splits,).

    Its maxima and totals are (splits, N).
    """
    # Programs side by side share their rows, so that the rows at work stay in the L2 cache.
    split = tl.program_id(0) % splits
    offs_n = tl.program_id(0) // splits * BLOCK_N + tl.arange(0, BLOCK_N)
    mask_n = offs_n < N
    best = tl.full((BLOCK_N,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_N,), tl.float32)
    start = split * tiles_each * BLOCK_V
    stop = start + tiles_each * BLOCK_V
    full = tl.minimum(stop, V // BLOCK_V * BLOCK_V)
    for v in tl.range(start, full, BLOCK_V):
        logits = logits_tile(
            hidden_ptr, weight_ptr, bias_ptr, offs_n, mask_n, v + tl.arange(0, BLOCK_V), V, C,
            stride_hn, stride_hc, stride_wv, stride_wc, stride_bias,
            HAS_BIAS, EVEN_C, BLOCK_N, BLOCK_V, BLOCK_C, PRECISION,
        )  # fmt: skip
        best, total = add_mass(best, total, logits)
    # Not in the loop, which has no registers to spare for a mask.
    if not EVEN_V:  # noqa: SIM102
        if (full < V) & (stop > full):
            offs_v = full + tl.arange(0, BLOCK_V)
            logits = logits_tile(
                hidden_ptr, weight_ptr, bias_ptr, offs_n, mask_n, offs_v, V, C,
                stride_hn, stride_hc, stride_wv, stride_wc, stride_bias,
                HAS_BIAS, EVEN_C, BLOCK_N, BLOCK_V, BLOCK_C, PRECISION,
            )  # fmt: skip
            logits = tl.where((offs_v < V)[None, :], logits, float("-inf"))
            best, total = add_mass(best, total, logits)
    places = split.to(tl.int64) * N + offs_n
    tl.store(maxima_ptr + places, best, mask=mask_n)
    tl.store(totals_ptr + places, total, mask=mask_n)


@triton.jit
def bin_masses_kernel(
    hidden_ptr, weight_ptr, bias_ptr, order_ptr, first_ptr, stop_ptr, maxima_ptr, totals_ptr,
    stride_hn, stride_hc, stride_wv, stride_wc, stride_bias,
    N, V, C,
    HAS_BIAS: tl.constexpr, EVEN_C: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program reduces BLOCK_N rows' bins of one scale; grid (ceil(N / BLOCK_N), scales).

    In the order of their targets, rows side by side have bins side by side.
    """
    rank = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask_n = rank < N
    offs_n = tl.load(order_ptr + rank, mask=mask_n, other=0)
    places = tl.program_id(1).to(tl.int64) * N + offs_n
    bin_first = tl.load(first_ptr + places, mask=mask_n, other=V)
    bin_stop = tl.load(stop_ptr + places, mask=mask_n, other=0)
    best = tl.full((BLOCK_N,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_N,), tl.float32)
    start = tl.min(bin_first, 0) // BLOCK_V * BLOCK_V
    stop = tl.max(bin_stop, 0)
    for v in tl.range(start, stop, BLOCK_V):
        # Few rows lie far apart, with tiles between them that none of them needs.
        if tl.max(((bin_first < v + BLOCK_V) & (bin_stop > v)).to(tl.int32), 0) > 0:
            offs_v = v + tl.arange(0, BLOCK_V)
            logits = logits_tile(
                hidden_ptr, weight_ptr, bias_ptr, offs_n, mask_n, offs_v, V, C,
                stride_hn, stride_hc, stride_wv, stride_wc, stride_bias,
                HAS_BIAS, EVEN_C, BLOCK_N, BLOCK_V, BLOCK_C, PRECISION,
            )  # fmt: skip
            inside = in_bin(offs_v, bin_first, bin_stop)
            best, total = add_mass(best, total, tl.where(inside, logits, float("-inf")))
    tl.store(maxima_ptr + places, best, mask=mask_n)
    tl.store(totals_ptr + places, total, mask=mask_n)


@triton.jit
def log_of_one_and(x):
    """log(1 + x) without what 1 + x rounds off of a small x; x > -1."""
    rounded = 1.0 + x
    kept = rounded - 1.0
    return tl.where(kept == 0.0, x, tl.log(rounded) * (x / kept))


@triton.jit
def merge_kernel(
    part_maxima_ptr, part_totals_ptr, maxima_ptr, totals_ptr, losses_ptr, N, scales, splits,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Merge the parts in their order, and make BLOCK rows' losses; grid (ceil(N / BLOCK),)."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = row < N
    best = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    place = row
    for _ in tl.range(0, splits, num_stages=1):
        part_best = tl.load(part_maxima_ptr + place, mask=mask, other=0.0)
        part_total = tl.load(part_totals_ptr + place, mask=mask, other=1.0)
        place += N
        highest = tl.maximum(best, part_best)
        shift = tl.where(highest == float("-inf"), 0.0, highest)
        total = total * tl.exp2((best - shift) * LOG2_E)
        total += part_total * tl.exp2((part_best - shift) * LOG2_E)
        best = highest
    tl.store(maxima_ptr + row, best, mask=mask)
    tl.store(totals_ptr + row, total, mask=mask)
    place = row
    for _ in tl.range(0, scales, num_stages=1):
        out_ptr = losses_ptr + place
        place += N
        bin_best = tl.load(maxima_ptr + place, mask=mask, other=0.0)
        bin_total = tl.load(totals_ptr + place, mask=mask, other=1.0)
        # Differences of maxima and of sums, because a logarithm would drown in a large maximum, and
        # the little that is left of a mass outside the bin in a logarithm of about 1.
        rest = (total - bin_total) / bin_total
        loss = (best - bin_best) + (tl.log(total) - tl.log(bin_total))
        loss = tl.where((best == bin_best) & (rest < 0.5), log_of_one_and(rest), loss)
        tl.store(out_ptr, loss, mask=mask)


def scale_cross_entropy_forward(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, scales: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Losses (n_scales, N) and the masses (2, 1 + n_scales, N) that they were made from.

    A mass is a maximum, [0], and a sum of exp(logit - maximum), [1]: of all symbols, then of the
    bins of each scale. hidden (N, C), targets (N,) int64, scales below V. A target outside the
    alphabet has an infinite loss.
    """
    (N, C), V, n = hidden.shape, len(weight), len(scales)
    losses = torch.empty(n, N, dtype=torch.float32, device=hidden.device)
    masses = torch.empty(2, 1 + n, N, dtype=torch.float32, device=hidden.device)
    if N == 0:
        return losses, masses
    capability = launch.capability(hidden)
    tiles = limits.tiles(N, C, hidden.dtype, capability)
    splits, tiles_each = limits.splits(N, V, tiles)
    parts = torch.empty(2, splits, N, dtype=torch.float32, device=hidden.device)
    strides = (*hidden.stride(), *weight.stride(), 0 if bias is None else bias.stride(0))
    with torch.cuda.device_of(hidden):  # Triton launches on the current device
        scale_cross_entropy_forward_kernel[triton.cdiv(N, tiles.block_n) * splits,](
            hidden, weight, bias, *parts, *strides, N, V, C, splits, tiles_each,
            EVEN_V=V % tiles.block_v == 0, **constants(hidden, bias, tiles),
        )  # fmt: skip
        if n > 0:
            tiles = limits.bin_tiles(N, C, hidden.dtype, capability)
            bin_masses_kernel[triton.cdiv(N, tiles.block_n), n](
                hidden, weight, bias, targets.argsort(), *bins(targets, V, scales), *masses[:, 1:],
                *strides, N, V, C, **constants(hidden, bias, tiles),
            )  # fmt: skip
        merge_kernel[triton.cdiv(N, BLOCK),](
            *parts, *masses, losses, N, n, splits, BLOCK=BLOCK, **launch.OPTIONS
        )
    return losses, masses
