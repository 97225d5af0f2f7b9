"""The public cosine_decode: meaning and checks."""

import torch
from torch import Tensor

from pyseq.ops import checks, registration
from pyseq.ops.cosine_decode import autograd  # noqa: F401  (registers the op)
from pyseq.ops.precision import accumulation_dtype

OP = "cosine_decode"


def cosine_decode(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    *,
    scale: float | Tensor,
    lengths: Tensor | None = None,
    window: int | None = None,
    prefix: int = 0,
    norm: str | None = "l2",
    eps: float = 1e-6,
    query_weight: Tensor | None = None,
    rope: tuple[Tensor, Tensor] | None = None,
    scale_bound: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """Attend from the newest positions over keys that prepare_keys has prepared: causal.

    It is `cosine_attention` with the keys' share of the work done once. The T queries of entry b
    stand at positions lengths[b] - T to lengths[b] - 1, and each sees the keys up to its own
    position. Query head h reads key head h // (H // G); the caches are never expanded. Logits,
    softmax and sums are kept in float32 (float64 for float64); what differs from `cosine_attention`
    is that the cache holds prepared keys rounded to its dtype. A query that sees no key gives zeros
    and has no gradient. A NaN or an infinity reaches the outputs and gradients of the queries that
    see it, and no others; keys and values past an entry's length may hold anything. The reference
    backend makes copies of the caches at every call, in float32. The triton backend splits the keys
    over programs and reads each once; it rounds prepared queries and attention weights to query's
    dtype for their products. Its backward makes the output again, and is cosine_attention's.

    Args:
        query (Tensor (B, H, T, D), float32 | bfloat16 | float16 | float64): any strides; not
            prepared, which is done here. Meant for T from 1 to 16; any T is served.
        key_cache (Tensor (B, G, S, D), dtype of query): from `prepare_keys` with the same `norm`,
            `eps` and `rope`, and used as it is; any strides; H must be a multiple of G.
        value_cache (Tensor (B, G, S, D), dtype of query): any strides.
        scale (float | Tensor () or (H,), floating): inverse temperature of the logits, with a
            gradient if it is a tensor; no unit.
        lengths (Tensor (B,), int32 | int64 | None): how many keys of each entry are valid, those of
            the queries included; None: all S. A promise, not checked, that each lies from 0 to S.
        window (int | None): a query sees only its own position and the `window` - 1 before it.
        prefix (int): the first `prefix` keys are seen by every query, whatever its position and
            `window` say, but never beyond the entry's length.
        norm (str | None): the norm of the query, "l2", "rms", "layer" or None as in
            `cosine_attention`.
        eps (float): keeps the norm of a zero vector finite; above 0, in the units of x for "l2",
            of x^2 for "rms" and "layer".
        query_weight (Tensor (D,), floating | None): gain of the normalised query; no unit.
        rope (tuple of two Tensor (positions, D/2), floating | None): (cos, sin) of the angles by
            which the pairs (i, i + D/2) are rotated after the norm; row p serves position p, and
            row 0 also the positions below 0, which only see the prefix. There must be at least S
            rows. They are constants and have no gradient.
        scale_bound (float | None): a promise, not checked, that |scale| max|query_weight|
            max|key_weight| stays at or below it, key_weight being the gain that the keys were
            prepared with (a gain that is absent counts 1); with `norm` None, that no |scale <q, k>|
            is above it. A fused backend may then leave out the running maximum; where the promise
            is broken it may overflow.
        backend (str): "auto", "reference", "native" or "triton".

    Returns:
        Tensor (B, H, T, D), dtype and memory order of query.

    Raises:
        TypeError: an argument is of the wrong kind or dtype.
        ValueError: shapes or devices do not fit together, a number is out of its range, or the
            rope tables have too few rows.
        BackendUnavailable: a backend asked for by name cannot serve the call.

    Source: Henry et al. 2020, Query-Key Normalization for Transformers, arXiv 2010.04245; shared
        key heads: Ainslie et al. 2023, GQA, arXiv 2305.13245; rotation: Su et al. 2021, RoFormer,
        arXiv 2104.09864.

    Example:
        >>> import torch
        >>> from pyseq.ops import cosine_decode, prepare_keys
        >>> keys, values = prepare_keys(torch.randn(2, 4, 100, 32)), torch.randn(2, 4, 100, 32)
        >>> lengths = torch.tensor([100, 37])
        >>> cosine_decode(torch.randn(2, 8, 1, 32), keys, values, scale=10.0, lengths=lengths).shape
        torch.Size([2, 8, 1, 32])
    """
    checks.attention(OP, query, key_cache, value_cache, suffix="_cache")
    # A float cannot be held against its bound here: the gain of the keys is in the cache.
    checks.scale(OP, scale, scale_bound, no_gains=False, query=query)
    _check_lengths(lengths, query)
    if window is not None:
        checks.count(OP, "window", window, 1)
    checks.count(OP, "prefix", prefix, 0)
    checks.norm(OP, norm, eps)
    checks.gain(OP, "query_weight", query_weight, query=query)
    if rope is not None:
        S, D = key_cache.shape[2:]
        checks.rope(OP, rope, D, S, query=query, key_cache=key_cache)
    cos, sin = (None, None) if rope is None else rope
    if not isinstance(scale, Tensor):
        scale = torch.full((), scale, dtype=accumulation_dtype(query), device=query.device)
    return registration.call(
        OP,
        query,
        key_cache,
        value_cache,
        scale,
        query_weight,
        lengths,
        cos,
        sin,
        norm,
        eps,
        window,
        prefix,
        scale_bound,
        backend,
    )


def _check_lengths(lengths: Tensor | None, query: Tensor) -> None:
    if lengths is None:
        return
    checks.tensor(OP, "lengths", lengths, (torch.int32, torch.int64))
    checks.one_device(OP, query=query, lengths=lengths)
    B = query.shape[0]
    if lengths.dim() != 1 or lengths.shape[0] != B:
        raise ValueError(
            f"{OP}: lengths has shape {tuple(lengths.shape)}; ({B},) fits;"
            f" {checks.shapes_of(query=query)}"
        )
