"""The gradients of prepare_keys: rotated back, through the gain and the norm, in one pass."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.heads import dense, near_rows
from pyseq.kernels.prepare_keys.forward import places, position_of
from pyseq.kernels.prepare_keys.limits import BACKWARD_TILE, backward_programs, rows_of
from pyseq.kernels.prepare_keys.rows import (
    clean,
    load_angles,
    load_halves,
    load_vector,
    normalise,
    rotate,
    store_halves,
    through_norm,
)


@triton.jit(do_not_specialize=["count", "inner", "middle", "position"])
def prepare_keys_backward_kernel(
    grad_ptr, key_ptr, d_key_ptr, d_weight_ptr, weight_ptr, cos_ptr, sin_ptr,
    stride_gb, stride_gg, stride_gs, stride_gd,
    stride_kb, stride_kg, stride_ks, stride_kd,
    stride_db, stride_dg, stride_ds, stride_dd,
    stride_angle,
    count, inner, middle, position, eps,
    NORM: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_ROPE: tl.constexpr,
    NEEDS_KEY: tl.constexpr, NEEDS_WEIGHT: tl.constexpr,
    HEADS_INSIDE: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program takes every num_programs-th tile of BLOCK rows, and sums the gain's gradient."""
    total_a = tl.zeros((HALF,), tl.float32)
    total_b = tl.zeros((HALF,), tl.float32)
    for tile in tl.range(tl.program_id(0), tl.cdiv(count, BLOCK), tl.num_programs(0)):
        row = tile * BLOCK + tl.arange(0, BLOCK)
        mask = row < count
        start = places(row, inner, middle, stride_gb, stride_gg, stride_gs, HEADS_INSIDE)
        da, db = load_halves(grad_ptr, start, mask, 1, stride_gd, D, HALF)
        da = da.to(tl.float32)
        db = db.to(tl.float32)
        if HAS_ROPE:
            at = position_of(row, inner, middle, position, HEADS_INSIDE)
            cos, sin = load_angles(cos_ptr, sin_ptr, at, mask, stride_angle, 1, D, HALF)
            da, db = rotate(da, db, cos, -sin)
        if NORM != "none" or NEEDS_WEIGHT:
            start = places(row, inner, middle, stride_kb, stride_kg, stride_ks, HEADS_INSIDE)
            a, b = load_halves(key_ptr, start, mask, 1, stride_kd, D, HALF)
            a, b, factor = normalise(a.to(tl.float32), b.to(tl.float32), eps, NORM, D, HALF)
        if NEEDS_WEIGHT:
            # A key that is NaN whatever the gain has no share in the gain's gradient.
            finite_a, finite_b, _bad = clean(a, b)
            total_a += tl.sum(da * finite_a, 0)
            total_b += tl.sum(db * finite_b, 0)
        if NEEDS_KEY:
            if HAS_WEIGHT:
                weight_a, weight_b = load_vector(weight_ptr, D, HALF)
                da = da * weight_a
                db = db * weight_b
            if NORM != "none":
                da, db = through_norm(da, db, a, b, factor, eps, NORM, D, HALF)
            start = places(row, inner, middle, stride_db, stride_dg, stride_ds, HEADS_INSIDE)
            store_halves(d_key_ptr, da, db, start, mask, 1, stride_dd, D, HALF)
    if NEEDS_WEIGHT:
        column = tl.arange(0, HALF)
        place = d_weight_ptr + tl.program_id(0) * D + column
        tl.store(place, total_a, mask=column < (D + 1) // 2)
        tl.store(place + (D + 1) // 2, total_b, mask=column < D // 2)


def prepare_keys_backward(
    grad: Tensor,
    key: Tensor,
    key_weight: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    norm: str | None,
    eps: float,
    position: int,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of key, in its memory order, and of key_weight, float32; None if not needed."""
    needs_key, needs_weight = needs
    d_key = torch.empty_like(key) if needs_key else None
    if key.numel() == 0:
        return d_key, key.new_zeros(key.shape[3], dtype=torch.float32) if needs_weight else None
    grad = near_rows(grad)
    key_weight, cos, sin = dense(key_weight, cos, sin)
    D, rows, programs = key.shape[3], rows_of(key, BACKWARD_TILE), backward_programs(key)
    partial = key.new_empty(programs, D, dtype=torch.float32) if needs_weight else None
    with torch.cuda.device_of(key):  # Triton launches on the current device
        prepare_keys_backward_kernel[(programs,)](
            grad, key, d_key, partial, key_weight, cos, sin,
            *grad.stride(), *key.stride(), *(key if d_key is None else d_key).stride(),
            0 if cos is None else cos.stride(0),
            rows.total, rows.inner, rows.middle, 0 if cos is None else position, eps,
            NORM=norm or "none", HAS_WEIGHT=key_weight is not None, HAS_ROPE=cos is not None,
            NEEDS_KEY=needs_key, NEEDS_WEIGHT=needs_weight,
            HEADS_INSIDE=rows.heads_inside, D=D, HALF=launch.padded((D + 1) // 2),
            BLOCK=rows.per_tile, num_warps=4, **launch.OPTIONS,
        )  # fmt: skip
    return d_key, None if partial is None else partial.sum(0)
