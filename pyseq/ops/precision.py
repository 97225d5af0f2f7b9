"""In which dtype ops compute."""

import contextlib

import torch
from torch import Tensor


def accumulation_dtype(x: Tensor) -> torch.dtype:
    """float64 for float64, float32 for everything narrower."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """A block in which tensors on `device` keep the dtypes they are given."""
    if device.type == "meta":  # which has no autocast; torch 2.11 cannot trace the question
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)
