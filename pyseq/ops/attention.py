"""What the attention ops share: who sees whom, logits, and rows that are not finite."""

import math

import torch
from torch import Tensor


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


def masked_logits(q: Tensor, k: Tensor, visible: Tensor) -> Tensor:
    """<q, k> as (B, G, H // G * T, S), -inf where hidden; visible (T, S) or (B, 1, T, S).

    The query heads of a key head are stacked, so that the keys are never expanded.
    """
    (B, H, T, D), (G, S) = q.shape, k.shape[1:3]
    logits = q.reshape(B, G, H // G * T, D) @ k.mT
    ceiling = torch.where(visible, math.inf, -math.inf).to(q.dtype)
    with torch.no_grad():  # a hidden weight is 0, so nothing flows back through its logit anyway
        # Products that overflow may meet as inf - inf. As inf such a logit still spoils the query
        # that sees it, and a minimum, several times faster than a masked fill, can hide it.
        logits.nan_to_num_(nan=math.inf, posinf=math.inf, neginf=-math.inf)
        logits.view(B, H, T, S).clamp_(max=ceiling)
    return logits


def softmax_for_backward(logits: Tensor) -> Tensor:
    """Attention weights, in the memory of the logits; none for a query whose logits overflow.

    Its output is NaN whatever goes in, and nothing may flow back from it to the keys that it sees.
    """
    return torch.softmax(logits, -1, out=logits).nan_to_num_(nan=0.0)


def per_head(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """A scale () or (H,) against (B, H, T, D)."""
    return scale.to(dtype).view(-1, 1, 1)


def quarantine(x: Tensor) -> tuple[Tensor, Tensor]:
    """Zero the rows (..., D) that hold a NaN or an infinity, and say which they were (...).

    A weight of zero does not keep a NaN out of a matrix product, so every product runs on finite
    rows, and the rows that a bad one reaches are marked afterwards.
    """
    bad = (x.detach() * 0).sum(-1) != 0  # 0 * inf is NaN too
    return x.masked_fill(bad[..., None], 0), bad


def reached(bad: Tensor, reaches: Tensor) -> Tensor:
    """Which n are reached by a bad m: bad (B, C, M), reaches (N, M) or (B, N, M) -> (B, C, N)."""
    return (bad.float() @ reaches.float().mT) > 0


def to_heads(x: Tensor, H: int) -> Tensor:
    """x (B, G, ...) for every query head: (B, H, ...)."""
    return x.repeat_interleave(H // x.shape[1], dim=1)
