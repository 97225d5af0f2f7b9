"""What the adaptive_attention kernels can serve, and their tiles, told without Triton."""

from typing import NamedTuple

import torch

WIDEST = 256
MOST_PROGRAMS = 65_535  # CUDA's limit on the second axis of a grid


class Tiles(NamedTuple):
    """How much of the work one program takes at a time, and how."""

    block_t: int
    block_s: int
    warps: int
    stages: int


def refuse(query: torch.Tensor) -> str | None:
    """Why no kernel can serve this query (B, H, T, D), or None."""
    B, H, _, D = query.shape
    if D > WIDEST:
        return f"heads of {D} are wider than {WIDEST}, the kernel's widest"
    if B * H > MOST_PROGRAMS:
        return f"{B} * {H} heads are more than {MOST_PROGRAMS}, the most of one launch"
    return None


def _single(D: int) -> Tiles:
    """In float32 all three kernels make the products of queries and keys in tiles of one shape.

    Then they are the same to the last bit, which at large logits tells in the weights.
    """
    return Tiles(32, 32, 4, 1) if D <= 32 else Tiles(16, 16, 4, 1)


def forward_tiles(D: int, dtype: torch.dtype, capability: int) -> Tiles:
    """For heads of width D; all compile without spills. Not tuned on a GPU yet."""
    if dtype == torch.float32:
        return _single(D)
    if D <= 64:
        return Tiles(128, 64, 8, 3)
    if D <= 128:
        return Tiles(128, 64, 8, 3 if capability >= 90 else 2)
    return Tiles(32, 32, 4, 1)


def query_tiles(D: int, dtype: torch.dtype, capability: int) -> Tiles:
    """Of the kernel that makes the gradient of the query; see `forward_tiles`."""
    if dtype == torch.float32:
        return _single(D)
    if D <= 64:
        return Tiles(128, 64, 8, 2) if capability >= 90 else Tiles(128, 32, 8, 2)
    if D <= 128:
        return Tiles(128, 32, 8, 2) if capability >= 90 else Tiles(64, 32, 8, 1)
    return Tiles(16, 32, 4, 1)


def key_tiles(D: int, dtype: torch.dtype, capability: int) -> Tiles:
    """Of the kernel that makes the gradients of key and value; see `forward_tiles`."""
    if dtype == torch.float32:
        return _single(D)
    if D <= 64:
        return Tiles(128, 64, 8, 1) if capability >= 90 else Tiles(32, 64, 4, 2)
    if D <= 128:
        return Tiles(32, 64, 8, 2)
    return Tiles(32, 32, 8, 1)
