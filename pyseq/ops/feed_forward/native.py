"""feed_forward by the CPU's kernels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyseq.ops import backends
from pyseq.ops.dropout import dropped


def forward(
    x: Tensor,
    weight_in: Tensor,
    bias_in: Tensor,
    weight_out: Tensor,
    bias_out: Tensor,
    seed: Tensor,
    activation: str,
    dropout: float,
) -> Tensor:
    """The output (S, N, O), contiguous."""
    out = x.new_empty(*x.shape[:2], weight_out.shape[1])
    backends.core().feed_forward(
        x.detach(),
        *map(backends.as_float32, (weight_in, bias_in, weight_out, bias_out)),
        out,
        activation == "gelu",
        int(seed),
        dropped(dropout),
        torch.get_num_threads(),
    )
    return out


def backward(
    grad: Tensor,
    x: Tensor,
    weight_in: Tensor,
    bias_in: Tensor,
    weight_out: Tensor,
    bias_out: Tensor,
    seed: Tensor,
    activation: str,
    dropout: float,
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of x and of all weights and biases, None where not needed."""
    x = x.detach()
    weights = [backends.as_float32(w) for w in (weight_in, bias_in, weight_out)]
    like = (x, *weights, bias_out.detach().to(torch.float32, memory_format=torch.contiguous_format))
    found = [
        torch.empty_like(y, memory_format=torch.contiguous_format) if need else None
        for y, need in zip(like, needs, strict=True)
    ]
    backends.core().feed_forward_backward(
        grad.detach(),
        x,
        *weights,
        *found,
        activation == "gelu",
        int(seed),
        dropped(dropout),
        torch.get_num_threads(),
    )
    return found


def is_empty(x: Tensor, weight_out: Tensor) -> bool:
    """Whether a size is 0, which no kernel knows: the reference has nothing to do then either."""
    return x.numel() == 0 or weight_out.numel() == 0
