"""What the adaptive_attention kernels can serve, and their tiles, told without Triton."""

import torch

from pyseq.kernels import heads, launch
from pyseq.kernels.heads import WIDEST, Tiles

WIDEST_SINGLE = 128  # in float32: no tile of wider heads compiles without spills
WIDEST_RAGGED = 128  # of a width that is padded: between 128 and 256 no tiles without spills


def refuse(query: torch.Tensor, *others: torch.Tensor) -> str | None:
    """Why no kernel can serve this query (B, H, T, D), with keys and values like it, or None."""
    D = query.shape[3]
    widest = WIDEST_SINGLE if query.dtype == torch.float32 else WIDEST
    if widest < D:
        return f"{query.dtype} heads of {D} are wider than {widest}, the kernel's widest"
    if WIDEST_RAGGED < D < WIDEST:
        return f"heads of {D} are neither {WIDEST} wide nor at most {WIDEST_RAGGED}"
    return heads.refuse(query, *others)


def _single(D: int, stages: int = 1) -> Tiles:
    """In float32 all three kernels make the products of queries and keys in tiles of one shape.

    Then they are the same to the last bit, which at large logits tells in the weights.
    """
    if D <= 32:
        return Tiles(32, 32, 8, 1)
    return Tiles(16, 16, 4, 1) if D <= 64 else Tiles(16, 16, 8, stages)


def forward_tiles(D: int, dtype: torch.dtype, capability: int) -> Tiles:
    """For heads of width D; all compile without spills. Not tuned on a GPU yet."""
    if dtype == torch.float32:
        return Tiles(32, 32, 4, 1) if D <= 32 else _single(D)
    if D <= 64:
        return Tiles(128, 64, 8, 3)
    if D <= 128:
        return Tiles(128, 64, 8, 3) if launch.roomy(capability) else Tiles(64, 64, 8, 2)
    return Tiles(64, 32, 8, 2)


def query_tiles(D: int, dtype: torch.dtype, capability: int) -> Tiles:
    """Of the kernel that makes the gradient of the query; see `forward_tiles`."""
    if dtype == torch.float32:
        return _single(D)
    if D <= 64:
        return Tiles(128, 64, 8, 2) if launch.roomy(capability) else Tiles(128, 32, 8, 2)
    if D <= 128:
        return Tiles(128, 32, 8, 2) if launch.roomy(capability) else Tiles(64, 32, 8, 1)
    return Tiles(16, 32, 4, 1)


def key_tiles(D: int, dtype: torch.dtype, capability: int) -> Tiles:
    """Of the kernel that makes the gradients of key and value; see `forward_tiles`."""
    if dtype == torch.float32:
        return _single(D, stages=2)
    if D <= 64:
        return Tiles(128, 64, 8, 1) if launch.roomy(capability) else Tiles(64, 32, 4, 1)
    if D <= 128:
        return Tiles(32, 64, 8, 2) if launch.roomy(capability) or D == 128 else Tiles(32, 32, 4, 1)
    return Tiles(32, 32, 8, 1)
