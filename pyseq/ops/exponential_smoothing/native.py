"""exponential_smoothing by the CPU's kernels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyseq.ops import backends


def forward(values: Tensor, alpha: Tensor, initial: Tensor) -> Tensor:
    """a_t of values (B, T, H, D), in their memory order."""
    out = torch.empty_like(values)
    backends.core().exponential_smoothing(
        values.detach(),
        backends.as_float32(alpha),
        backends.as_float32(initial),
        out,
        torch.get_num_threads(),
    )
    return out


def backward(
    grad: Tensor, values: Tensor, alpha: Tensor, initial: Tensor, needs: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of values, alpha and initial that `needs` asks for; sums in float32."""
    parameters = [backends.as_float32(x) for x in (alpha, initial)]
    found: list[Tensor | None] = [
        torch.empty_like(x) if need else None
        for x, need in zip((values, *parameters), needs, strict=True)
    ]
    if values.numel() == 0:
        return [None if x is None else x.zero_() for x in found]
    backends.core().exponential_smoothing_backward(
        grad.detach(), values.detach(), *parameters, *found, torch.get_num_threads()
    )
    return found
