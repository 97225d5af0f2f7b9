"""The public hard_attention: meaning and checks."""

from typing import Literal, overload

from torch import Tensor

from pyseq.ops import checks, registration
from pyseq.ops.hard_attention import autograd  # noqa: F401  (registers the op)

OP = "hard_attention"
GRADIENTS = ("straight_through", "values", None)


@overload
def hard_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float | None = None,
    causal: bool = False,
    gradient: str | None = "straight_through",
    return_index: Literal[False] = False,
    backend: str = "auto",
) -> Tensor: ...


@overload
def hard_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float | None = None,
    causal: bool = False,
    gradient: str | None = "straight_through",
    return_index: Literal[True],
    backend: str = "auto",
) -> tuple[Tensor, Tensor]: ...


def hard_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float | None = None,
    causal: bool = False,
    gradient: str | None = "straight_through",
    return_index: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Copy, for each query, the value of its highest-scoring key: V[argmax_s <q, k_s>].

    Query head h reads key head h // (H // G); keys and values are never expanded. Scores are
    computed in float32 (float64 for float64); where several are the highest, the lowest key index
    wins. The output's rows are rows of value, bit for bit. The last query stands where the last
    key does: query t is at position t + S - T.

    A query that sees no key gives zeros, has no gradient, and its index is -1. A score that is NaN
    is never the highest; one that is infinite is a score like any other. A query whose every score
    is NaN gives NaN, and its index is -1. No NaN or infinity reaches the outputs or gradients of
    queries that do not see it, or of keys that those queries alone see.

    The straight-through gradient is that of softmax(scale <q, k>) V for query and key, and for
    value that of the copies: the sum of the output's gradients over the queries that chose the
    row, in float32 and in a fixed order. A query that is not finite, or sees a key or value that is
    not, has no softmax: query and key get no gradient from it. The reference backend's memory is
    quadratic: it holds all scores, (B, H, T, S). That of Triton is linear in T and S; it serves
    heads of up to 256, and not in float64.

    Args:
        query (Tensor (B, H, T, D), float32 | bfloat16 | float16 | float64): any strides.
        key (Tensor (B, G, S, D), dtype of query): any strides; H must be a multiple of G.
        value (Tensor (B, G, S, D), dtype of query): any strides.
        scale (float | None): inverse temperature of the softmax in the gradient, above 0, which the
            output does not depend on; None is D ** -0.5; no unit.
        causal (bool): a query sees no key after its own position.
        gradient (str | None): "straight_through"; "values": only value gets a gradient, the same
            one, for which no softmax is computed; None: nothing gets one and no state is kept.
        return_index (bool): return the chosen keys too.
        backend (str): "auto", "reference", "native" or "triton".

    Returns:
        Tensor (B, H, T, D), dtype and memory order of query; with `return_index` a pair of it and
        the index, Tensor (B, H, T), int64.

    Raises:
        TypeError: an argument is of the wrong kind or dtype.
        ValueError: shapes or devices do not fit together, `scale` is out of its range, or
            `gradient` is unknown.
        BackendUnavailable: a backend asked for by name cannot serve the call.

    Source: straight-through: Bengio et al. 2013, Estimating or Propagating Gradients Through
        Stochastic Neurons, arXiv 1308.3432, applied to the attention weights; shared key heads:
        Ainslie et al. 2023, GQA, arXiv 2305.13245.

    Example:
        >>> import torch
        >>> from pyseq.ops import hard_attention
        >>> query = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
        >>> key = torch.tensor([[[[0.0, 3.0], [2.0, 0.0], [2.0, 0.0]]]])
        >>> value = torch.tensor([[[[10.0, 11.0], [20.0, 21.0], [30.0, 31.0]]]])
        >>> hard_attention(query, key, value, return_index=True)
        (tensor([[[[20., 21.],
                  [10., 11.]]]]), tensor([[[1, 0]]]))
    """
    checks.attention(OP, query, key, value)
    if scale is not None:
        checks.positive(OP, "scale", scale)
    checks.flag(OP, "causal", causal)
    checks.flag(OP, "return_index", return_index)
    if gradient not in GRADIENTS:
        raise ValueError(
            f"{OP}: gradient is {gradient!r}; 'straight_through', 'values' or None fits"
        )
    if gradient != "straight_through":
        query, key = query.detach(), key.detach()
    if gradient is None:
        value = value.detach()
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    out, index = registration.call(OP, query, key, value, scale, causal, backend)
    return (out, index) if return_index else out
