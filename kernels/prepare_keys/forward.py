"""Rows of keys or queries normalised, weighted and rotated, rounded once."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.heads import dense
from pyseq.kernels.prepare_keys.limits import FORWARD_TILE, rows_of
from pyseq.kernels.prepare_keys.rows import (
    load_angles,
    load_halves,
    load_vector,
    normalise,
    rotate,
    store_halves,
)


@triton.jit
def places(row, inner, middle, stride_b, stride_g, stride_s, HEADS_INSIDE: tl.constexpr):
    """Where rows, numbered along B, then the middle axis, then the inner one, begin in memory."""
    batch = row // inner // middle
    between = row // inner % middle
    inside = row % inner
    head, s = (inside, between) if HEADS_INSIDE else (between, inside)
    return batch.to(tl.int64) * stride_b + head.to(tl.int64) * stride_g + s.to(tl.int64) * stride_s


@triton.jit
def position_of(row, inner, middle, position, HEADS_INSIDE: tl.constexpr):
    """Which row of the tables these rows take, the first key standing at `position`."""
    return position + (row // inner % middle if HEADS_INSIDE else row % inner)


# A decoding loop must not be compiled again for a position or a length.
@triton.jit(do_not_specialize=["count", "inner", "middle", "position"])
def prepare_keys_forward_kernel(
    key_ptr, out_ptr, weight_ptr, cos_ptr, sin_ptr,
    stride_kb, stride_kg, stride_ks, stride_kd,
    stride_ob, stride_og, stride_os, stride_od,
    stride_angle,
    count, inner, middle, position, eps,
    NORM: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_ROPE: tl.constexpr,
    HEADS_INSIDE: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program prepares BLOCK rows; grid (ceil(count / BLOCK),)."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = row < count
    start = places(row, inner, middle, stride_kb, stride_kg, stride_ks, HEADS_INSIDE)
    a, b = load_halves(key_ptr, start, mask, 1, stride_kd, D, HALF)
    if NORM != "none" or HAS_WEIGHT or HAS_ROPE:
        a, b, _factor = normalise(a.to(tl.float32), b.to(tl.float32), eps, NORM, D, HALF)
    if HAS_WEIGHT:
        weight_a, weight_b = load_vector(weight_ptr, D, HALF)
        a = a * weight_a
        b = b * weight_b
    if HAS_ROPE:
        at = position_of(row, inner, middle, position, HEADS_INSIDE)
        cos, sin = load_angles(cos_ptr, sin_ptr, at, mask, stride_angle, 1, D, HALF)
        a, b = rotate(a, b, cos, sin)
    start = places(row, inner, middle, stride_ob, stride_og, stride_os, HEADS_INSIDE)
    store_halves(out_ptr, a, b, start, mask, 1, stride_od, D, HALF)


def prepare_keys_forward(
    key: Tensor,
    key_weight: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    norm: str | None,
    eps: float,
    position: int,
) -> Tensor:
    """Prepared rows, in the memory order of key (B, G, S, D); row s stands at position + s."""
    out = torch.empty_like(key)
    if out.numel() == 0:
        return out
    key_weight, cos, sin = dense(key_weight, cos, sin)
    D, rows = key.shape[3], rows_of(key, FORWARD_TILE)
    with torch.cuda.device_of(key):  # Triton launches on the current device
        prepare_keys_forward_kernel[(rows.tiles,)](
            key, out, key_weight, cos, sin, *key.stride(), *out.stride(),
            0 if cos is None else cos.stride(0),
            rows.total, rows.inner, rows.middle, 0 if cos is None else position, eps,
            NORM=norm or "none", HAS_WEIGHT=key_weight is not None, HAS_ROPE=cos is not None,
            HEADS_INSIDE=rows.heads_inside, D=D, HALF=launch.padded((D + 1) // 2),
            BLOCK=rows.per_tile, num_warps=4, **launch.OPTIONS,
        )  # fmt: skip
    return out
