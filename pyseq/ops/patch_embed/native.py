"""patch_embed by the CPU's kernels."""

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


def _per_row(x: Tensor, B: int) -> Tensor:
    """A tensor () or (B,) as (B,) in float32."""
    return x.detach().to(torch.float32).expand(B)
