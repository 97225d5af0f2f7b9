"""softmax_attention by the CPU's kernels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyseq.ops import backends
from pyseq.ops.dropout import dropped


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Tensor | None,
    seed: Tensor,
    scale: float,
    causal: bool,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """The output (B, H, T, D), in the query's memory order, and the measures (2, B, H, T)."""
    query = query.detach()
    out = torch.empty_like(query)
    measures = query.new_empty((2, *query.shape[:3]), dtype=torch.float32)
    if query.numel() == 0 or key.numel() == 0:
        return out.zero_(), measures.zero_()
    backends.core().softmax_attention(
        query,
        key.detach(),
        value.detach(),
        lengths,
        out,
        measures,
        scale,
        causal,
        int(seed),
        dropped(dropout),
        torch.get_num_threads(),
    )
    return out, measures


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Tensor | None,
    seed: Tensor,
    out: Tensor,
    measures: Tensor,
    scale: float,
    causal: bool,
    dropout: float,
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of query, key and value, None where not needed."""
    inputs = [x.detach() for x in (query, key, value)]
    found = [torch.empty_like(x) if need else None for x, need in zip(inputs, needs, strict=True)]
    if query.numel() == 0 or key.numel() == 0:
        return [None if x is None else x.zero_() for x in found]
    backends.core().softmax_attention_backward(
        grad.detach(),
        *inputs,
        lengths,
        out.detach(),
        measures,
        *found,
        scale,
        causal,
        int(seed),
        dropped(dropout),
        torch.get_num_threads(),
    )
    return found
