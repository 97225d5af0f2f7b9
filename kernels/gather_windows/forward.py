"""Gather windows of a 16-bit stream that lies on the GPU, widening on the way.

The windows are written as one long row, so that a program has no idle threads whatever the length,
and every write is 16 bytes wide and aligned. A window may start at any symbol, so reads are as wide
only where a tile lies inside one window and starts at a fitting place; elsewhere each symbol is
read by itself, out of sectors that the neighbouring threads read too.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.gather_windows import limits


# Batches differ in their sizes more often than a kernel is worth compiling.
@triton.jit(do_not_specialize=["windows", "length", "reciprocal"])
def gather_windows_kernel(
    stream_ptr, offsets_ptr, out_ptr, windows, length, reciprocal,
    BLOCK: tl.constexpr, VECTOR: tl.constexpr, IS_SHORT: tl.constexpr, IS_BIG: tl.constexpr,
):  # fmt: skip
    """Write symbols [program * BLOCK, + BLOCK) of all windows in a row; grid (programs,)."""
    first = tl.program_id(0)
    if IS_BIG:
        first = first.to(tl.int64)
    first *= BLOCK
    window = first // length
    column = (first - window * length).to(tl.int32)
    start = tl.load(offsets_ptr + window) + column
    offs_g = VECTOR * tl.arange(0, BLOCK // VECTOR)
    offs_v = tl.arange(0, VECTOR)
    offs = offs_g[:, None] + offs_v[None, :]  # (BLOCK / VECTOR, VECTOR)
    if (column + BLOCK <= length) & (start % VECTOR == 0):
        start = start // VECTOR * VECTOR  # which tells the compiler
        symbols = tl.load(stream_ptr + start + offs)
        tl.store(out_ptr + first + offs, symbols.to(out_ptr.dtype.element_ty))
        return
    column += offs_g
    if IS_SHORT:
        # 2 column * (2^31 / length + e) / 2^32 with e < 1, exact since column < 2 BLOCK <= 2^12.
        skipped = tl.umulhi((2 * column).to(tl.uint32), reciprocal.to(tl.uint32)).to(tl.int32)
    else:
        skipped = (column >= length).to(tl.int32)
    column -= skipped * length
    window += skipped
    left = length - column  # symbols up to the end of the window in which a vector begins
    here = tl.load(offsets_ptr + window, mask=window < windows, other=0) + column
    after = tl.load(offsets_ptr + window + 1, mask=window + 1 < windows, other=0) - left
    place = tl.where(offs_v[None, :] < left[:, None], here[:, None], after[:, None])
    from_ptr = stream_ptr + place + offs_v[None, :]
    total = length.to(first.dtype) * windows
    if first + BLOCK <= total:  # a mask would split the writes
        tl.store(out_ptr + first + offs, tl.load(from_ptr).to(out_ptr.dtype.element_ty))
    else:
        mask = offs < (total - first).to(tl.int32)
        symbols = tl.load(from_ptr, mask=mask, other=0)
        tl.store(out_ptr + first + offs, symbols.to(out_ptr.dtype.element_ty), mask=mask)


def gather_windows_forward(
    stream: Tensor, offsets: Tensor, length: int, dtype: torch.dtype
) -> Tensor:
    """Launch the kernel on a contiguous (S,) uint16 stream and (N,) int64 offsets."""
    windows = offsets.shape[0]
    out = torch.empty(windows, length, dtype=dtype, device=stream.device)
    if out.numel() == 0:
        return out
    block, vector = limits.tile(length, dtype.itemsize)
    programs = triton.cdiv(out.numel(), block)
    reciprocal = -(-(2**31) // length)  # of the length, rounded up
    with torch.cuda.device_of(stream):  # Triton launches on the current device
        gather_windows_kernel[(programs,)](
            stream, offsets, out, windows, length, reciprocal,
            BLOCK=block, VECTOR=vector, IS_SHORT=length < block,
            IS_BIG=programs * block >= 2**31, **launch.OPTIONS,
        )  # fmt: skip
    return out
