"""The specification of gather_windows in plain PyTorch."""

import torch
from torch import Tensor


def gather_windows(stream, offsets: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """Row n is stream[offsets[n] : offsets[n] + length], in `dtype`."""
    if isinstance(stream, Tensor):
        windows = stream.view(torch.int16).unfold(0, length, 1)[offsets]  # uint16 has few kernels
        return windows.view(torch.uint16).to(dtype)
    windows = torch.empty(len(offsets), length, dtype=dtype)
    for row, offset in zip(windows, offsets.tolist(), strict=True):
        row.copy_(stream[offset : offset + length])
    return windows


def check_range(offsets: Tensor, length: int, symbols: int) -> None:
    """Raise IndexError for a window that leaves the stream; waits for the offsets' device."""
    if len(offsets) == 0:
        return
    low, high = (int(x) for x in torch.aminmax(offsets))
    if low < 0 or high > symbols - length:
        wrong = low if low < 0 else high
        raise IndexError(
            f"gather_windows: a window of {length} at {wrong} leaves the stream;"
            f" offsets from 0 to {symbols - length} fit; stream ({symbols},)"
        )
