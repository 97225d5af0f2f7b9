"""The specification of gather_windows in plain PyTorch."""

import torch
from torch import Tensor


def gather_windows(stream, offsets: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """Row n is stream[offsets[n] : offsets[n] + length], in `dtype`."""
    if isinstance(stream, Tensor):
        return stream.unfold(0, length, 1)[offsets].to(dtype)  # uint16 cannot be index-selected
    windows = torch.empty(len(offsets), length, dtype=dtype)
    for row, offset in zip(windows, offsets.tolist(), strict=True):
        row.copy_(stream[offset : offset + length])
    return windows
