"""Rows of queries and keys made ready for products, and the way back through what made them.

The forward does it in every tile that reads a key. For the backward, whose two kernels read a row
many times, two kernels write prepared rows without a NaN, once, and of every query its log-sum-exp
and `delta`.
"""

import triton
import triton.language as tl

from pyseq.kernels.attention import LOG2_E, clean_rows
from pyseq.kernels.prepare_keys.rows import (
    clean,
    half_masks,
    load_angles,
    load_halves,
    load_vector,
    normalise,
    rotate,
    through_norm,
)

ROWS = 16  # that one program prepares


@triton.jit
def load_prepared(
    ptr, weight_ptr, cos_ptr, sin_ptr,
    offs_row, mask_row, position,
    stride_row, stride_d, stride_angle, stride_angle_d, eps,
    NORM: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_ROPE: tl.constexpr,
    D: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """Halves of prepared rows, in the dtype of the memory, for a product on tensor cores."""
    a, b = load_halves(ptr, offs_row, mask_row, stride_row, stride_d, D, HALF)
    dtype = ptr.dtype.element_ty
    if NORM != "none" or HAS_WEIGHT or HAS_ROPE:
        a, b, _factor = normalise(a.to(tl.float32), b.to(tl.float32), eps, NORM, D, HALF)
        if HAS_WEIGHT:
            weight_a, weight_b = load_vector(weight_ptr, D, HALF)
            a = a * weight_a
            b = b * weight_b
        if HAS_ROPE:
            cos, sin = load_angles(
                cos_ptr, sin_ptr, tl.maximum(position, 0), mask_row,
                stride_angle, stride_angle_d, D, HALF,
            )  # fmt: skip
            a, b = rotate(a, b, cos, sin)
    return a.to(dtype), b.to(dtype)


@triton.jit
def store_prepared(ptr, a, b, offs_row, HALF: tl.constexpr):
    """Halves as contiguous rows of 2 * HALF columns, padding and all."""
    places = ptr + offs_row[:, None].to(tl.int64) * (2 * HALF) + tl.arange(0, HALF)[None, :]
    tl.store(places, a)
    tl.store(places + HALF, b)


@triton.jit
def store_rows(ptr, x, offs_row, BLOCK_D: tl.constexpr):
    """Whole rows as contiguous ones, padding and all."""
    places = ptr + offs_row[:, None].to(tl.int64) * BLOCK_D + tl.arange(0, BLOCK_D)[None, :]
    tl.store(places, x)


@triton.jit
def largest_scale(scale_ptr, group, members, stride_scale):
    """The largest |scale| of a key head's query heads; 1 where all are 0."""
    largest = tl.full((), 0.0, tl.float32)
    for member in tl.range(0, members):
        scale = tl.load(scale_ptr + (group * members + member) * stride_scale).to(tl.float32)
        largest = tl.maximum(largest, tl.abs(scale))
    return tl.where(largest == 0.0, 1.0, largest)


@triton.jit
def prepare_queries_kernel(
    q_ptr, out_ptr, grad_ptr, lse_ptr, scale_ptr, query_weight_ptr, cos_ptr, sin_ptr, lengths_ptr,
    prepared_ptr, clean_grad_ptr, lse2_ptr, delta_ptr, scaled_delta_ptr, middle_ptr,
    stride_qb, stride_qh, stride_qt, stride_qd,
    stride_ob, stride_oh, stride_ot, stride_od,
    stride_gb, stride_gh, stride_gt, stride_gd,
    stride_scale, stride_angle, stride_angle_d,
    H, G, T, padded_t, S, window, prefix, eps,
    NORM: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_ROPE: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    D: tl.constexpr, HALF: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Prepared queries, and of each its log-sum-exp to base 2, delta, share * delta and middle.

    A head's share is its scale as a part of the largest of those that share its key head. The
    gradients of a row's logits <q, k> add up to 0, but for the rounding of the output that delta is
    made from; middle, a number near the logits that count, is taken from all of them to keep that
    out of the gradient of scale. No logit lies much beyond |q|^2, where queries are like keys.

    The log-sum-exp says what a row may do. NaN: its output's gradient is bad and spoils what it
    reaches. Infinite: it has no share in any gradient, having seen no key, or a bad one.
    """
    batch = (tl.program_id(1) // H).to(tl.int64)
    head = (tl.program_id(1) % H).to(tl.int64)
    place = tl.program_id(1).to(tl.int64) * padded_t
    keys = S
    if HAS_LENGTHS:
        keys = tl.load(lengths_ptr + batch).to(tl.int32)
    offs_t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    mask_t = offs_t < T
    a, b = load_prepared(
        q_ptr + batch * stride_qb + head * stride_qh,
        query_weight_ptr, cos_ptr, sin_ptr, offs_t, mask_t, offs_t + (keys - T),
        stride_qt, stride_qd, stride_angle, stride_angle_d, eps,
        NORM, HAS_WEIGHT, HAS_ROPE, D, HALF,
    )  # fmt: skip
    columns = tl.arange(0, 2 * HALF)
    mask = mask_t[:, None] & (columns < D)[None, :]
    places = out_ptr + batch * stride_ob + head * stride_oh
    places += offs_t[:, None].to(tl.int64) * stride_ot + columns[None, :] * stride_od
    out = tl.load(places, mask=mask, other=0.0).to(tl.float32)
    places = grad_ptr + batch * stride_gb + head * stride_gh
    places += offs_t[:, None].to(tl.int64) * stride_gt + columns[None, :] * stride_gd
    given = tl.load(places, mask=mask, other=0.0)
    grad = given.to(tl.float32)
    lse_ptr += tl.program_id(1).to(tl.int64) * T
    lse = tl.load(lse_ptr + offs_t, mask=mask_t, other=float("-inf"))

    unseeing = lse == float("-inf")
    bad = (tl.sum(out * 0.0, 1) + lse * 0.0) != 0.0  # 0 * inf is NaN too
    bad_grad = (tl.sum(grad * 0.0, 1) != 0.0) & (unseeing == 0)
    delta = tl.where(bad | bad_grad, 0.0, tl.sum(out * grad, 1))
    lse = tl.where(bad, float("inf"), lse * LOG2_E)
    lse = tl.where(bad_grad, float("nan"), lse)
    a = tl.where(bad[:, None], 0.0, a)
    b = tl.where(bad[:, None], 0.0, b)
    a, b, _bad = clean(a, b)
    store_prepared(prepared_ptr + place * (2 * HALF), a, b, offs_t, HALF)
    given = tl.where((bad | bad_grad)[:, None], 0.0, given)
    store_rows(clean_grad_ptr + place * (2 * HALF), given, offs_t, 2 * HALF)
    scale = tl.load(scale_ptr + head * stride_scale).to(tl.float32)
    tl.store(lse2_ptr + place + offs_t, lse)
    tl.store(delta_ptr + place + offs_t, delta)
    fa = a.to(tl.float32)
    fb = b.to(tl.float32)
    reach = tl.sum(fa * fa, 1) + tl.sum(fb * fb, 1)
    seen = tl.full((BLOCK_T,), 0, tl.int32) + keys  # about how many keys a query sees
    if CAUSAL:
        seen = tl.minimum(seen, offs_t + (keys - T) + 1)
    if HAS_WINDOW:
        seen = tl.minimum(seen, window if CAUSAL else 2 * window - 1)
    seen = tl.maximum(tl.minimum(tl.maximum(seen, 0) + prefix, keys), 1)
    middle = lse - tl.log2(seen.to(tl.float32))  # of even weights it is their logits' mean
    middle /= tl.where(scale == 0.0, float("inf"), scale * LOG2_E)
    middle = tl.minimum(tl.maximum(middle, -reach), reach)
    tl.store(middle_ptr + place + offs_t, tl.where(tl.abs(lse) < float("inf"), middle, 0.0))
    largest = largest_scale(scale_ptr, head // (H // G), H // G, stride_scale)
    tl.store(scaled_delta_ptr + place + offs_t, delta * (scale / largest))


@triton.jit
def prepare_keys_kernel(
    k_ptr, v_ptr, key_weight_ptr, cos_ptr, sin_ptr, prepared_ptr, clean_value_ptr,
    stride_kb, stride_kg, stride_ks, stride_kd,
    stride_vb, stride_vg, stride_vs, stride_vd,
    stride_angle, stride_angle_d, G, S, padded_s, eps,
    NORM: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_ROPE: tl.constexpr,
    D: tl.constexpr, HALF: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Prepared keys and the values, zeros where one is not finite."""
    batch = (tl.program_id(1) // G).to(tl.int64)
    group = (tl.program_id(1) % G).to(tl.int64)
    offs_s = tl.program_id(0) * BLOCK_S + tl.arange(0, BLOCK_S)
    mask_s = offs_s < S
    a, b = load_prepared(
        k_ptr + batch * stride_kb + group * stride_kg,
        key_weight_ptr, cos_ptr, sin_ptr, offs_s, mask_s, offs_s,
        stride_ks, stride_kd, stride_angle, stride_angle_d, eps,
        NORM, HAS_WEIGHT, HAS_ROPE, D, HALF,
    )  # fmt: skip
    a, b, _bad = clean(a, b)
    place = tl.program_id(1).to(tl.int64) * padded_s
    store_prepared(prepared_ptr + place * (2 * HALF), a, b, offs_s, HALF)
    columns = tl.arange(0, 2 * HALF)
    places = v_ptr + batch * stride_vb + group * stride_vg
    places += offs_s[:, None].to(tl.int64) * stride_vs + columns[None, :] * stride_vd
    v = tl.load(places, mask=mask_s[:, None] & (columns < D)[None, :], other=0.0)
    v, _bad = clean_rows(v)
    store_rows(clean_value_ptr + place * (2 * HALF), v, offs_s, 2 * HALF)


@triton.jit
def as_halves(x, ROWS: tl.constexpr, HALF: tl.constexpr):
    """The halves (ROWS, HALF) of x (ROWS, 2 * HALF)."""
    return tl.split(tl.permute(tl.reshape(x, (ROWS, 2, HALF)), (0, 2, 1)))


@triton.jit
def store_vector(ptr, a, b, D: tl.constexpr, HALF: tl.constexpr):
    """Halves (1, HALF) to a contiguous (D,)."""
    column = tl.arange(0, HALF)[None, :]
    first, second = half_masks(D, HALF)
    tl.store(ptr + column, a, mask=first)
    tl.store(ptr + column + (D + 1) // 2, b, mask=second)


@triton.jit
def through_preparation(
    da, db, ptr, weight_ptr, cos_ptr, sin_ptr,
    offs_row, mask_row, position, stride_row, stride_d, stride_angle, stride_angle_d, eps,
    NORM: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_ROPE: tl.constexpr,
    D: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """From the gradient of prepared rows to that of the raw rows at `ptr`.

    Returns:
        (da, db, weight_a, weight_b): that gradient, and the gain's (1, HALF) as halves, in which
            rows that are not finite have no share.
    """
    if HAS_ROPE:
        cos, sin = load_angles(
            cos_ptr, sin_ptr, tl.maximum(position, 0), mask_row,
            stride_angle, stride_angle_d, D, HALF,
        )  # fmt: skip
        da, db = rotate(da, db, cos, -sin)
    a, b = load_halves(ptr, offs_row, mask_row, stride_row, stride_d, D, HALF)
    a, b, factor = normalise(a.to(tl.float32), b.to(tl.float32), eps, NORM, D, HALF)
    a, b, _bad = clean(a, b)
    weight_a = tl.sum(da * a, 0)[None, :]
    weight_b = tl.sum(db * b, 0)[None, :]
    if HAS_WEIGHT:
        gain_a, gain_b = load_vector(weight_ptr, D, HALF)
        da = da * gain_a
        db = db * gain_b
    da, db = through_norm(da, db, a, b, factor, eps, NORM, D, HALF)
    return da, db, weight_a, weight_b
