"""adaptive_attention by the CPU's kernels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyseq.ops import backends
from pyseq.ops.adaptive_attention.reference import LEAST_ENTROPY


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    coefficients: Sequence[float],
    causal: bool,
) -> tuple[Tensor, Tensor]:
    """The output (B, H, T, D), in the query's memory order, and the measures (4, B, H, T)."""
    query = query.detach()
    out = torch.empty_like(query)
    measures = query.new_empty((4, *query.shape[:3]), dtype=torch.float32)
    backends.core().adaptive_attention(
        query,
        key.detach(),
        value.detach(),
        out,
        measures,
        scale,
        list(coefficients),
        LEAST_ENTROPY,
        causal,
        torch.get_num_threads(),
    )
    return out, measures


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    measures: Tensor,
    scale: float,
    coefficients: Sequence[float],
    causal: bool,
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of query, key and value, None where not needed."""
    inputs = [x.detach() for x in (query, key, value)]
    found = [torch.empty_like(x) if need else None for x, need in zip(inputs, needs, strict=True)]
    backends.core().adaptive_attention_backward(
        grad.detach(),
        *inputs,
        query.new_full((), scale, dtype=torch.float32).expand(query.shape[1]),
        measures,
        *found,
        list(coefficients),
        LEAST_ENTROPY,
        causal,
        torch.get_num_threads(),
    )
    return found
