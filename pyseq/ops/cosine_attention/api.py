"""The public cosine_attention: meaning and checks."""

import math

import torch
from torch import Tensor

from pyseq.ops.cosine_attention import autograd  # noqa: F401  (registers the op)
from pyseq.ops.cosine_attention.reference import accumulation_dtype, first_seeing_row

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
NORMS = ("l2", "rms", "layer", None)


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
            max|key_weight| stays at or below it (a gain that is absent counts 1). A fused backend
            may then leave out the running maximum; where the promise is broken it may overflow.
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
    _check_tensors(query, key, value)
    _check_scale(scale, scale_bound, query, query_weight is None and key_weight is None)
    _check_norm(norm, eps, query, query_weight, key_weight)
    _check_mask(causal, window, prefix)
    _check_rope(rope, query, key, causal, window, prefix)
    cos, sin = (None, None) if rope is None else rope
    if not isinstance(scale, Tensor):
        scale = torch.full((), scale, dtype=accumulation_dtype(query), device=query.device)
    out, _ = torch.ops.pyseq.cosine_attention(
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


def _shapes(query: Tensor, key: Tensor, value: Tensor) -> str:
    return f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"


def _check_tensors(query: Tensor, key: Tensor, value: Tensor) -> None:
    op = "cosine_attention"
    for name, x in (("query", query), ("key", key), ("value", value)):
        if not isinstance(x, Tensor):
            raise TypeError(f"{op}: {name} is a {type(x).__name__}; a tensor fits")
        if x.dtype not in DTYPES:
            raise TypeError(
                f"{op}: {name} is {x.dtype}; float32, bfloat16, float16 or float64 fits"
            )
    if not query.dtype == key.dtype == value.dtype:
        raise TypeError(
            f"{op}: query is {query.dtype}, key {key.dtype}, value {value.dtype}; one dtype fits"
        )
    if not query.device == key.device == value.device:
        raise ValueError(
            f"{op}: query on {query.device}, key on {key.device}, value on {value.device};"
            " one device fits"
        )
    shapes = _shapes(query, key, value)
    if not query.dim() == key.dim() == value.dim() == 4:
        raise ValueError(
            f"{op}: {query.dim()}, {key.dim()} and {value.dim()} dimensions; query (B, H, T, D)"
            f" and key and value (B, G, S, D) fit; {shapes}"
        )
    B, H, _, D = query.shape
    G = key.shape[1]
    if key.shape[0] != B:
        raise ValueError(f"{op}: batches of {B} and {key.shape[0]}; equal batches fit; {shapes}")
    if key.shape[3] != D or D == 0:
        raise ValueError(
            f"{op}: head widths {D} and {key.shape[3]}; equal widths of at least 1 fit; {shapes}"
        )
    if value.shape != key.shape:
        raise ValueError(f"{op}: key and value differ; both (B, G, S, D) fit; {shapes}")
    if G == 0 or H == 0 or H % G:
        raise ValueError(
            f"{op}: {H} query heads cannot share {G} key heads; H must be a multiple of G; {shapes}"
        )


def _check_scale(
    scale: float | Tensor, scale_bound: float | None, query: Tensor, no_gains: bool
) -> None:
    op = "cosine_attention"
    if scale_bound is not None:
        _check_positive("scale_bound", scale_bound)
    if isinstance(scale, Tensor):
        H = query.shape[1]
        if scale.dim() > 1 or (scale.dim() == 1 and scale.shape[0] != H):
            raise ValueError(
                f"{op}: scale has shape {tuple(scale.shape)}; () or ({H},) fits;"
                f" query {tuple(query.shape)}"
            )
        _check_parameter("scale", scale, query)
        return
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
        raise TypeError(f"{op}: scale is a {type(scale).__name__}; a float or a tensor fits")
    if not -math.inf < scale < math.inf:
        raise ValueError(f"{op}: scale is {scale}; a finite number fits")
    if scale_bound is not None and no_gains and abs(scale) > scale_bound:
        raise ValueError(f"{op}: scale is {scale}; at most scale_bound, {scale_bound}, fits")


def _check_norm(
    norm: str | None,
    eps: float,
    query: Tensor,
    query_weight: Tensor | None,
    key_weight: Tensor | None,
) -> None:
    if norm not in NORMS:
        raise ValueError(f"cosine_attention: norm is {norm!r}; 'l2', 'rms', 'layer' or None fits")
    _check_positive("eps", eps)
    D = query.shape[3]
    for name, weight in (("query_weight", query_weight), ("key_weight", key_weight)):
        if weight is None:
            continue
        if not isinstance(weight, Tensor):
            raise TypeError(
                f"cosine_attention: {name} is a {type(weight).__name__}; a tensor or None fits"
            )
        if weight.dim() != 1 or weight.shape[0] != D:
            raise ValueError(
                f"cosine_attention: {name} has shape {tuple(weight.shape)}; ({D},) fits;"
                f" query {tuple(query.shape)}"
            )
        _check_parameter(name, weight, query)


def _check_mask(causal: bool, window: int | None, prefix: int) -> None:
    op = "cosine_attention"
    if not isinstance(causal, bool):
        raise TypeError(f"{op}: causal is a {type(causal).__name__}; True or False fits")
    if window is not None:
        _check_count("window", window, 1)
    _check_count("prefix", prefix, 0)


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
    op = "cosine_attention"
    tables = tuple(rope) if isinstance(rope, (tuple, list)) else ()
    if len(tables) != 2 or not all(isinstance(table, Tensor) for table in tables):
        raise TypeError(f"{op}: rope is a {type(rope).__name__}; a pair of tensors (cos, sin) fits")
    cos, sin = tables
    (T, D), S = query.shape[2:], key.shape[2]
    shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)}"
    if D % 2:
        raise ValueError(f"{op}: rope cannot pair {D} features; an even D fits; {shapes}")
    if cos.shape != sin.shape or cos.dim() != 2 or cos.shape[1] != D // 2 or cos.shape[0] < S:
        raise ValueError(
            f"{op}: rope has shapes {tuple(cos.shape)} and {tuple(sin.shape)};"
            f" two of (at least {S}, {D // 2}) fit; {shapes}"
        )
    for name, table in (("rope's cos", cos), ("rope's sin", sin)):
        _check_parameter(name, table, query)
        if table.requires_grad:
            raise ValueError(f"{op}: {name} requires a gradient; a constant fits")
    first = first_seeing_row(T, S, causal, window, prefix)
    if first < T and first + S - T < 0:
        raise ValueError(
            f"{op}: rope has no row for query {first} at position {first + S - T};"
            f" T <= S fits; {shapes}"
        )


def _check_parameter(name: str, x: Tensor, query: Tensor) -> None:
    if x.dtype not in DTYPES:
        raise TypeError(f"cosine_attention: {name} is {x.dtype}; a floating dtype fits")
    if x.device != query.device:
        raise ValueError(f"cosine_attention: {name} on {x.device}; {query.device}, as query, fits")


def _check_positive(name: str, number: float) -> None:
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise TypeError(f"cosine_attention: {name} is a {type(number).__name__}; a float fits")
    if not 0 < number < math.inf:
        raise ValueError(f"cosine_attention: {name} is {number}; a positive finite number fits")


def _check_count(name: str, number: int, least: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"cosine_attention: {name} is a {type(number).__name__}; an int fits")
    if number < least:
        raise ValueError(f"cosine_attention: {name} is {number}; at least {least} fits")
