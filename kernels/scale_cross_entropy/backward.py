"""Gradients of the cross-entropies: logits made again in chunks, their gradients multiplied.

A chunk's gradients of logits are rounded once to the inputs' dtype and read by two products of
PyTorch's, which sum in float32; the products' chunks are summed in float32 too.
"""

from collections.abc import Sequence
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.attention import LOG2_E
from pyseq.kernels.scale_cross_entropy import limits
from pyseq.kernels.scale_cross_entropy.logits import (
    bins,
    constants,
    in_bin,
    logits_tile,
)

GROUP = 16  # tiles of rows that share the L2 cache with some tiles of symbols


@triton.jit
def row_factors(
    maxima_ptr, totals_ptr, grad_ptr, offs_n, mask_n, N, scales, BLOCK_N: tl.constexpr
):  # fmt: skip
    """Maxima, gradients of the log-sum-exp over totals, and whether no gradient is asked of it."""
    silent = tl.full((BLOCK_N,), True, tl.int1)
    factor = tl.zeros((BLOCK_N,), tl.float32)
    place = offs_n.to(tl.int64)
    for _ in tl.range(0, scales, num_stages=1):
        g = tl.load(grad_ptr + place, mask=mask_n, other=0.0)
        place += N
        silent = silent & (g == 0.0)
        factor += g
    best = tl.load(maxima_ptr + offs_n, mask=mask_n, other=0.0)
    return best, factor / tl.load(totals_ptr + offs_n, mask=mask_n, other=1.0), silent


@triton.jit
def scale_cross_entropy_backward_kernel(
    hidden_ptr, weight_ptr, bias_ptr, maxima_ptr, totals_ptr, grad_ptr, d_logits_ptr,
    stride_hn, stride_hc, stride_wv, stride_wc, stride_bias,
    N, V, C, scales, row_start, row_stop, column_start, column_stop,
    HAS_BIAS: tl.constexpr, EVEN_C: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
    GROUP: tl.constexpr,
):  # fmt: skip
    """One program makes BLOCK_N x BLOCK_V of a chunk, sum_s g_s softmax(logits); grid (tiles,)."""
    rows = row_stop - row_start
    columns = column_stop - column_start
    row_tiles = tl.cdiv(rows, BLOCK_N)
    column_tiles = tl.cdiv(columns, BLOCK_V)
    group = tl.program_id(0) // (GROUP * column_tiles)
    place = tl.program_id(0) % (GROUP * column_tiles)
    group_rows = tl.minimum(row_tiles - group * GROUP, GROUP)
    local_n = (group * GROUP + place % group_rows) * BLOCK_N + tl.arange(0, BLOCK_N)
    local_v = place // group_rows * BLOCK_V + tl.arange(0, BLOCK_V)
    mask_n = local_n < rows
    offs_n = row_start + local_n
    logits = logits_tile(
        hidden_ptr, weight_ptr, bias_ptr, offs_n, mask_n, column_start + local_v, V, C,
        stride_hn, stride_hc, stride_wv, stride_wc, stride_bias,
        HAS_BIAS, EVEN_C, BLOCK_N, BLOCK_V, BLOCK_C, PRECISION,
    )  # fmt: skip
    best, factor, silent = row_factors(
        maxima_ptr, totals_ptr, grad_ptr, offs_n, mask_n, N, scales, BLOCK_N
    )
    d_logits = tl.exp2((logits - best[:, None]) * LOG2_E) * factor[:, None]
    d_logits = tl.where(silent[:, None], 0.0, d_logits)
    tl.store(
        d_logits_ptr + local_n[:, None].to(tl.int64) * columns + local_v[None, :],
        d_logits.to(d_logits_ptr.dtype.element_ty),
        mask=mask_n[:, None] & (local_v < columns)[None, :],
    )


@triton.jit
def within_bins_kernel(
    hidden_ptr, weight_ptr, bias_ptr, order_ptr, first_ptr, stop_ptr,
    maxima_ptr, totals_ptr, grad_ptr, d_logits_ptr,
    stride_hn, stride_hc, stride_wv, stride_wc, stride_bias,
    N, V, C, scales, row_start, row_stop, column_start, column_stop,
    HAS_BIAS: tl.constexpr, EVEN_C: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Overwrite a chunk within the rows' bins, sum_s g_s (softmax - softmax within the bin).

    Made again, not corrected: a rounded softmax has lost what a confident row's difference is.
    One program sees to BLOCK_N rows, in the order of their targets, and BLOCK_V columns; grid
    (tiles of rows, tiles of columns). Most have no bin there.
    """
    rank = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask_n = rank < row_stop - row_start
    local_n = tl.load(order_ptr + rank, mask=mask_n, other=0)
    offs_n = row_start + local_n
    start = column_start + tl.program_id(1) * BLOCK_V
    stop = tl.minimum(start + BLOCK_V, column_stop)
    found = tl.zeros((BLOCK_N,), tl.int32)
    place = offs_n
    for _ in tl.range(0, scales, num_stages=1):
        bin_first = tl.load(first_ptr + place, mask=mask_n, other=0)
        bin_stop = tl.load(stop_ptr + place, mask=mask_n, other=0)
        place += N
        found = found | ((bin_first < stop) & (bin_stop > start)).to(tl.int32)
    if tl.max(found, 0) > 0:
        offs_v = start + tl.arange(0, BLOCK_V)
        logits = logits_tile(
            hidden_ptr, weight_ptr, bias_ptr, offs_n, mask_n, offs_v, V, C,
            stride_hn, stride_hc, stride_wv, stride_wc, stride_bias,
            HAS_BIAS, EVEN_C, BLOCK_N, BLOCK_V, BLOCK_C, PRECISION,
        )  # fmt: skip
        best, factor, silent = row_factors(
            maxima_ptr, totals_ptr, grad_ptr, offs_n, mask_n, N, scales, BLOCK_N
        )
        d_logits = tl.exp2((logits - best[:, None]) * LOG2_E) * factor[:, None]
        touched = tl.zeros((BLOCK_N, BLOCK_V), tl.int1)
        place = offs_n
        for _ in tl.range(0, scales, num_stages=1):
            bin_first = tl.load(first_ptr + place, mask=mask_n, other=0)
            bin_stop = tl.load(stop_ptr + place, mask=mask_n, other=0)
            share = tl.load(grad_ptr + place, mask=mask_n, other=0.0)
            place += N
            bin_best = tl.load(maxima_ptr + place, mask=mask_n, other=0.0)
            share = share / tl.load(totals_ptr + place, mask=mask_n, other=1.0)
            inside = in_bin(offs_v, bin_first, bin_stop)
            own = tl.exp2((logits - bin_best[:, None]) * LOG2_E) * share[:, None]
            d_logits -= tl.where(inside, own, 0.0)
            touched = touched | inside
        d_logits = tl.where(silent[:, None], 0.0, d_logits)
        columns = column_stop - column_start
        places = local_n[:, None] * columns + (offs_v - column_start)[None, :]
        tl.store(
            d_logits_ptr + places, d_logits.to(d_logits_ptr.dtype.element_ty),
            mask=touched & mask_n[:, None] & (offs_v < column_stop)[None, :],
        )  # fmt: skip


def scale_cross_entropy_backward(
    grad: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    masses: Tensor,
    scales: Sequence[int],
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of hidden, weight and bias, None where not needed, from grad (n_scales, N).

    The masses are the forward's, scales are below V. A row whose gradients are all 0 reaches
    nothing, whatever it holds.
    """
    (N, C), V, n = hidden.shape, len(weight), len(scales)
    wanted = [need and x is not None for need, x in zip(needs, (hidden, weight, bias), strict=True)]
    if N == 0 or n == 0 or not any(wanted):
        inputs = zip(wanted, (hidden, weight, bias), strict=True)
        return [torch.zeros_like(x) if want and x is not None else None for want, x in inputs]
    grad = grad.float().contiguous()
    unit = None
    if hidden.dtype == torch.float16:
        # A mean's gradients of 2^-16 / N would vanish; a power of two changes no other bit.
        unit = power_of_two_over(grad)
        grad = grad / unit
    hidden = hidden.masked_fill((grad == 0).all(0)[:, None], 0)
    capability = launch.capability(hidden)
    tiles = limits.tiles(N, C, hidden.dtype, capability)
    bin_tiles = limits.bin_tiles(N, C, hidden.dtype, capability)
    rows, columns = limits.chunk(N, V, hidden.element_size())
    parts = [slice(start, min(start + rows, N)) for start in range(0, N, rows)]
    orders = [targets[part].argsort() for part in parts]
    first, stop = bins(targets, V, scales)
    strides = (*hidden.stride(), *weight.stride(), 0 if bias is None else bias.stride(0))
    space = hidden.new_empty(rows * columns)
    exact = partial(torch.empty, dtype=torch.float32, device=hidden.device)
    d_hidden = exact(N, C) if wanted[0] else None
    d_weight = torch.empty_like(weight) if wanted[1] else None
    d_bias = exact(V).zero_() if wanted[2] else None
    weight_sums = exact(columns, C) if wanted[1] else None
    for v in range(0, V, columns):
        symbols = slice(v, min(v + columns, V))
        width = symbols.stop - v
        for part, order in zip(parts, orders, strict=True):
            d_logits = space[: len(order) * width].view(-1, width)
            chunk = (N, V, C, n, part.start, part.stop, v, symbols.stop)
            grid = triton.cdiv(len(order), tiles.block_n) * triton.cdiv(width, tiles.block_v)
            bin_grid = (
                triton.cdiv(len(order), bin_tiles.block_n),
                triton.cdiv(width, bin_tiles.block_v),
            )
            with torch.cuda.device_of(hidden):  # Triton launches on the current device
                scale_cross_entropy_backward_kernel[grid,](
                    hidden, weight, bias, *masses, grad, d_logits, *strides, *chunk,
                    GROUP=GROUP, **constants(hidden, bias, tiles),
                )  # fmt: skip
                within_bins_kernel[bin_grid](
                    hidden, weight, bias, order, first, stop, *masses, grad, d_logits,
                    *strides, *chunk, **constants(hidden, bias, bin_tiles),
                )  # fmt: skip
            if d_hidden is not None:
                add_product(d_hidden[part], d_logits, weight[symbols], new=v == 0)
            if weight_sums is not None:
                sums = weight_sums[:width]
                add_product(sums, d_logits.mT, hidden[part], new=part.start == 0)
            if d_bias is not None:
                d_bias[symbols] += d_logits.sum(0, dtype=torch.float32)
        if d_weight is not None and weight_sums is not None:
            sums = weight_sums[:width]
            d_weight[symbols] = sums if unit is None else sums.mul_(unit)
    if unit is not None:
        for found in (d_hidden, d_bias):
            if found is not None:
                found.mul_(unit)
    return [d_hidden, d_weight, d_bias]


def add_product(sums: Tensor, a: Tensor, b: Tensor, *, new: bool) -> None:
    """Add a @ b, in any dtype, to float32 sums, or begin them with it."""
    beta = 0.0 if new else 1.0
    if a.dtype == sums.dtype:
        torch.addmm(sums, a, b, beta=beta, out=sums)
    elif a.is_cuda:
        torch.addmm(sums, a, b, out_dtype=sums.dtype, beta=beta, out=sums)
    else:  # where the interpreter runs, products have no wider sums
        torch.addmm(sums, a.to(sums.dtype), b.to(sums.dtype), beta=beta, out=sums)


def power_of_two_over(grad: Tensor) -> Tensor:
    """A power of two such that no |logits' gradient| over it exceeds 2^14; grad (n_scales, N)."""
    # A row of gradients that are not finite may not take the others' digits.
    largest = grad.abs().sum(0).nan_to_num(0.0, 0.0, 0.0).amax()
    return torch.exp2(torch.log2(largest.clamp(min=2.0**-100)).ceil() - 14)
