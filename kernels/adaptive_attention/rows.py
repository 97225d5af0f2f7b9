"""What both directions of adaptive_attention share: rows of memory, and how sharp a row is."""

import triton
import triton.language as tl

LEAST_ENTROPY = tl.constexpr(0.5)  # nats
# As an exponent of 2 it gives exactly 0 in float32, and unlike -inf it may be multiplied with that.
FLOOR = tl.constexpr(-200.0)


@triton.jit
def load_rows(
    ptr, offs_row, mask_row, stride_row, stride_d,
    D: tl.constexpr, BLOCK_D: tl.constexpr, RAGGED: tl.constexpr,
):  # fmt: skip
    """Rows (rows, BLOCK_D), zeros past D and, where RAGGED, where `mask_row` is False."""
    columns = tl.arange(0, BLOCK_D)[None, :]
    places = ptr + offs_row[:, None].to(tl.int64) * stride_row + columns * stride_d
    if RAGGED and D < BLOCK_D:
        return tl.load(places, mask=mask_row[:, None] & (columns < D), other=0.0)
    elif RAGGED:
        return tl.load(places, mask=mask_row[:, None], other=0.0)
    elif D < BLOCK_D:
        return tl.load(places, mask=columns < D, other=0.0)
    else:
        return tl.load(places)


@triton.jit
def store_rows(
    ptr, x, offs_row, mask_row, stride_row, stride_d, D: tl.constexpr, BLOCK_D: tl.constexpr
):
    """The inverse of `load_rows`, in the dtype of the memory."""
    columns = tl.arange(0, BLOCK_D)[None, :]
    places = ptr + offs_row[:, None].to(tl.int64) * stride_row + columns * stride_d
    mask = mask_row[:, None] & (columns < D)
    tl.store(places, x.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def sharpness(nats, COEFFICIENTS: tl.constexpr):
    """beta and its slope at an entropy in nats: the polynomial where it acts, else 1 and 0."""
    beta = tl.zeros_like(nats)
    slope = tl.zeros_like(nats)
    for i in tl.static_range(len(COEFFICIENTS)):
        slope = slope * nats + beta
        beta = beta * nats + COEFFICIENTS[i]
    acts = (nats > LEAST_ENTROPY) & (beta > 1.0)
    return tl.where(acts, beta, 1.0), tl.where(acts, slope, 0.0)
