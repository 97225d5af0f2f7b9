"""cosine_attention in plain PyTorch, differentiable, on any device: the specification."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pyseq.ops.attention import (
    first_seeing_row,
    masked_logits,
    per_head,
    quarantine,
    reached,
    to_heads,
    visibility,
)
from pyseq.ops.precision import accumulation_dtype
from pyseq.ops.prepare_keys.reference import gain_and_rotate, normalise


@dataclass(frozen=True)
class Options:
    """What the op was asked for beside tensors; the public op says what each means."""

    norm: str | None
    eps: float
    causal: bool
    window: int | None
    prefix: int

    def first_seeing_row(self, T: int, S: int) -> int:
        """The first query that sees a key; those before it see none, the rest all see one."""
        return first_seeing_row(T, S, self.causal, self.window, self.prefix)

    def visibility(self, T: int, S: int, device: torch.device) -> Tensor:
        """Which query sees which key, (T, S) bool."""
        return visibility(
            T, S, causal=self.causal, window=self.window, prefix=self.prefix, device=device
        )


class Inputs(NamedTuple):
    """The op's tensors; the public op says what each means."""

    query: Tensor
    key: Tensor
    value: Tensor
    scale: Tensor
    query_weight: Tensor | None
    key_weight: Tensor | None
    cos: Tensor | None
    sin: Tensor | None


def attend(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor]:
    """The output (B, H, T, D), and the logits' log-sum-exp (B, H, T), which has no gradient."""
    query, key, value, scale, query_weight, key_weight, cos, sin = inputs
    (B, H, T, D), S = query.shape, key.shape[2]
    dtype = accumulation_dtype(query)
    hidden = options.first_seeing_row(T, S)
    rows = T - hidden
    if rows == 0:
        return torch.zeros_like(query), query.new_full((B, H, T), -math.inf, dtype=dtype)

    q, _ = normalise(query[:, :, hidden:].to(dtype), options.norm, options.eps)
    q = gain_and_rotate(q, query_weight, cos, sin, S - rows) * per_head(scale, dtype)
    k, _ = normalise(key.to(dtype), options.norm, options.eps)
    k = gain_and_rotate(k, key_weight, cos, sin, 0)
    q, bad_query = quarantine(q)
    k, bad_key = quarantine(k)
    v, bad_value = quarantine(value.to(dtype))

    visible = options.visibility(T, S, q.device)[hidden:]
    logits = masked_logits(q, k, visible)
    weights = torch.softmax(logits, -1)
    out = (weights @ v).view(B, H, rows, D)
    with torch.no_grad():
        lse = (logits.amax(-1) - weights.amax(-1).log()).view(B, H, rows)

    bad = bad_query | to_heads(reached(bad_key | bad_value, visible), H)
    out = out.masked_fill(bad[..., None], math.nan).to(query.dtype)
    lse = lse.masked_fill(bad, math.nan)
    pad = torch.nn.functional.pad
    return pad(out, (0, 0, hidden, 0)), pad(lse, (hidden, 0), value=-math.inf)
