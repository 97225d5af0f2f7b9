"""lstm by the CPU's kernels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyseq.ops import backends
from pyseq.ops.lstm.reference import TAPED


def forward(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor,
    hidden: Tensor,
    cell: Tensor,
    taped: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs in the dtype of x, and in float32 last states and tape, empty unless asked for."""
    S, B, T, _ = x.shape
    H = weight_hh.shape[2]
    outputs = x.new_empty(S, B, T, H)
    last_hidden, last_cell = (x.new_empty(S, B, H, dtype=torch.float32) for _ in range(2))
    tape = x.new_empty((S, T, B, TAPED * H) if taped else 0, dtype=torch.float32)
    backends.core().lstm(
        x.detach(),
        *map(backends.as_float32, (weight_ih, weight_hh, bias, hidden, cell)),
        outputs,
        last_hidden,
        last_cell,
        tape if taped else None,
        torch.get_num_threads(),
    )
    return outputs, last_hidden, last_cell, tape


def backward(
    d_outputs: Tensor | None,
    d_hidden: Tensor | None,
    d_cell: Tensor | None,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor,
    hidden: Tensor,
    cell: Tensor,
    tape: Tensor,
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of all inputs, None where not needed; in float32 but that of x."""
    x = x.detach()
    weights = [backends.as_float32(w) for w in (weight_ih, weight_hh)]
    states = [backends.as_float32(state) for state in (hidden, cell)]
    like = (x, *weights, backends.as_float32(bias), *states)
    found = [
        torch.empty_like(y, memory_format=torch.contiguous_format) if need else None
        for y, need in zip(like, needs, strict=True)
    ]
    backends.core().lstm_backward(
        None if d_outputs is None else d_outputs.detach(),
        backends.as_float32(d_hidden),
        backends.as_float32(d_cell),
        x,
        *weights,
        *states,
        tape,
        *found,
        torch.get_num_threads(),
    )
    return found


def is_empty(x: Tensor, weight_hh: Tensor) -> bool:
    """Whether a size is 0, which no kernel knows: the reference has little to do then either."""
    return x.numel() == 0 or weight_hh.numel() == 0
