"""Dropout with Python's integers: the oracle, with nothing shared with pyseq."""

from collections.abc import Sequence

import torch
from torch import Tensor

WORD, LONG = (1 << 32) - 1, (1 << 64) - 1


def stirred(z: int) -> int:
    """The finaliser of SplitMix64."""
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & LONG
    z = (z ^ z >> 27) * 0x94D049BB133111EB & LONG
    return z ^ z >> 31


def draw(seed: int, indices: Sequence[int], j: int) -> int:
    """The 16 bits of element j of a row."""
    key = seed & LONG
    for index in indices:
        key = stirred(key + (index + 1) * 0x9E3779B97F4A7C15 & LONG)
    x = (j // 32 * 16 + j % 16) + key & WORD
    x = (x ^ x >> 16) * 0x7FEB352D & WORD
    x ^= key >> 32
    x = (x ^ x >> 15) * 0x846CA68B & WORD
    x ^= x >> 16
    return x >> 16 if j % 32 >= 16 else x & 0xFFFF


def factors(seed: int, indices: Sequence[int], length: int, dropout: float) -> Tensor:
    """What the elements of a row are multiplied with, (length,) float64."""
    zeros = round(dropout * 65536)
    kept = [draw(seed, indices, j) >= zeros for j in range(length)]
    return torch.tensor(kept, dtype=torch.float64) * 65536 / (65536 - zeros)
