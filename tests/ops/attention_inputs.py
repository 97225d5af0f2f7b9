"""Inputs of an attention, and the rows of queries and keys that its oracles are made from."""

import torch
from torch import Tensor

from tests import correctness
from tests.correctness import random, swapped

# The sizes around a tile of 64 keys or queries.
SIZES = [1, 63, 64, 65, 131]
NORMS = ["l2", "rms", "layer", None]
STRIDES = correctness.STRIDES | {"heads_last": lambda x: swapped(x, 1, 2)}


def attention_inputs(B=1, H=2, G=1, T=5, S=5, D=8) -> dict[str, Tensor]:
    """Query (B, H, T, D), key and value (B, G, S, D)."""
    return {
        "query": random(B, H, T, D, seed=1),
        "key": random(B, G, S, D, seed=2),
        "value": random(B, G, S, D, seed=3),
    }


def scales(H: int) -> Tensor:
    """An inverse temperature for every head."""
    return torch.linspace(2, 12, H, dtype=torch.float32)


def angles(positions: int, D: int) -> tuple[Tensor, Tensor]:
    """The tables (cos, sin) of a rotation, (positions, D/2) each."""
    angle = random(positions, D // 2, seed=9)
    return angle.cos(), angle.sin()


def ready(x, norm, eps, weight, rope, position):
    """The oracle of a row (D,) of queries or keys, one formula per line."""
    D = x.shape[0]
    if norm == "l2":
        length = torch.sqrt((x * x).sum()) if bool((x != 0).any()) else x.new_zeros(())
        x = x / length if length > eps else x / eps
    if norm == "layer":
        x = x - x.sum() / D
    if norm in ("rms", "layer"):
        x = x / torch.sqrt((x * x).sum() / D + eps)
    if weight is not None:
        x = weight * x
    if rope is not None:
        turned = torch.complex(x[: D // 2], x[D // 2 :]) * torch.complex(
            rope[0][position].double(), rope[1][position].double()
        )
        x = torch.cat([turned.real, turned.imag])
    return x
