"""lstm in plain PyTorch, differentiable, on any device: the specification."""

import torch
from torch import Tensor

from pyseq.ops.precision import accumulation_dtype

GATES = 4  # i, f, g, o
TAPED = 5  # and the cell


def layer(
    x: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, hidden: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs (S, B, T, H), last hidden and cell (S, B, H) and the tape, not rounded.

    The tape, (S, T, B, 5H), holds the gates after their activations and the cell of every step.
    """
    dtype = accumulation_dtype(x)
    S, B, T, _ = x.shape
    H = weight_hh.shape[2]
    rows = x.to(dtype).reshape(S, B * T, x.shape[3])
    inputs = torch.baddbmm(bias.to(dtype)[:, None], rows, weight_ih.to(dtype).mT)
    inputs = inputs.view(S, B, T, GATES * H)
    weight = weight_hh.to(dtype).mT
    h, c = hidden.to(dtype), cell.to(dtype)
    outputs = [h[:, :, None][:, :, :0]]
    tape = [c.repeat(1, 1, TAPED)[:, None][:, :0]]
    for t in range(T):
        i, f, g, o = torch.baddbmm(inputs[:, :, t], h, weight).chunk(GATES, -1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        c = f * c + i * g
        h = o * c.tanh()
        outputs.append(h[:, :, None])
        tape.append(torch.cat([i, f, g, o, c], -1)[:, None])
    return torch.cat(outputs, 2), h, c, torch.cat(tape, 1)


def gradients(
    d_outputs: Tensor | None,
    d_hidden: Tensor | None,
    d_cell: Tensor | None,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    hidden: Tensor,
    cell: Tensor,
    tape: Tensor,
) -> list[Tensor]:
    """The gradients of x, the weights, the bias and the first states, not rounded.

    Those of outputs and of the last states that are None are 0.
    """
    dtype = accumulation_dtype(x)
    S, B, T, I = x.shape  # noqa: E741
    H = weight_hh.shape[2]
    i, f, g, o, c = tape.chunk(TAPED, -1)  # (S, T, B, H)
    tanh = c.tanh()
    c_before = torch.cat([cell.to(dtype)[:, None], c], 1)[:, :T]
    h_before = torch.cat([hidden.to(dtype)[:, None], o * tanh], 1)[:, :T]
    d_h = torch.zeros_like(hidden, dtype=dtype) if d_hidden is None else d_hidden.to(dtype)
    d_c = torch.zeros_like(cell, dtype=dtype) if d_cell is None else d_cell.to(dtype)
    d_z = tape.new_zeros(S, T, B, GATES * H)  # of the gates before their activations
    weight = weight_hh.to(dtype)
    for t in reversed(range(T)):
        if d_outputs is not None:
            d_h = d_h + d_outputs[:, :, t].to(dtype)
        d_c = d_c + d_h * o[:, t] * (1 - tanh[:, t] ** 2)
        slopes = (
            d_c * g[:, t] * i[:, t] * (1 - i[:, t]),
            d_c * c_before[:, t] * f[:, t] * (1 - f[:, t]),
            d_c * i[:, t] * (1 - g[:, t] ** 2),
            d_h * tanh[:, t] * o[:, t] * (1 - o[:, t]),
        )
        d_z[:, t] = torch.cat(slopes, -1)
        d_h = torch.bmm(d_z[:, t], weight)
        d_c = d_c * f[:, t]
    rows = d_z.view(S, T * B, GATES * H)
    inputs = x.to(dtype).transpose(1, 2).reshape(S, T * B, I)
    return [
        (rows @ weight_ih.to(dtype)).view(S, T, B, I).transpose(1, 2),
        rows.mT @ inputs,
        rows.mT @ h_before.reshape(S, T * B, H),
        rows.sum(1),
        d_h,
        d_c,
    ]
