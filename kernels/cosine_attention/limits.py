"""What the cosine_attention kernels can serve, their tiles and bounds, told without Triton."""

import math
from typing import NamedTuple

import torch

from pyseq.kernels import launch
from pyseq.kernels.heads import Tiles, refuse

__all__ = [
    "BackwardTiles",
    "backward_tiles",
    "fixed_offset",
    "forward_tiles",
    "logit_bound",
    "refuse",
]


def forward_tiles(D: int, dtype: torch.dtype, capability: int, plain: bool) -> Tiles:
    """For heads of width D, `plain` without window, prefix and gains; all compile without spills.

    Not tuned on a GPU yet.
    """
    if dtype == torch.float32:  # no tensor cores: every product is unrolled
        return Tiles(64 if D <= 128 else 16, 32, 8, 1)
    if launch.roomy(capability) and plain:
        if D <= 64:
            return Tiles(128, 128, 8, 2)
        return Tiles(128, 64, 8, 3) if D <= 128 else Tiles(128, 32, 8, 2)
    if D <= 64:
        return Tiles(128, 64, 8, 2)
    return Tiles(128, 32, 8, 2) if D <= 128 else Tiles(64, 32, 8, 1)


class BackwardTiles(NamedTuple):
    """Of the kernel that makes the gradients of keys and values, and of that of the queries."""

    keys: Tiles
    queries: Tiles


def backward_tiles(D: int, dtype: torch.dtype, capability: int) -> BackwardTiles:
    """For heads of width D; all compile without spills. Not tuned on a GPU yet."""
    if dtype == torch.float32:
        if D > 128:
            return BackwardTiles(Tiles(16, 16, 4, 1), Tiles(16, 16, 4, 1))
        keys = Tiles(32, 32, 4 if D <= 64 else 8, 1)
        return BackwardTiles(keys, keys if D <= 64 else Tiles(32, 16, 8, 1))
    if D <= 64:
        return BackwardTiles(Tiles(64, 128, 8, 2), Tiles(128, 64, 8, 2))
    if launch.roomy(capability):
        if D <= 128:  # a padded width costs registers for its masks
            return BackwardTiles(Tiles(64 if D == 128 else 32, 128, 8, 2), Tiles(128, 64, 8, 2))
        return BackwardTiles(Tiles(32, 32, 4, 1), Tiles(32, 32, 8, 1))
    if D <= 128:
        return BackwardTiles(Tiles(32, 64, 4, 2), Tiles(128, 32, 8, 2))
    return BackwardTiles(Tiles(32, 32, 8, 1), Tiles(64, 32, 8, 1))


def logit_bound(scale_bound: float | None, norm: str | None, D: int) -> float | None:
    """What no |logit| exceeds: |<q, k>| is at most 1 under "l2", D under "rms" and "layer"."""
    return scale_bound if scale_bound is None or norm in ("l2", None) else D * scale_bound


def fixed_offset(logit_bound: float | None, S: int, dtype: torch.dtype) -> float | None:
    """What to subtract from every logit so that no exponential or sum overflows or vanishes.

    With |logit| <= bound, exp(logit - c) lies in [e^-(bound + c), e^(bound - c)], whose sum over S
    keys is at most e^64: times values up to 5e10 it fits float32. None where there is no bound, or
    one so large that the smallest term would vanish: then the running maximum is needed.
    """
    if logit_bound is None:
        return None
    bound = 1.01 * logit_bound if dtype == torch.bfloat16 else logit_bound
    offset = max(0.0, bound + math.log(max(S, 1)) - 64)
    # Weights in float16 are normal numbers only from e^-9.7 to e^11.
    largest = 9.7 if dtype == torch.float16 else 70 - offset
    return offset if bound <= largest else None
