"""How the exponential_smoothing kernels cut the work, told without Triton; they serve any size."""

from typing import NamedTuple

import torch

SHORTEST_CHUNK = 64
CARRY_LANES = 128  # one warp, 16 bytes of float32 per thread


class Tiles(NamedTuple):
    """How much of the work one program takes."""

    steps: int  # of time, a power of two
    lanes: int  # features of one sequence, heads side by side
    warps: int


def tiles(T: int, features: int, dtype: torch.dtype) -> Tiles:
    """For T steps of `features` = H * D sequences. Not tuned on a GPU yet."""
    per_thread = 4 if dtype == torch.float32 else 8  # 16 bytes
    lanes = min(64 * per_thread, max(32 * per_thread, 1 << (features - 1).bit_length()))
    return Tiles(chunk(T), lanes, lanes // (32 * per_thread))


def chunk(T: int) -> int:
    """Steps that one program runs through: as the number of chunks, about the root of T."""
    steps = SHORTEST_CHUNK
    while 2 * steps * steps < T:
        steps *= 2
    return steps
