"""hard_attention in plain PyTorch, differentiable, on any device: the specification.

Below it stands its gradient, written out, because autograd is switched off inside an op under many
of PyTorch's modes. Both need memory for all scores, (B, H, T, S).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyseq.ops.attention import (
    first_seeing_row,
    masked_logits,
    quarantine,
    reached,
    to_heads,
    visibility,
)
from pyseq.ops.precision import accumulation_dtype


def attend(
    query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool
) -> tuple[Tensor, Tensor]:
    """The output (B, H, T, D), with its straight-through gradient, and the index (B, H, T)."""
    index = choose(query.detach(), key.detach(), causal)
    return straight_through(query, key, value, index, scale, causal), index


def choose(query: Tensor, key: Tensor, causal: bool) -> Tensor:
    """The key with the highest score, the first of several, (B, H, T) int64; -1 where none has one.

    A score that is NaN does not take part; one that is infinite does.
    """
    (B, H, T, D), (G, S) = query.shape, key.shape[1:3]
    if S == 0:
        return query.new_full((B, H, T), -1, dtype=torch.int64)
    dtype = accumulation_dtype(query)
    stacked = query.to(dtype).reshape(B, G, H // G * T, D)  # so that keys are never expanded
    scores = (stacked @ key.to(dtype).mT).view(B, H, T, S)
    takes_part = visibility(T, S, causal=causal, device=query.device) & ~scores.isnan()
    best = scores.masked_fill(~takes_part, -math.inf).amax(-1, keepdim=True)
    # -inf is a score too, so being the best is not enough: a hidden key would be.
    is_best = takes_part & (scores == best)
    first = is_best.to(torch.uint8).argmax(-1)  # the first of several, as documented
    return first.masked_fill(~is_best.any(-1), -1)


def copy_rows(value: Tensor, index: Tensor, causal: bool) -> Tensor:
    """Row `index` of value for every query, (B, H, T, D), bit for bit.

    Where the index is -1: zeros for a query that sees no key, NaN for one that could not choose.
    """
    (B, H, T), (_, G, S, D) = index.shape, value.shape
    if S == 0:
        return value.new_zeros(B, H, T, D)
    # Not by gather, which alters the bits of some NaNs in bfloat16 and float16.
    chosen = _places(index, G, S).clamp(max=B * G * S - 1)
    rows = value.reshape(B * G * S, D).index_select(0, chosen).view(B, H, T, D)
    rows = rows.masked_fill((index < 0)[..., None], math.nan)
    sees_none = torch.arange(T, device=value.device) < first_seeing_row(T, S, causal, None, 0)
    return rows.masked_fill(sees_none[:, None], 0)


class Soft(NamedTuple):
    """Softmax attention of the queries that see a key, all of it finite."""

    q: Tensor  # (B, H, rows, D), scaled; the last `rows` of the T queries
    k: Tensor  # (B, G, S, D)
    v: Tensor  # (B, G, S, D)
    visible: Tensor  # (rows, S)
    weights: Tensor  # (B, G, H // G * rows, S)
    undefined: Tensor  # (B, H, rows): the query, or a key or value it sees, is not finite


def soften(query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool) -> Soft:
    """softmax(scale <q, k>) over the visible keys, whose gradient stands in for the choice's."""
    (H, T), S = query.shape[1:3], key.shape[2]
    dtype = accumulation_dtype(query)
    first = first_seeing_row(T, S, causal, None, 0)
    q, bad_query = quarantine(query[:, :, first:].to(dtype) * scale)
    k, bad_key = quarantine(key.to(dtype))
    v, bad_value = quarantine(value.to(dtype))
    visible = visibility(T, S, causal=causal, device=query.device)[first:]
    logits = masked_logits(q, k, visible)
    # A query whose logits overflow has no softmax either, and must not spoil the keys it sees.
    weights = torch.softmax(logits, -1).nan_to_num(nan=0.0)
    undefined = bad_query | to_heads(reached(bad_key | bad_value, visible), H)
    return Soft(q, k, v, visible, weights, undefined)


def straight_through(
    query: Tensor, key: Tensor, value: Tensor, index: Tensor, scale: float, causal: bool
) -> Tensor:
    """One-hot weights forward and the softmax's gradient backward: (onehot + P - sg(P)) V."""
    rows = copy_rows(value.to(accumulation_dtype(query)), index, causal)
    soft = soften(query, key, value.detach(), scale, causal)
    mixed = (soft.weights @ soft.v).view(soft.q.shape)
    mixed = mixed.masked_fill(soft.undefined[..., None], 0)
    mixed = _among_all_queries(mixed, query)
    # This zero leaves every row as it is; adding it would turn -0.0 into 0.0.
    return (rows - (mixed.detach() - mixed)).to(query.dtype)


def backward_of_copy(grad: Tensor, index: Tensor, value: Tensor) -> Tensor:
    """onehot^T dO (B, G, S, D): each row of grad is added where its output was copied from.

    Sorted first, so that every sum runs in the order of the queries on any number of threads.
    """
    (B, H, T), (_, G, S, D) = index.shape, value.shape
    place, order = _places(index, G, S).sort(stable=True)
    rows = grad.to(accumulation_dtype(grad)).reshape(B * H * T, D)[order]
    offsets = torch.searchsorted(place, torch.arange(B * G * S + 1, device=grad.device))
    sums = torch.segment_reduce(rows, "sum", offsets=offsets, unsafe=True)
    return sums.view(B, G, S, D)


def backward_of_choice(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool
) -> tuple[Tensor, Tensor]:
    """The softmax's gradients of query (B, H, T, D) and key (B, G, S, D).

    A row of `grad` with a NaN or an infinity makes NaN of its query's gradient and of that of every
    key the query sees.
    """
    q, k, v, visible, weights, undefined = soften(query, key, value, scale, causal)
    (H, rows), G = q.shape[1:3], k.shape[1]
    d_out, bad_grad = quarantine(grad[:, :, grad.shape[2] - rows :].to(q.dtype))
    d_out = d_out.masked_fill(undefined[..., None], 0)

    stacked = (*k.shape[:2], H // G * rows, q.shape[3])
    d_weights = d_out.reshape(stacked) @ v.mT
    delta = (weights * d_weights).sum(-1, keepdim=True)  # rowdot(dO, soft output), not hard output
    d_logits = weights * (d_weights - delta)
    d_query = (d_logits @ k).view(q.shape) * scale
    d_key = d_logits.mT @ q.reshape(stacked)  # q is scaled

    reached_key = reached(bad_grad.unflatten(1, (G, -1)).any(2), visible.mT)
    d_query = d_query.masked_fill(bad_grad[..., None], math.nan)
    d_key = d_key.masked_fill(reached_key[..., None], math.nan)
    return _among_all_queries(d_query, query), d_key


def _places(index: Tensor, G: int, S: int) -> Tensor:
    """The row of value, as (B * G * S, D), that each query copies, (B * H * T,); past all if none.

    Its order is that of (B, H, T), because the heads of a group are neighbours.
    """
    B, H, T = index.shape
    chosen = index.reshape(B * G, H // G * T)
    start = S * torch.arange(B * G, device=index.device)[:, None]
    return torch.where(chosen < 0, B * G * S, start + chosen).flatten()


def _among_all_queries(x: Tensor, query: Tensor) -> Tensor:
    """x (B, H, rows, D) of the queries that see a key, with zeros for those before them."""
    return torch.nn.functional.pad(x, (0, 0, query.shape[2] - x.shape[2], 0))
