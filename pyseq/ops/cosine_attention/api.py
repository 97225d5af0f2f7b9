"""The public cosine_attention: meaning and checks."""

import torch
from torch import Tensor

from pyseq.ops import checks, registration
from pyseq.ops.attention import first_seeing_row
from pyseq.ops.cosine_attention import autograd  # noqa: F401  (registers the op)
from pyseq.ops.precision import accumulation_dtype

OP = "cosine_attention"


def cosine_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float | Tensor,
    norm: str | None = "l2",
    eps: float = 1e-6,
    query_weight: Tensor | None = None,
    key_weight: Tensor | None = None,
    rope: tuple[Tensor, Tensor] | None = None,
    causal: bool = False,
    window: int | None = None,
    prefix: int = 0,
    scale_bound: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """Attend with normalised queries and keys: softmax(scale <q, k>) V.

    Query head h reads key head h // (H // G); keys and values are never expanded. Logits, softmax
    and sums are kept in float32 (float64 for float64). The last query stands where the last key
    does: query t is at position t + S - T. A query that sees no key gives zeros and has no
    gradient. A NaN or an infinity reaches the outputs and gradients of the queries that see it, and
    no others.

    Args:
        query (Tensor (B, H, T, D), float32 | bfloat16 | float16 | float64): any strides.
        key (Tensor (B, G, S, D), dtype of query): any strides; H must be a multiple of G.
        value (Tensor (B, G, S, D), dtype of query): any strides.
        scale (float | Tensor () or (H,), floating): inverse temperature of the logits, with a
            gradient if it is a tensor; no unit.
        norm (str | None): "l2": x / max(||x||, eps), so that <q, k> is a cosine; "rms":
            x / sqrt(mean(x^2) + eps); "layer": the mean removed, then as "rms"; None: x itself.
        eps (float): keeps the norm of a zero vector finite; above 0, in the units of x for "l2",
            of x^2 for "rms" and "layer".
        query_weight (Tensor (D,), floating | None): gain of the normalised query; no unit.
        key_weight (Tensor (D,), floating | None): gain of the normalised key; no unit.
        rope (tuple of two Tensor (positions, D/2), floating | None): (cos, sin) of the angles by
            which the pairs (i, i + D/2) are rotated after the norm; row p serves position p, so
            positions must be at least S. They are constants and have no gradient.
        causal (bool): a query sees no key after its own position.
        window (int | None): a query sees only keys fewer than `window` positions away; with
            `causal`, only its own position and the `window` - 1 before it.
        prefix (int): the first `prefix` keys are seen by every query, whatever `causal` and
            `window` say.
        scale_bound (float | None): a promise, not checked, that |scale| max|query_weight|
            max|key_weight| stays at or below it (a gain that is absent counts 1); with `norm` None,
            that no |scale <q, k>| is above it. A fused backend may then leave out the running
            maximum; where the promise is broken it may overflow. `rope` must then be of angles,
            cos^2 + sin^2 = 1. A `scale` that is a number is such a promise by itself where neither
            gain nor rope is given.
        backend (str): "auto", "reference", "native" or "triton".

    Returns:
        Tensor (B, H, T, D), dtype and memory order of query.

    Raises:
        TypeError: an argument is of the wrong kind or dtype.
        ValueError: shapes or devices do not fit together, a number is out of its range, or the
            rope tables have no row for a query or key.
        BackendUnavailable: a backend asked for by name cannot serve the call.

    Source: Henry et al. 2020, Query-Key Normalization for Transformers, arXiv 2010.04245; shared
        key heads: Ainslie et al. 2023, GQA, arXiv 2305.13245; rotation: Su et al. 2021, RoFormer,
        arXiv 2104.09864.

    Example:
        >>> import torch
        >>> from pyseq.ops import cosine_attention
        >>> query, key = torch.randn(2, 8, 16, 32), torch.randn(2, 4, 16, 32)
        >>> cosine_attention(query, key, key, scale=10.0, causal=True).shape
        torch.Size([2, 8, 16, 32])
    """
    checks.attention(OP, query, key, value)
    no_gains = query_weight is None and key_weight is None
    checks.scale(OP, scale, scale_bound, no_gains, query=query)
    checks.norm(OP, norm, eps)
    checks.gain(OP, "query_weight", query_weight, query=query)
    checks.gain(OP, "key_weight", key_weight, query=query)
    _check_mask(causal, window, prefix)
    _check_rope(rope, query, key, causal, window, prefix)
    cos, sin = (None, None) if rope is None else rope
    if not isinstance(scale, Tensor):
        # Tables may hold more than angles, as where a rotation also scales.
        bounded = norm is not None and no_gains and rope is None and scale != 0
        if scale_bound is None and bounded:
            scale_bound = abs(scale)
        scale = torch.full((), scale, dtype=accumulation_dtype(query), device=query.device)
    out, _ = registration.call(
        OP,
        query,
        key,
        value,
        scale,
        query_weight,
        key_weight,
        cos,
        sin,
        norm,
        eps,
        causal,
        window,
        prefix,
        scale_bound,
        backend,
    )
    return out


def _check_mask(causal: bool, window: int | None, prefix: int) -> None:
    checks.flag(OP, "causal", causal)
    if window is not None:
        checks.count(OP, "window", window, 1)
    checks.count(OP, "prefix", prefix, 0)


def _check_rope(
    rope: tuple[Tensor, Tensor] | None,
    query: Tensor,
    key: Tensor,
    causal: bool,
    window: int | None,
    prefix: int,
) -> None:
    if rope is None:
        return
    (T, D), S = query.shape[2:], key.shape[2]
    checks.rope(OP, rope, D, S, query=query, key=key)
    first = first_seeing_row(T, S, causal, window, prefix)
    if first < T and first + S - T < 0:
        raise ValueError(
            f"{OP}: rope has no row for query {first} at position {first + S - T};"
            f" T <= S fits; {checks.shapes_of(query=query, key=key)}"
        )
