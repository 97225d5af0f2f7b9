"""Rows of queries and keys in registers: loaded as two halves, normalised, weighted, rotated.

A row (D,) is held as its first ceil(D/2) features and the rest, each padded with zeros to HALF
columns, so that the rotation of the pairs (i, i + D/2) needs no exchange between threads. A product
of two rows is the sum of the products of their halves.
"""

import triton
import triton.language as tl


@triton.jit
def half_masks(D: tl.constexpr, HALF: tl.constexpr):
    """Which columns of the two halves hold a feature, (1, HALF) each."""
    column = tl.arange(0, HALF)[None, :]
    return column < (D + 1) // 2, column < D // 2


@triton.jit
def load_halves(ptr, offs_row, mask_row, stride_row, stride_d, D: tl.constexpr, HALF: tl.constexpr):
    """The two halves (rows, HALF) of rows `offs_row`, zeros where a mask is False."""
    column = tl.arange(0, HALF)[None, :]
    first, second = half_masks(D, HALF)
    start = ptr + offs_row[:, None].to(tl.int64) * stride_row
    a = tl.load(start + column * stride_d, mask=mask_row[:, None] & first, other=0.0)
    column += (D + 1) // 2
    b = tl.load(start + column * stride_d, mask=mask_row[:, None] & second, other=0.0)
    return a, b


@triton.jit
def store_halves(
    ptr, a, b, offs_row, mask_row, stride_row, stride_d, D: tl.constexpr, HALF: tl.constexpr
):
    """The inverse of `load_halves`, in the dtype of the memory."""
    column = tl.arange(0, HALF)[None, :]
    first, second = half_masks(D, HALF)
    start = ptr + offs_row[:, None].to(tl.int64) * stride_row
    dtype = ptr.dtype.element_ty
    tl.store(start + column * stride_d, a.to(dtype), mask=mask_row[:, None] & first)
    column += (D + 1) // 2
    tl.store(start + column * stride_d, b.to(dtype), mask=mask_row[:, None] & second)


@triton.jit
def load_vector(ptr, D: tl.constexpr, HALF: tl.constexpr):
    """The halves (1, HALF) of a contiguous (D,), in float32."""
    column = tl.arange(0, HALF)[None, :]
    first, second = half_masks(D, HALF)
    a = tl.load(ptr + column, mask=first, other=0.0)
    b = tl.load(ptr + column + (D + 1) // 2, mask=second, other=0.0)
    return a.to(tl.float32), b.to(tl.float32)


@triton.jit
def load_angles(
    cos_ptr, sin_ptr, offs_row, mask_row, stride_row, stride_d, D: tl.constexpr, HALF: tl.constexpr
):
    """Rows of the tables (cos, sin), (rows, HALF) in float32; no rotation where masked."""
    column = tl.arange(0, HALF)[None, :]
    mask = mask_row[:, None] & (column < D // 2)
    place = offs_row[:, None].to(tl.int64) * stride_row + column * stride_d
    cos = tl.load(cos_ptr + place, mask=mask, other=1.0).to(tl.float32)
    return cos, tl.load(sin_ptr + place, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def row_sum(a, b):
    """The sum over a row's features, (rows, 1); the padding is zeros."""
    return tl.sum(a, 1)[:, None] + tl.sum(b, 1)[:, None]


@triton.jit
def clean(a, b):
    """The halves with zeros for every row that holds a NaN or an infinity, and which they were."""
    bad = row_sum(a * 0.0, b * 0.0) != 0.0  # 0 * inf is NaN too
    return tl.where(bad, 0.0, a), tl.where(bad, 0.0, b), bad


@triton.jit
def normalise(a, b, eps, NORM: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr):
    """float32 halves normalised, and the factor (rows, 1) that did it; NORM "none" leaves them."""
    if NORM == "none":
        return a, b, tl.full((a.shape[0], 1), 1.0, tl.float32)
    else:
        if NORM == "layer":
            mean = row_sum(a, b) / D
            first, second = half_masks(D, HALF)
            a = tl.where(first, a - mean, 0.0)
            b = tl.where(second, b - mean, 0.0)
        square = row_sum(a * a, b * b)
        if NORM == "l2":
            factor = 1.0 / tl.maximum(tl.sqrt(square), eps)
        else:
            factor = 1.0 / tl.sqrt(square / D + eps)
        return a * factor, b * factor, factor


@triton.jit
def rotate(a, b, cos, sin):
    """Rotate the pairs (a_i, b_i); with -sin back again."""
    return a * cos - b * sin, b * cos + a * sin


@triton.jit
def through_norm(
    da, db, a, b, factor, eps, NORM: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr
):
    """The gradient of x from (da, db), that of the normalised row (a, b) = x * factor."""
    if NORM == "none":
        return da, db
    else:
        along = row_sum(da * a, db * b)
        if NORM == "l2":
            # There the factor is 1 / eps and does not depend on x.
            along = tl.where(factor >= 1.0 / eps, 0.0, along)
        else:
            along = along / D
        da = (da - a * along) * factor
        db = (db - b * along) * factor
        if NORM == "layer":
            mean = row_sum(da, db) / D
            first, second = half_masks(D, HALF)
            da = tl.where(first, da - mean, 0.0)
            db = tl.where(second, db - mean, 0.0)
        return da, db
