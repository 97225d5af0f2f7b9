"""cosine_decode in plain PyTorch, differentiable, on any device: the specification."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pyseq.ops.attention import masked_logits, per_head, quarantine, reached, to_heads
from pyseq.ops.precision import accumulation_dtype
from pyseq.ops.prepare_keys.reference import gain_and_rotate, normalise


@dataclass(frozen=True)
class Options:
    """What the op was asked for beside tensors; the public op says what each means."""

    norm: str | None
    eps: float
    window: int | None
    prefix: int


class Inputs(NamedTuple):
    """The op's tensors; the public op says what each means."""

    query: Tensor
    key_cache: Tensor
    value_cache: Tensor
    scale: Tensor
    query_weight: Tensor | None
    lengths: Tensor | None
    cos: Tensor | None
    sin: Tensor | None


def attend(inputs: Inputs, options: Options) -> Tensor:
    """The output (B, H, T, D)."""
    query, key_cache, value_cache, scale, query_weight, lengths, cos, sin = inputs
    (B, H, T, D), S = query.shape, key_cache.shape[2]
    dtype = accumulation_dtype(query)
    k, bad_key = quarantine(clear_unused(key_cache.to(dtype), lengths))
    v, bad_value = quarantine(clear_unused(value_cache.to(dtype), lengths))
    lengths = known_lengths(lengths, B, S, query.device)
    visible = visibility(lengths, T, S, options)
    blind = ~visible.any(-1)[:, None]  # (B, 1, T): sees no key

    q, _ = normalise(query.to(dtype), options.norm, options.eps)
    q = gain_and_rotate(q, query_weight, *rows_of(cos, sin, lengths, T), 0) * per_head(scale, dtype)
    q, bad_query = quarantine(q)

    weights = torch.softmax(logits(q, k, visible, blind), -1)
    out = (weights @ v).view(B, H, T, D)
    bad = bad_query | to_heads(reached(bad_key | bad_value, visible), H)
    out = out.masked_fill(bad[..., None], math.nan)
    return out.masked_fill(blind[..., None], 0).to(query.dtype)


def known_lengths(lengths: Tensor | None, B: int, S: int, device: torch.device) -> Tensor:
    """How many keys of each entry are valid, (B,) int64."""
    return torch.full((B,), S, device=device) if lengths is None else lengths.long()


def positions(lengths: Tensor, T: int) -> Tensor:
    """Where the queries stand, (B, T): the last one at the last valid key."""
    return lengths[:, None] + torch.arange(-T, 0, device=lengths.device)


def visibility(lengths: Tensor, T: int, S: int, options: Options) -> Tensor:
    """Which query of which entry sees which key, (B, T, S) bool."""
    key = torch.arange(S, device=lengths.device)
    ahead = positions(lengths, T)[..., None] - key  # (B, T, S): query minus key
    visible = ahead >= 0
    if options.window is not None:
        visible &= ahead < options.window
    return (visible | (key < options.prefix)) & (key < lengths[:, None, None])


def rows_of(
    cos: Tensor | None, sin: Tensor | None, lengths: Tensor, T: int
) -> tuple[Tensor | None, Tensor | None]:
    """The rows of the tables that the queries take, (B, 1, T, D/2) each."""
    # Tables without a row only fit an empty cache, whose queries see nothing and need no angle.
    if cos is None or sin is None or cos.shape[0] == 0:
        return None, None
    rows = positions(lengths, T).clamp_min(0)
    return cos[rows][:, None], sin[rows][:, None]


def clear_unused(cache: Tensor, lengths: Tensor | None) -> Tensor:
    """The cache with zeros past each entry's length, where it may hold anything."""
    if lengths is None:
        return cache
    unused = torch.arange(cache.shape[2], device=cache.device) >= lengths[:, None]
    return cache.masked_fill(unused[:, None, :, None], 0)


def logits(q: Tensor, k: Tensor, visible: Tensor, blind: Tensor) -> Tensor:
    """<q, k> as (B, G, H // G * T, S), -inf where hidden.

    A blind query is shown every key, so that its softmax is finite; its output must be left out.
    """
    return masked_logits(q, k, visible[:, None] | blind[..., None])
