"""adaptive_attention in plain PyTorch, on any device: the specification, and its gradient.

The gradient is written out, because autograd is switched off inside an op under many of PyTorch's
modes; like every fused backward it makes the attention weights again.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from pyseq.ops.attention import (
    first_seeing_row,
    masked_logits,
    quarantine,
    reached,
    to_heads,
    visibility,
)
from pyseq.ops.precision import accumulation_dtype

# The published polynomial in the entropy, highest power first, and where it begins to be asked.
COEFFICIENTS = (-0.037, 0.481, -2.3, 4.917, -1.791)
LEAST_ENTROPY = 0.5  # nats


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    coefficients: Sequence[float],
    causal: bool,
) -> Tensor:
    """softmax(beta scale <q, k>) V as (B, H, T, D), differentiable by autograd."""
    return attend_and_measure(query, key, value, scale, coefficients, causal)[0]


def attend_and_measure(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    coefficients: Sequence[float],
    causal: bool,
) -> tuple[Tensor, Tensor]:
    """The output as `attend` gives it, and the measures of its rows, (4, B, H, T), no gradient.

    They are, with s = scale <q, k>: the largest <q, k>, ln sum e^(s - max s), the entropy of
    softmax(s) in nats, and ln sum e^(beta (s - max s)); NaN for a query that sees a NaN or an
    infinity, 0 for one that sees no key. The attention weights can be restored from them, however
    large the logits are.
    """
    (B, H, T, D), S = query.shape, key.shape[2]
    hidden = first_seeing_row(T, S, causal, None, 0)  # those queries see no key, the rest all do
    if hidden == T:
        none = query.new_zeros((4, B, H, T), dtype=accumulation_dtype(query))
        return torch.zeros_like(query), none
    q, k, v, bad, visible = _finite(query[:, :, hidden:], key, value, scale, causal)

    logits = masked_logits(q, k, visible)
    centred, mass = centre(logits)
    nats = entropy(centred, mass)
    weights = sharpen(centred, mass, sharpness(nats, coefficients))
    out = (weights @ v).view(B, H, T - hidden, D)

    with torch.no_grad():
        # The best key has mass 1, so its weight is 1 / sum.
        numbers = [
            logits.amax(-1) / scale,
            mass.sum(-1).log(),
            nats[..., 0],
            -weights.amax(-1).log(),
        ]
        measures = torch.stack(numbers).view(4, B, H, T - hidden).masked_fill(bad, math.nan)
    out = out.masked_fill(bad[..., None], math.nan).to(query.dtype)
    return pad(out, (0, 0, hidden, 0)), pad(measures, (hidden, 0))


def centre(logits: Tensor) -> tuple[Tensor, Tensor]:
    """c = s - max s and e^c over the last axis; where e^c is 0, c is 0 as well.

    A hidden key has s = -inf, and 0 * inf would be NaN. A key without mass has no part in anything.
    """
    centred = logits - logits.detach().amax(-1, keepdim=True)
    mass = centred.exp()
    return centred.masked_fill(mass == 0, 0), mass


def entropy(centred: Tensor, mass: Tensor) -> Tensor:
    """-sum p ln p of p = softmax(s), in nats, (..., 1).

    From s itself H would take over the rounding error of a large s: 8e-3 nats at s = 2^15 in
    float32. A key without mass is not asked for its ln p, so none needs the paper's 1e-9 beside it.
    """
    total = mass.sum(-1, keepdim=True)
    moment = (mass * centred).sum(-1, keepdim=True)
    return total.log() - moment / total


def sharpness(nats: Tensor, coefficients: Sequence[float]) -> Tensor:
    """The inverse temperature beta(H), at least 1."""
    return torch.where(acts(nats, coefficients), polynomial(coefficients, nats), 1)


def slope(nats: Tensor, coefficients: Sequence[float]) -> Tensor:
    """beta'(H)."""
    return torch.where(acts(nats, coefficients), polynomial(derivative(coefficients), nats), 0)


def acts(nats: Tensor, coefficients: Sequence[float]) -> Tensor:
    """Where beta is the polynomial; elsewhere it is 1."""
    return (nats > LEAST_ENTROPY) & (polynomial(coefficients, nats) > 1)


def polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """Horner's rule, highest power first."""
    total = torch.zeros_like(x)
    for coefficient in coefficients:
        total = total * x + coefficient
    return total


def derivative(coefficients: Sequence[float]) -> list[float]:
    """The coefficients of a polynomial's derivative."""
    degree = len(coefficients) - 1
    return [(degree - i) * c for i, c in enumerate(coefficients[:-1])]


def sharpen(centred: Tensor, mass: Tensor, beta: Tensor) -> Tensor:
    """softmax(beta s): a key without mass has none at a larger beta either."""
    return torch.softmax((beta * centred).masked_fill(mass == 0, -math.inf), -1)


def gradients(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    coefficients: Sequence[float],
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value, in their dtypes.

    A row of `grad` with a NaN or an infinity makes NaN of the gradients of what its output depends
    on, and of nothing else.
    """
    (B, H, T, D), (G, S) = query.shape, key.shape[1:3]
    hidden = first_seeing_row(T, S, causal, None, 0)
    if hidden == T:
        return torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
    q, k, v, bad_out, visible = _finite(query[:, :, hidden:], key, value, scale, causal)
    d_out, bad_grad = quarantine(grad[:, :, hidden:].to(q.dtype))
    d_out = d_out.masked_fill(bad_out[..., None], 0)  # that row is NaN whatever goes in
    stacked = (B, G, H // G * (T - hidden), D)  # the query heads of a key head, as in the logits
    d_out = d_out.reshape(stacked)

    logits = masked_logits(q, k, visible)
    overflow = logits.amax(-1, keepdim=True) == math.inf
    logits, d_out = logits.masked_fill(overflow, 0), d_out.masked_fill(overflow, 0)  # NaN as well
    centred, mass = centre(logits)
    nats = entropy(centred, mass)
    beta = sharpness(nats, coefficients)
    weights = sharpen(centred, mass, beta)
    d_sharpened = _through_softmax(weights, d_out @ v.mT)
    # The sum of d_sharpened over the keys is 0, so centred logits serve here as well.
    d_beta = (d_sharpened * centred).sum(-1, keepdim=True)
    d_nats = d_beta * slope(nats, coefficients)
    d_logits = beta * d_sharpened + d_nats * _through_entropy(centred, mass, nats)

    d_query = (d_logits @ k).view(B, H, T - hidden, D) * scale
    d_key = d_logits.mT @ q.reshape(stacked)
    d_value = weights.mT @ d_out

    bad_keys = reached(bad_grad.unflatten(1, (G, -1)).any(2), visible.mT)[..., None]
    d_query = d_query.masked_fill(bad_grad[..., None], math.nan).to(query.dtype)
    return (
        pad(d_query, (0, 0, hidden, 0)),
        d_key.masked_fill(bad_keys, math.nan).to(key.dtype),
        d_value.masked_fill(bad_keys, math.nan).to(value.dtype),
    )


def _through_softmax(weights: Tensor, d_weights: Tensor) -> Tensor:
    return weights * (d_weights - (weights * d_weights).sum(-1, keepdim=True))


def _through_entropy(centred: Tensor, mass: Tensor, nats: Tensor) -> Tensor:
    """dH/ds_j = -p_j (ln p_j + H)."""
    total = mass.sum(-1, keepdim=True)
    p = mass / total
    log_p = centred - total.log()  # wrong where p is 0, and multiplied by it
    return -p * (log_p + nats)


def _finite(
    query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """scale q, k and v in the accumulation dtype without the rows that are not finite.

    And which outputs (B, H, T) those rows reach, and who sees whom (T, S).
    """
    dtype = accumulation_dtype(query)
    T, H, S = query.shape[2], query.shape[1], key.shape[2]
    q, bad_query = quarantine(query.to(dtype) * scale)
    k, bad_key = quarantine(key.to(dtype))
    v, bad_value = quarantine(value.to(dtype))
    visible = visibility(T, S, causal=causal, device=query.device)
    bad = bad_query | to_heads(reached(bad_key | bad_value, visible), H)
    return q, k, v, bad, visible
