"""The reference backend of the registered op: the specification and its gradient, in parts.

The gradient is written out, because autograd is switched off inside an op under many of PyTorch's
modes; like every fused backward it makes the attention weights again.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pyseq.ops.attention import (
    masked_logits,
    per_head,
    quarantine,
    reached,
    softmax_for_backward,
    to_heads,
)
from pyseq.ops.cosine_attention import reference
from pyseq.ops.cosine_attention.reference import Inputs, Options
from pyseq.ops.precision import accumulation_dtype
from pyseq.ops.prepare_keys.reference import (
    gain,
    gain_and_rotate,
    normalise,
    through_norm,
    unrotate,
)

# Bytes of attention weights per part. Small enough for a CPU's last cache, and for an allocator to
# hand the same pages out again; a buffer for the whole batch is mapped afresh at every step.
PART_BYTES = 4 << 20

PART_ROWS = 128  # query rows per part, where the keys after them can be left out

Place = tuple[slice, slice, slice]


def forward(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor]:
    """`reference.attend`, out in the query's memory order."""
    query = inputs.query
    out = torch.empty_like(query)
    lse = query.new_empty(query.shape[:3], dtype=accumulation_dtype(query))
    for heads, groups in _places(inputs, options):
        out[heads], lse[heads] = reference.attend(_part(inputs, heads, groups), options)
    return out, lse


def backward(
    grad: Tensor, inputs: Inputs, options: Options, needs: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of query, key, value, scale and the two weights, None where not needed.

    A row of `grad` with a NaN or an infinity makes NaN of the gradients of what its output depends
    on, and of nothing else.
    """
    exact = accumulation_dtype(inputs.query)
    trained = inputs[: len(needs)]
    wanted = {i: x for i, x in enumerate(trained) if needs[i] and x is not None}
    # All but the query's are sums over the parts, and must not be rounded on the way.
    totals = {i: torch.zeros_like(x, dtype=exact if i else x.dtype) for i, x in wanted.items()}
    for heads, groups in _places(inputs, options):
        found = _gradients(grad[heads], _part(inputs, heads, groups), options, needs)
        places = (heads, groups, groups, heads[1] if inputs.scale.dim() else ..., ..., ...)
        for i, part in found.items():
            totals[i][places[i]] += part
    return [totals.get(i) for i in range(len(needs))]


def _part(inputs: Inputs, heads: Place, groups: Place) -> Inputs:
    query, key, value, scale, *rest = inputs
    scale = scale[heads[1]] if scale.dim() else scale
    return Inputs(query[heads], key[groups], value[groups], scale, *rest)


def _places(inputs: Inputs, options: Options) -> Iterator[tuple[Place, Place]]:
    """Indices of query (batch, heads, rows) and of key (batch, groups, rows), part by part.

    Every part is an attention of its own: the last row of its queries stands at its last key.
    """
    query = inputs.query
    (B, H, T, _), (G, S) = query.shape, inputs.key.shape[1:3]
    on_cpu = query.device.type == "cpu"
    # A block of rows then needs no later key. On a GPU every part costs launches: one part there.
    skips = on_cpu and options.causal and options.prefix == 0
    rows = min(T, PART_ROWS) if skips else T
    per_group = max(1, H // G * rows * S * accumulation_dtype(query).itemsize)
    budget = PART_BYTES if on_cpu else B * G * per_group
    groups = min(G, max(1, budget // per_group))
    batch = max(1, budget // (per_group * G))
    for t in range(0, T, max(1, rows)):
        queries = slice(t, min(t + rows, T))
        keys = slice(0, max(0, queries.stop + S - T) if skips else S)
        for b in range(0, B, batch):
            entries = slice(b, b + batch)
            for g in range(0, G, groups):
                stop = min(g + groups, G)
                heads = slice(g * (H // G), stop * (H // G))
                yield (entries, heads, queries), (entries, slice(g, stop), keys)


def _gradients(
    grad: Tensor, inputs: Inputs, options: Options, needs: Sequence[bool]
) -> dict[int, Tensor]:
    """The gradient of input i for every i that `needs` it; none where no query sees a key."""
    query, key, value, scale, query_weight, key_weight, cos, sin = inputs
    (B, H, T, D), (G, S) = query.shape, key.shape[1:3]
    dtype = accumulation_dtype(query)
    hidden = options.first_seeing_row(T, S)
    rows = T - hidden
    found: dict[int, Tensor] = {}
    if rows == 0:
        return found

    # As in the specification, which says why rows are put in quarantine.
    query_unit, query_factor = normalise(query[:, :, hidden:].to(dtype), options.norm, options.eps)
    key_unit, key_factor = normalise(key.to(dtype), options.norm, options.eps)
    q = gain_and_rotate(query_unit, query_weight, cos, sin, S - rows)
    q, bad_query = quarantine(q * per_head(scale, dtype))
    k, bad_key = quarantine(gain_and_rotate(key_unit, key_weight, cos, sin, 0))
    v, bad_value = quarantine(value.to(dtype))
    d_out, bad_grad = quarantine(grad[:, :, hidden:].to(dtype))
    visible = options.visibility(T, S, q.device)[hidden:]
    bad_out = bad_query | to_heads(reached(bad_key | bad_value, visible), H)
    d_out = d_out.masked_fill(bad_out[..., None], 0)  # that row is NaN whatever goes in

    logits = masked_logits(q, k, visible)
    weights = softmax_for_backward(logits)
    stacked = (B, G, H // G * rows, D)
    d_out = d_out.reshape(stacked)
    if needs[2]:
        found[2] = weights.mT @ d_out
    d_weights = d_out @ v.mT
    d_logits = d_weights.sub_((weights * d_weights).sum(-1, keepdim=True)).mul_(weights)
    if needs[0] or needs[3] or needs[4]:
        d_q = unrotate((d_logits @ k).view(B, H, rows, D), cos, sin, S - rows)
        unit = query_unit.masked_fill(bad_query[..., None], 0)
        along = (gain(d_q, query_weight) * unit).sum((0, 2, 3))
        found[3] = along if scale.dim() else along.sum()
        d_q = d_q * per_head(scale, dtype)
        found[4] = (d_q * unit).sum((0, 1, 2))
        d_query = through_norm(
            gain(d_q, query_weight), unit, query_factor, options.norm, options.eps
        )
        found[0] = torch.nn.functional.pad(d_query, (0, 0, hidden, 0))
    if needs[1] or needs[5]:
        d_k = unrotate(d_logits.mT @ q.reshape(stacked), cos, sin, 0)
        unit = key_unit.masked_fill(bad_key[..., None], 0)
        found[5] = (d_k * unit).sum((0, 1, 2))
        found[1] = through_norm(gain(d_k, key_weight), unit, key_factor, options.norm, options.eps)

    bad = _where_bad(bad_grad, visible, G, hidden, scale.dim())
    return {i: x.masked_fill(bad[i], math.nan) for i, x in found.items() if needs[i]}


def _where_bad(
    bad_grad: Tensor, visible: Tensor, G: int, hidden: int, scale_dims: int
) -> tuple[Tensor, ...]:
    """Where the bad rows of the output's gradient (B, H, rows) reach each input's gradient."""
    of_query = torch.nn.functional.pad(bad_grad, (hidden, 0))[..., None]
    of_key = reached(bad_grad.unflatten(1, (G, -1)).any(2), visible.mT)[..., None]
    of_scale = bad_grad.any(2).any(0) if scale_dims else bad_grad.any()
    return of_query, of_key, of_key, of_scale, bad_grad.any(), bad_grad.any()
