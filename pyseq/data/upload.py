"""Symbols read from files into the memory of a device."""

import contextlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pyseq.data.transfer import usable_device
from pyseq.errors import UserError

PART_SYMBOLS = 1 << 24  # copied at a time: 32 MiB of pinned memory, and 32 more to read meanwhile
_OTHERS = "'mmap', 'pread' or 'ram' fit"


def upload_device(asked: torch.device | str | None) -> torch.device:
    """Where a stream with io "gpu" is kept; None is the current CUDA device.

    Raises:
        UserError: torch can use no such device.
    """
    return usable_device("io is 'gpu'", "cuda" if asked is None else asked, _OTHERS)


def upload(
    name: str, symbols: int, device: torch.device, read: Callable[[int, np.ndarray], None]
) -> Tensor:
    """Read one part of a stream while the one before is copied to the device.

    Args:
        name (str): what messages call the stream.
        symbols (int): how many there are, at least 1.
        device (torch.device): with its index, if it is a GPU.
        read (Callable): read(start, out) fills `out`, uint16, with the symbols from `start` on.

    Returns:
        Tensor (symbols,), uint16, on the device; any of its CUDA streams may read it.

    Raises:
        UserError: the symbols do not fit into the device's free memory.
    """
    whole = _allocate(name, symbols, device)
    on_gpu = device.type == "cuda"
    size = min(PART_SYMBOLS, symbols)
    parts = [torch.empty(size, dtype=torch.uint16, pin_memory=on_gpu) for _ in range(2)]
    copied = [torch.cuda.Event() for _ in parts] if on_gpu else []
    for i, first in enumerate(range(0, symbols, size)):
        part = parts[i % 2][: symbols - first]
        if on_gpu and i >= 2:
            copied[i % 2].synchronize()
        read(first, part.numpy())
        whole[first : first + len(part)].copy_(part, non_blocking=True)
        if on_gpu:
            copied[i % 2].record(torch.cuda.current_stream(device))
    if on_gpu:
        torch.cuda.current_stream(device).synchronize()
    return whole


def _allocate(name: str, symbols: int, device: torch.device) -> Tensor:
    needed, free = 2 * symbols, _free_bytes(device)
    if needed <= free:
        with contextlib.suppress(torch.OutOfMemoryError):  # somebody else may have been faster
            return torch.empty(symbols, dtype=torch.uint16, device=device)
    raise UserError(
        f"{name}: io is 'gpu', and {symbols:,} symbols take {needed / 2**30:.2f} GiB, where"
        f" {device} has {free / 2**30:.2f} GiB free; {_OTHERS}"
    )


def _free_bytes(device: torch.device) -> float:
    """What a tensor may take: what is free for everyone, and what PyTorch keeps for tensors."""
    if device.type != "cuda":
        return float("inf")
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept
