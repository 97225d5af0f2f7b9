"""What the cosine_decode kernels can serve, their tiles and splits, told without Triton."""

from typing import NamedTuple

import torch
from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.heads import refuse

__all__ = ["Tiles", "refuse", "splits", "splits_pay", "tiles"]

MOST_ROWS = 64  # that one program holds of the queries of a key head
MOST_SPLITS = 128  # of the keys of one entry
PROGRAMS = 2  # per multiprocessor, which has the shared memory for both
INTERPRETED_SPLITS = 3


class Tiles(NamedTuple):
    """How many queries and keys one program takes at a time, and how."""

    block_r: int
    block_s: int
    warps: int
    stages: int


def splits_pay(T: int, shared_by: int) -> bool:
    """Whether T queries of `shared_by` heads are few enough not to be an ordinary attention."""
    return T <= 16 or T * shared_by <= MOST_ROWS


def tiles(rows: int, D: int, dtype: torch.dtype, capability: int) -> Tiles:
    """For `rows` queries of a key head; all compile without spills. Not tuned on a GPU yet."""
    block_r = min(launch.padded(rows), MOST_ROWS)
    if dtype == torch.float32:
        return Tiles(min(block_r, 32), 16, 4, 2 if D <= 128 else 1)
    stages = 3 if launch.roomy(capability) else 2
    if D > 128:
        return Tiles(min(block_r, 32), 32, 4, stages)
    return Tiles(block_r, 64, 4 if block_r <= 32 else 8, stages)


def splits(query: Tensor, programs: int, keys: int, block_s: int) -> int:
    """Among how many programs to split the keys so that all multiprocessors are busy.

    `programs` is how many there are without a split, `keys` the most that one of them sees.
    """
    if query.device.type == "cuda":
        wanted = min(PROGRAMS * launch.multiprocessors(query) // programs, MOST_SPLITS)
    else:
        wanted = INTERPRETED_SPLITS
    return max(1, min(wanted, -(-keys // block_s)))
