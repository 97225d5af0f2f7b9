"""cosine_attention by the CPU's kernels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyseq.ops import backends
from pyseq.ops.cosine_attention.reference import Inputs, Options


def forward(
    inputs: Inputs,
    options: Options,
    logit_bound: float | None,
    out_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """The output (B, H, T, D), in the query's memory order, and the log-sum-exp (B, H, T)."""
    query, H = inputs.query.detach(), inputs.query.shape[1]
    scale = backends.as_float32(inputs.scale)
    rest = [backends.as_float32(x) for x in inputs[4:]]
    out = torch.empty_like(query, dtype=out_dtype)
    lse = query.new_empty(query.shape[:3], dtype=torch.float32)
    backends.core().cosine_attention(
        query,
        inputs.key.detach(),
        inputs.value.detach(),
        scale.expand(H),
        *rest,
        out,
        lse,
        options.norm,
        options.eps,
        options.causal,
        options.window or 0,
        options.prefix,
        logit_bound or 0.0,
        torch.get_num_threads(),
    )
    return out, lse


def backward(
    grad: Tensor, inputs: Inputs, out: Tensor, lse: Tensor, options: Options, needs: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of query, key, value, scale and the two weights, None where not needed."""
    query, scale = inputs.query, inputs.scale
    (H, D), rest = query.shape[1::2], [backends.as_float32(x) for x in inputs[4:]]
    found: list[Tensor | None] = [
        torch.empty_like(x) if need else None for x, need in zip(inputs[:3], needs[:3], strict=True)
    ]
    found += [
        query.new_empty(size, dtype=torch.float32) if need else None
        for size, need in zip((H, D, D), needs[3:], strict=True)
    ]
    backends.core().cosine_attention_backward(
        grad.detach(),
        query.detach(),
        inputs.key.detach(),
        inputs.value.detach(),
        backends.as_float32(scale).expand(H),
        *rest,
        out.detach(),
        lse.detach(),
        *found,
        options.norm,
        options.eps,
        options.causal,
        options.window or 0,
        options.prefix,
        torch.get_num_threads(),
    )
    if found[3] is not None and scale.dim() == 0:
        found[3] = found[3].sum()
    return found
