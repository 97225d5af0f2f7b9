"""softmax_attention in plain PyTorch, on any device: the specification, and its gradient.

The gradient is written out, because autograd is switched off inside an op under many of PyTorch's
modes; like the fused backward it makes the attention weights again, and their dropout.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyseq.ops import dropout as drops
from pyseq.ops.attention import quarantine, reached, to_heads, visibility
from pyseq.ops.precision import accumulation_dtype


class Weighed(NamedTuple):
    """Operands of the products in the accumulation dtype, with G axis and stacked query heads."""

    query: Tensor  # (B, G, R, T, D) with R = H / G, times scale, rows that are not finite zeroed
    key: Tensor  # (B, G, 1, S, D), the same
    value: Tensor  # (B, G, 1, S, D), the same
    visible: Tensor  # (B or 1, T, S)
    logits: Tensor  # (B, G, R, T, S), -inf where hidden
    weights: Tensor  # (B, G, R, T, S): 0 where a query sees no key
    factors: Tensor | float  # (B, G, R, T, S): what dropout multiplies weights with
    bad: Tensor  # (B, H, T): queries that see a NaN or an infinity


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Tensor | None,
    seed: Tensor,
    scale: float,
    causal: bool,
    dropout: float,
) -> Tensor:
    """The output (B, H, T, D), differentiable by autograd."""
    return attend_and_measure(query, key, value, lengths, seed, scale, causal, dropout)[0]


def attend_and_measure(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Tensor | None,
    seed: Tensor,
    scale: float,
    causal: bool,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """The output as `attend` gives it, and the measures of its rows, (2, B, H, T), no gradient.

    They are the largest <q, k> and ln sum e^(scale (<q, k> - largest)); 0 for a query that sees no
    key, NaN for one that sees a NaN or an infinity. The weights can be restored from them, however
    large the logits are.
    """
    x = weigh(query, key, value, lengths, seed, scale, causal, dropout)
    out = ((x.weights * x.factors) @ x.value).flatten(1, 2)
    out = out.masked_fill(x.bad[..., None], math.nan).to(query.dtype)
    with torch.no_grad():
        best, sees = _largest(x.logits), x.visible.any(-1)[:, None]
        total = (x.logits - best[..., None]).exp().sum(-1).log()
        measures = torch.stack([best / scale, total]).flatten(2, 3)
        measures = measures.masked_fill(~sees, 0).masked_fill(x.bad, math.nan)
    return out, measures


def weigh(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Tensor | None,
    seed: Tensor,
    scale: float,
    causal: bool,
    dropout: float,
) -> Weighed:
    """The attention weights, and all that they come from."""
    dtype = accumulation_dtype(query)
    (B, H, T, _), (G, S) = query.shape, key.shape[1:3]
    q, bad_query = quarantine(query.to(dtype) * scale)
    k, bad_key = quarantine(key.to(dtype))
    v, bad_value = quarantine(value.to(dtype))
    visible = visibility(T, S, causal=causal, device=query.device)[None]
    if lengths is not None:
        there = torch.arange(S, device=query.device) < lengths[:, None]  # (B, S)
        visible = visible & there[:, None]
    bad = bad_query & visible.any(-1)[:, None]
    bad = bad | to_heads(reached(bad_key | bad_value, visible), H)

    q, k, v = q.unflatten(1, (G, H // G)), k[:, :, None], v[:, :, None]
    logits = (q @ k.mT).masked_fill(~visible[:, None, None], -math.inf)
    # Of a query that sees no key all logits are -inf, and their softmax is NaN.
    weights = torch.softmax(logits, -1).masked_fill(~visible[:, None, None], 0)
    factors = drops.factors(seed, dropout, (B, H, T, S), query.device, dtype)
    if isinstance(factors, Tensor):
        factors = factors.unflatten(1, (G, H // G))
    return Weighed(q, k, v, visible, logits, weights, factors, bad)


def _largest(logits: Tensor) -> Tensor:
    """Over the keys; -inf where there are none."""
    return logits.amax(-1) if logits.shape[-1] else logits.new_full(logits.shape[:-1], -math.inf)


def gradients(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Tensor | None,
    seed: Tensor,
    scale: float,
    causal: bool,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value, in their dtypes.

    A row of `grad` with a NaN or an infinity makes NaN of the gradients of what its output depends
    on, and of nothing else.
    """
    G = key.shape[1]
    x = weigh(query, key, value, lengths, seed, scale, causal, dropout)
    d_out, bad_grad = quarantine(grad.to(x.query.dtype))
    d_out = d_out.masked_fill(x.bad[..., None], 0).unflatten(1, (G, -1))  # NaN whatever goes in

    d_weights = (d_out @ x.value.mT) * x.factors
    d_logits = x.weights * (d_weights - (x.weights * d_weights).sum(-1, keepdim=True))
    d_query = (d_logits @ x.key).flatten(1, 2) * scale
    d_key = (d_logits.mT @ x.query).sum(2)
    d_value = ((x.weights * x.factors).mT @ d_out).sum(2)

    bad_keys = reached(bad_grad.unflatten(1, (G, -1)).any(2), x.visible.mT)[..., None]
    return (
        d_query.masked_fill(bad_grad[..., None], math.nan).to(query.dtype),
        d_key.masked_fill(bad_keys, math.nan).to(key.dtype),
        d_value.masked_fill(bad_keys, math.nan).to(value.dtype),
    )
