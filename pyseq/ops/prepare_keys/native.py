"""prepare_keys by the CPU's kernels."""

from collections.abc import Sequence

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


def gradients(
    grad: Tensor,
    key: Tensor,
    key_weight: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    norm: str | None,
    eps: float,
    position: int,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Those of key and key_weight that `needs` asks for, the latter in float32."""
    d_key = torch.empty_like(key) if needs[0] else None
    d_weight = key.new_empty(key.shape[3], dtype=torch.float32) if needs[1] else None
    parameters = [backends.as_float32(x) for x in (key_weight, cos, sin)]
    backends.core().prepare_keys_backward(
        grad.detach(),
        key.detach(),
        *parameters,
        d_key,
        d_weight,
        norm,
        eps,
        position,
        torch.get_num_threads(),
    )
    return d_key, d_weight
