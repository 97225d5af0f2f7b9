"""hard_attention by the CPU's kernels."""

import torch
from torch import Tensor

from pyseq.ops import backends


def forward(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """The output (B, H, T, D), in the query's memory order, and the index (B, H, T)."""
    query = query.detach()
    out = torch.empty_like(query)
    index = query.new_empty(query.shape[:3], dtype=torch.int64)
    backends.core().hard_attention(
        query, key.detach(), value.detach(), out, index, causal, torch.get_num_threads()
    )
    return out, index
