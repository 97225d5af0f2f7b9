"""hard_attention by the CPU's kernels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyseq.ops import backends
from pyseq.ops.cosine_attention import native as soft_attention
from pyseq.ops.cosine_attention.reference import Inputs, Options


def forward(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """The output (B, H, T, D), in the query's memory order, and the index (B, H, T)."""
    query = query.detach()
    out = torch.empty_like(query)
    index = query.new_empty(query.shape[:3], dtype=torch.int64)
    backends.core().hard_attention(
        query, key.detach(), value.detach(), out, index, causal, torch.get_num_threads()
    )
    return out, index


def backward(
    grad: Tensor,
    query: Tensor | None,
    key: Tensor | None,
    value: Tensor,
    index: Tensor,
    scale: float,
    causal: bool,
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of query, key and value, None where not needed."""
    found: list[Tensor | None] = [None] * 3
    if query is not None and key is not None:
        factor = query.new_full((), scale, dtype=torch.float32)
        inputs = Inputs(query, key, value, factor, None, None, None, None)
        options = Options(norm=None, eps=0.0, causal=causal, window=None, prefix=0)
        # In float32, because a gradient is made of differences from it.
        soft = soft_attention.forward(inputs, options, None, torch.float32)
        wanted = (*needs[:2], False, False, False, False)
        found[:2] = soft_attention.backward(grad, inputs, *soft, options, wanted)[:2]
    if needs[2]:
        found[2] = torch.empty_like(value)
        backends.core().hard_attention_copy_backward(
            grad.detach(), index, found[2], torch.get_num_threads()
        )
    return found
