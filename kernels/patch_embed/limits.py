"""What the patch_embed kernels can serve, and their tiles, told without Triton."""

from typing import NamedTuple

import torch

from pyseq.kernels.launch import padded

MOST_PARTS = 512  # programs that share the sums over patches, each with a tile of scratch


LONGEST = 1 << 30  # samples of a row; places in it are counted in 32 bits


class Tiles(NamedTuple):
    """How much of the work one program takes at a time, with 4 warps."""

    block_n: int  # patches of one row
    block_c: int
    block_p: int
    stages: int = 3


def refuse(samples: torch.Tensor) -> str | None:
    """Why no kernel can serve these samples (B, T), or None."""
    if samples.dtype == torch.float64:
        return "float64 samples are not served"
    if samples.shape[1] > LONGEST:
        return f"rows of {samples.shape[1]} samples are longer than {LONGEST}, the kernels' longest"
    return None


def forward_tiles(N: int, C: int, P: int, dtype: torch.dtype) -> Tiles:
    """For N patches of P samples to C features in weight's dtype. Not tuned on a GPU yet."""
    # Larger ones spill, as everywhere here: float32 is multiplied without tensor cores.
    widest = 64 if dtype == torch.float32 else 128
    return Tiles(min(64, padded(N)), min(widest, padded(C)), 16)


def samples_tiles(N: int, C: int, P: int, dtype: torch.dtype) -> Tiles:
    """For the gradient of the samples."""
    longest = 16 if dtype == torch.float32 else 32
    return Tiles(min(64, padded(N)), min(64, padded(C)), min(longest, padded(P)))


def weight_tiles(N: int, C: int, P: int, dtype: torch.dtype) -> Tiles:
    """For the gradient of the weight, a sum over patches."""
    if dtype == torch.float32:
        return Tiles(16, min(64, padded(C)), 16, 1)
    return Tiles(min(32, padded(N)), min(64, padded(C)), min(32, padded(P)), 2)


def parts(patch_tiles: int, weight_tiles: int) -> int:
    """Into how many sums the sum over all patches is split, for each tile of the weight."""
    return max(1, min(patch_tiles, MOST_PARTS // weight_tiles))
