"""cosine_decode by the CPU's kernels."""

import torch
from torch import Tensor

from pyseq.kernels.cosine_attention import limits
from pyseq.ops import backends
from pyseq.ops.cosine_decode.reference import Inputs, Options


def forward(inputs: Inputs, options: Options, scale_bound: float | None) -> Tensor:
    """The output (B, H, T, D), in the query's memory order."""
    (_, H, _, D), S = inputs.query.shape, inputs.key_cache.shape[2]
    query, key_cache, value_cache = (x.detach() for x in inputs[:3])
    scale, query_weight = (
        backends.as_float32(inputs.scale),
        backends.as_float32(inputs.query_weight),
    )
    cos, sin = (backends.as_float32(x) for x in (inputs.cos, inputs.sin))
    bound = limits.logit_bound(scale_bound, options.norm, D)
    # As for bfloat16: a key of length 1 that was rounded may be longer.
    offset = limits.fixed_offset(bound, S, torch.bfloat16)
    out = torch.empty_like(query)
    backends.core().cosine_decode(
        query,
        key_cache,
        value_cache,
        scale.expand(H),
        query_weight,
        inputs.lengths,
        cos,
        sin,
        out,
        options.norm,
        options.eps,
        options.window or 0,
        options.prefix,
        offset,
        torch.get_num_threads(),
    )
    return out
