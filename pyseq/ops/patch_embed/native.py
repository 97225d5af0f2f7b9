"""patch_embed by the CPU's kernels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyseq.ops import backends


def forward(
    samples: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    center: Tensor,
    spread: Tensor,
    N: int,
    stride: int,
) -> Tensor:
    """The embeddings (B, N, C); center and spread are () or (B,)."""
    B, C = samples.shape[0], weight.shape[0]
    out = weight.new_empty(B, N, C)
    backends.core().patch_embed(
        samples.detach(),
        weight.detach(),
        None if bias is None else bias.detach().contiguous(),
        _per_row(center, B),
        _per_row(spread, B),
        out,
        stride,
        torch.get_num_threads(),
    )
    return out


def backward(
    grad: Tensor,
    samples: Tensor,
    weight: Tensor,
    center: Tensor,
    spread: Tensor,
    stride: int,
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of samples, weight and bias that `needs` asks for; sums in float32."""
    B, C = samples.shape[0], weight.shape[0]
    like = (samples, weight, weight.new_empty(C))
    found = [torch.empty_like(x) if need else None for x, need in zip(like, needs, strict=True)]
    if grad.numel() == 0:
        return [None if x is None else x.zero_() for x in found]
    backends.core().patch_embed_backward(
        grad.detach(),
        samples.detach(),
        weight.detach(),
        _per_row(center, B),
        _per_row(spread, B),
        *found,
        stride,
        torch.get_num_threads(),
    )
    return found


def _per_row(x: Tensor, B: int) -> Tensor:
    """A tensor () or (B,) as (B,) in float32."""
    return x.detach().to(torch.float32).expand(B)
