"""Dropout as a pure function of a seed and of where an element stands: the specification.

A forward and its backward draw the same zeros without keeping them, and every backend draws the
same ones. Rows of elements have a key of 64 bits, made of the seed and the row's indices by the
finaliser of SplitMix64; an element's draw is 16 bits of a hash of the key and its place in the row.
`csrc/cpu/dropout.hpp` is the same in C++.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyseq.ops import checks

DRAWS = 1 << 16
BLOCK = 32  # elements j and j + 16 of a block are drawn from the halves of one word

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64)
_WORD_FIRST, _WORD_SECOND = 0x7FEB352D, 0x846CA68B - (1 << 32)


def check(op: str, dropout: float, seed: int | Tensor, device: torch.device) -> None:
    """A share in [0, 1) and a seed: an int, or an int64 tensor () on the CPU or on `device`."""
    if isinstance(dropout, bool) or not isinstance(dropout, int | float):
        raise TypeError(f"{op}: dropout is a {type(dropout).__name__}; a float fits")
    if not 0 <= dropout < 1:
        raise ValueError(f"{op}: dropout is {dropout}; at least 0 and below 1 fits")
    if not isinstance(seed, Tensor):
        checks.count(op, "seed", seed, 0)
        return
    if seed.dtype != torch.int64:
        raise TypeError(f"{op}: seed is {seed.dtype}; int64 fits")
    if seed.dim() != 0:
        raise ValueError(f"{op}: seed has shape {tuple(seed.shape)}; () fits")
    if seed.device.type != "cpu" and seed.device != device:
        raise ValueError(f"{op}: seed on {seed.device}; the CPU or {device} fits")


def as_tensor(seed: int | Tensor) -> Tensor:
    """The seed as an int64 tensor ()."""
    return seed if isinstance(seed, Tensor) else torch.full((), seed, dtype=torch.int64)


def dropped(dropout: float) -> int:
    """How many of `DRAWS` draws are zeros: the share, rounded to multiples of 2^-16."""
    return min(round(dropout * DRAWS), DRAWS - 1)


def factors(
    seed: Tensor, dropout: float, shape: Sequence[int], device: torch.device, dtype: torch.dtype
) -> Tensor | float:
    """What elements are multiplied with: 0, or one over the share that is kept.

    Args:
        seed (Tensor (), int64): which zeros.
        dropout (float): the share of zeros.
        shape (sequence of int): of the elements; the last axis is the row.
        device (torch.device): of the factors.
        dtype (torch.dtype): of the factors.

    Returns:
        Tensor of `shape`, or 1.0 without dropout.
    """
    zeros = dropped(dropout)
    if zeros == 0:
        return 1.0
    kept = draws(seed, shape, device) >= zeros
    return kept.to(dtype) * (DRAWS / (DRAWS - zeros))


def draws(seed: Tensor, shape: Sequence[int], device: torch.device) -> Tensor:
    """A number of 0 to 65535 for every element of `shape`, int32."""
    *rows, length = shape
    key = seed.to(device)
    for size in rows:
        index = torch.arange(1, size + 1, device=device)
        key = _mix(key[..., None] + index * _GOLDEN)
    blocks = -(-length // BLOCK)
    x = torch.arange(blocks * BLOCK // 2, dtype=torch.int32, device=device)
    x = x + key.to(torch.int32)[..., None]
    x = (x ^ _shifted(x, 16)) * _WORD_FIRST
    x = x ^ (key >> 32).to(torch.int32)[..., None]
    x = (x ^ _shifted(x, 15)) * _WORD_SECOND
    x = x ^ _shifted(x, 16)
    halves = torch.stack((x & 0xFFFF, _shifted(x, 16)), -1)
    halves = halves.unflatten(-2, (blocks, BLOCK // 2)).mT  # (*rows, blocks, 2, BLOCK / 2)
    return halves.reshape(*rows, blocks * BLOCK)[..., :length]


def _mix(z: Tensor) -> Tensor:
    """The finaliser of SplitMix64; products wrap around."""
    z = (z ^ _shifted(z, 30)) * _FIRST
    z = (z ^ _shifted(z, 27)) * _SECOND
    return z ^ _shifted(z, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A shift to the right that brings zeros in."""
    width = torch.iinfo(x.dtype).bits
    return (x >> bits) & ((1 << (width - bits)) - 1)
