"""What the hard_attention kernels can serve, and their tiles, told without Triton."""

from typing import NamedTuple

import torch

from pyseq.kernels import launch
from pyseq.kernels.heads import refuse

__all__ = [
    "Tiles",
    "copies_at_a_time",
    "forward_tiles",
    "key_tiles",
    "query_tiles",
    "refuse",
    "sums_tiles",
]


class Tiles(NamedTuple):
    """How much of the work one program takes at a time, and how."""

    rows: int  # of queries or keys whose results a program makes
    columns: int  # of keys or queries that it takes at a time
    warps: int
    stages: int


def forward_tiles(D: int, dtype: torch.dtype, capability: int) -> Tiles:
    """For heads of width D; all compile without spills. Not tuned on a GPU yet."""
    if dtype == torch.float32:
        return Tiles(64, 32, 4, 2) if D <= 128 else Tiles(32, 32, 4, 2)
    if D <= 128:
        return Tiles(128, 64, 8, 3)
    return Tiles(64, 64, 4, 3) if launch.roomy(capability) else Tiles(64, 32, 4, 2)


def sums_tiles(D: int, dtype: torch.dtype) -> Tiles:
    """For the sums of every query that the gradients of query and key are made from."""
    if dtype == torch.float32:
        return Tiles(32, 16, 4, 2) if D <= 128 else Tiles(16, 16, 16, 1)
    return Tiles(128, 64, 8, 2) if D <= 128 else Tiles(64, 32, 8, 2)


def query_tiles(D: int, dtype: torch.dtype) -> Tiles:
    """For the gradient of the query."""
    if dtype == torch.float32:
        return Tiles(32, 16, 4, 2) if D <= 128 else Tiles(16, 16, 8, 1)
    if D <= 64:
        return Tiles(128, 64, 8, 2)
    return Tiles(128, 32, 8, 2) if D <= 128 else Tiles(32, 32, 8, 2)


def key_tiles(D: int, dtype: torch.dtype) -> Tiles:
    """For the gradient of the key."""
    if dtype == torch.float32:
        return Tiles(32, 16, 4, 1) if D <= 128 else Tiles(32, 16, 8, 1)
    return Tiles(128, 32, 8, 2) if D <= 128 else Tiles(32, 32, 8, 2)


def copies_at_a_time(block_d: int) -> int:
    """How many rows of the output's gradient one program of the copy's backward adds at once."""
    return 2048 // block_d
