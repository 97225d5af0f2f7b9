"""Patches in registers: normalised samples, and products with them that lose none of their bits."""

import triton
import triton.language as tl


@triton.jit
def load_row(center_ptr, spread_ptr, batch, stride_center, stride_spread):
    """The center and spread of a row, in float32."""
    center = tl.load(center_ptr + batch * stride_center).to(tl.float32)
    spread = tl.load(spread_ptr + batch * stride_spread).to(tl.float32)
    return center, spread


@triton.jit
def load_patches(
    samples_ptr, offs_n, offs_p, N, T, stride, stride_t, center, spread,
    P: tl.constexpr, PAD_END: tl.constexpr,
):  # fmt: skip
    """Normalised samples of a row's patches in float32, (rows, columns), those of 0 outside."""
    t = offs_n[:, None] * stride + offs_p[None, :]
    mask = (offs_n < N)[:, None] & (offs_p < P)[None, :]
    if PAD_END:
        t = tl.minimum(t, T - 1)
    x = tl.load(samples_ptr + t.to(tl.int64) * stride_t, mask=mask, other=0).to(tl.float32)
    # Before any cast: 65535 is infinite in float16, and bfloat16 moves 40001 to 39936.
    return tl.div_rn(x - center, spread)


@triton.jit
def split(x):
    """x in float32 as a sum of two numbers, each of which tf32 holds to 2^-21 of x."""
    high = (x.to(tl.int32, bitcast=True) & -0x2000).to(tl.float32, bitcast=True)  # 10 bits stay
    # An infinite sample has no rest; inf - inf is NaN.
    return high, tl.where(tl.abs(x) == float("inf"), 0.0, x - high)


@triton.jit
def product(x, y, acc, HALVES: tl.constexpr, PRECISION: tl.constexpr):
    """acc + x y, x normalised samples in float32 and y of the weight's dtype.

    HALVES: y is bfloat16 or float16, which tf32 holds exactly. Then two products on tensor cores
    lose hardly more than one in float32; x in bfloat16 would lose 16 bits, in float16 its range.
    """
    if HALVES:
        y = y.to(tl.float32)
        high, low = split(x)
        acc = tl.dot(low, y, acc, input_precision="tf32")
        return tl.dot(high, y, acc, input_precision="tf32")
    else:
        return tl.dot(x, y, acc, input_precision=PRECISION)
