"""cosine_attention in plain PyTorch, differentiable, on any device: the specification."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


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


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: Tensor,
    query_weight: Tensor | None,
    key_weight: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    options: Options,
) -> tuple[Tensor, Tensor]:
    """The output (B, H, T, D), and the logits' log-sum-exp (B, H, T), which has no gradient."""
    (B, H, T, D), S = query.shape, key.shape[2]
    dtype = accumulation_dtype(query)
    hidden = options.first_seeing_row(T, S)
    rows = T - hidden
    if rows == 0:
        return torch.zeros_like(query), query.new_full((B, H, T), -math.inf, dtype=dtype)

    q, _ = normalise(query[:, :, hidden:].to(dtype), options)
    q = gain_and_rotate(q, query_weight, cos, sin, S - rows) * per_head(scale, dtype)
    k, _ = normalise(key.to(dtype), options)
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


def visibility(
    T: int,
    S: int,
    *,
    causal: bool = False,
    window: int | None = None,
    prefix: int = 0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Say which query sees which key.

    Args:
        T (int): queries.
        S (int): keys; the last query and the last key stand at the same position.
        causal (bool): a query sees no later key.
        window (int | None): a query sees only keys nearer than this many positions.
        prefix (int): the first `prefix` keys are seen by every query all the same.
        device (torch.device | str | None): where the mask is made.

    Returns:
        Tensor (T, S), bool: True where the query sees the key.
    """
    key = torch.arange(S, device=device)
    ahead = torch.arange(S - T, S, device=device)[:, None] - key  # (T, S): query minus key
    visible = torch.ones(T, S, dtype=torch.bool, device=device)
    if causal:
        visible &= ahead >= 0
    if window is not None:
        visible &= ahead.abs() < window
    return visible | (key < prefix)


def first_seeing_row(T: int, S: int, causal: bool, window: int | None, prefix: int) -> int:
    """The first query that sees a key; those before it see none, those after it all see one."""
    if S == 0:
        return T
    if prefix > 0 or (window is None and not causal):
        return 0
    nearest = 0 if causal or window is None else 1 - window  # position from which key 0 is seen
    return min(max(nearest + T - S, 0), T)


def accumulation_dtype(x: Tensor) -> torch.dtype:
    """float64 for float64, float32 for everything narrower."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def per_head(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """A scale () or (H,) against (B, H, T, D)."""
    return scale.to(dtype).view(-1, 1, 1)


def normalise(x: Tensor, options: Options) -> tuple[Tensor, Tensor]:
    """The rows of x (..., D) normalised, and the factor (..., 1) that did it."""
    if options.norm is None:
        return x, x.new_ones(())
    if options.norm == "layer":
        x = x - x.mean(-1, keepdim=True)
    if options.norm == "l2":
        factor = 1 / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(options.eps)
    else:
        factor = torch.rsqrt(x.square().mean(-1, keepdim=True) + options.eps)
    return x * factor, factor


def gain_and_rotate(
    x: Tensor, weight: Tensor | None, cos: Tensor | None, sin: Tensor | None, position: int
) -> Tensor:
    """Multiply x (B, H, T, D) by its gain, then rotate row t by the angles of position + t."""
    if weight is not None:
        x = x * weight.to(x.dtype)
    if cos is None or sin is None:
        return x
    return rotate(x, cos[position : position + x.shape[2]], sin[position : position + x.shape[2]])


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + D/2) of row t of x (..., T, D) by the angles of row t."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def masked_logits(q: Tensor, k: Tensor, visible: Tensor) -> Tensor:
    """<q, k> as (B, G, H // G * T, S), -inf where hidden.

    The query heads of a key head are stacked, so that the keys are never expanded.
    """
    (B, H, T, D), (G, S) = q.shape, k.shape[1:3]
    logits = q.reshape(B, G, H // G * T, D) @ k.mT
    ceiling = torch.where(visible, math.inf, -math.inf).to(q.dtype)
    with torch.no_grad():  # a hidden weight is 0, so nothing flows back through its logit anyway
        logits.view(B, H, T, S).clamp_(max=ceiling)
    return logits


def quarantine(x: Tensor) -> tuple[Tensor, Tensor]:
    """Zero the rows (..., D) that hold a NaN or an infinity, and say which they were (...).

    A weight of zero does not keep a NaN out of a matrix product, so every product runs on finite
    rows, and the rows that a bad one reaches are marked afterwards.
    """
    bad = (x.detach() * 0).sum(-1) != 0  # 0 * inf is NaN too
    return x.masked_fill(bad[..., None], 0), bad


def reached(bad: Tensor, reaches: Tensor) -> Tensor:
    """Which n are reached by a bad m: bad (..., M), reaches (N, M) -> (..., N)."""
    return (bad.float() @ reaches.float().mT) > 0


def to_heads(x: Tensor, H: int) -> Tensor:
    """x (B, G, ...) for every query head: (B, H, ...)."""
    return x.repeat_interleave(H // x.shape[1], dim=1)
