"""prepare_keys by the CPU's kernels."""

import torch
from torch import Tensor

from pyseq.ops import backends


def prepare(
    key: Tensor,
    key_weight: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    norm: str | None,
    eps: float,
    position: int,
) -> Tensor:
    """Key (B, G, S, D) as a cache holds it, in key's memory order."""
    out, key = torch.empty_like(key), key.detach()
    if norm is None and key_weight is None and cos is None:
        return out.copy_(key)  # which keeps every bit of a NaN
    parameters = [backends.as_float32(x) for x in (key_weight, cos, sin)]
    backends.core().prepare_keys(
        key, *parameters, out, norm, eps, position, torch.get_num_threads()
    )
    return out
