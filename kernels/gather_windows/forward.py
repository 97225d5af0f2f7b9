"""Gather windows of a 16-bit stream that lies on the GPU, widening on the way."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyseq.kernels.gather_windows.limits import BLOCK


@triton.jit
def gather_windows_kernel(
    stream_ptr,
    offsets_ptr,
    out_ptr,
    length,
    BLOCK: tl.constexpr,
):
    """One program copies up to BLOCK symbols of one window; grid (N, ceil(length / BLOCK))."""
    window = tl.program_id(0).to(tl.int64)  # window * length passes 2^31
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < length
    start = tl.load(offsets_ptr + window)
    symbols = tl.load(stream_ptr + start + column, mask=mask, other=0)
    tl.store(out_ptr + window * length + column, symbols.to(out_ptr.dtype.element_ty), mask=mask)


def gather_windows_forward(
    stream: Tensor, offsets: Tensor, length: int, dtype: torch.dtype
) -> Tensor:
    """Launch the kernel on a contiguous (S,) uint16 stream and (N,) int64 offsets."""
    out = torch.empty(offsets.shape[0], length, dtype=dtype, device=stream.device)
    if out.numel() > 0:
        grid = (offsets.shape[0], triton.cdiv(length, BLOCK))
        with torch.cuda.device_of(stream):  # Triton launches on the current device
            gather_windows_kernel[grid](stream, offsets, out, length, BLOCK=BLOCK)
    return out
