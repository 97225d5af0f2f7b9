"""The gradient of the specification, written out.

Autograd is switched off inside an op under many of PyTorch's modes.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from pyseq.ops.attention import per_head, quarantine, reached, softmax_for_backward, to_heads
from pyseq.ops.cosine_decode.reference import (
    Inputs,
    Options,
    clear_unused,
    known_lengths,
    logits,
    rows_of,
    visibility,
)
from pyseq.ops.precision import accumulation_dtype
from pyseq.ops.prepare_keys.reference import (
    gain,
    gain_and_rotate,
    normalise,
    through_norm,
    unrotate,
)


def gradients(grad: Tensor, inputs: Inputs, options: Options) -> Sequence[Tensor]:
    """Of query, key_cache, value_cache, scale and query_weight, not yet rounded to their dtypes.

    A row of `grad` with a NaN or an infinity makes NaN of the gradients of what its output depends
    on, and of nothing else.
    """
    query, key_cache, value_cache, scale, query_weight, lengths, cos, sin = inputs
    (B, H, T, D), (G, S) = query.shape, key_cache.shape[1:3]
    dtype = accumulation_dtype(query)
    k, bad_key = quarantine(clear_unused(key_cache.to(dtype), lengths))
    v, bad_value = quarantine(clear_unused(value_cache.to(dtype), lengths))
    lengths = known_lengths(lengths, B, S, query.device)
    visible = visibility(lengths, T, S, options)
    blind = ~visible.any(-1)[:, None]
    cos, sin = rows_of(cos, sin, lengths, T)

    unit, factor = normalise(query.to(dtype), options.norm, options.eps)
    q = gain_and_rotate(unit, query_weight, cos, sin, 0) * per_head(scale, dtype)
    q, bad_query = quarantine(q)
    unit = unit.masked_fill(bad_query[..., None], 0)
    d_out, bad_grad = quarantine(grad.to(dtype).masked_fill(blind[..., None], 0))
    bad_out = bad_query | to_heads(reached(bad_key | bad_value, visible), H)
    d_out = d_out.masked_fill(bad_out[..., None], 0)  # that row is NaN whatever goes in

    stacked = (B, G, H // G * T, D)
    d_out = d_out.reshape(stacked)
    weights = softmax_for_backward(logits(q, k, visible, blind))
    d_weights = d_out @ v.mT
    d_logits = weights * (d_weights - (weights * d_weights).sum(-1, keepdim=True))
    d_value = weights.mT @ d_out
    d_key = d_logits.mT @ q.reshape(stacked)

    d_q = unrotate((d_logits @ k).view(B, H, T, D), cos, sin, 0)
    along = gain(d_q, query_weight) * unit
    d_scale = along.sum((0, 2, 3)) if scale.dim() else along.sum()
    d_q = d_q * per_head(scale, dtype)
    d_weight = (d_q * unit).sum((0, 1, 2))
    d_query = through_norm(gain(d_q, query_weight), unit, factor, options.norm, options.eps)

    bad_cache = reached(bad_grad.unflatten(1, (G, -1)).any(2), visible.mT)[..., None]
    bad_scale = bad_grad.any(2).any(0) if scale.dim() else bad_grad.any()
    found = (d_query, d_key, d_value, d_scale, d_weight)
    bad = (bad_grad[..., None], bad_cache, bad_cache, bad_scale, bad_grad.any())
    return [d.masked_fill(spoilt, math.nan) for d, spoilt in zip(found, bad, strict=True)]
