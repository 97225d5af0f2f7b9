"""cosine_attention by the CPU's kernels."""

import torch
from torch import Tensor

from pyseq.ops import backends
from pyseq.ops.cosine_attention.reference import Inputs, Options


def forward(inputs: Inputs, options: Options, logit_bound: float | None) -> tuple[Tensor, Tensor]:
    """The output (B, H, T, D), in the query's memory order, and the log-sum-exp (B, H, T)."""
    query, H = inputs.query.detach(), inputs.query.shape[1]
    scale = backends.as_float32(inputs.scale)
    rest = [backends.as_float32(x) for x in inputs[4:]]
    out = torch.empty_like(query)
    lse = query.new_empty(query.shape[:3], dtype=torch.float32)
    backends.core().cosine_attention(
        query,
        inputs.key.detach(),
        inputs.value.detach(),
        scale.expand(H),
        *rest,
        out,
        lse,
        options.norm,
        options.eps,
        options.causal,
        options.window or 0,
        options.prefix,
        logit_bound or 0.0,
        torch.get_num_threads(),
    )
    return out, lse
