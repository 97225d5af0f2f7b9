"""The public lstm: meaning and checks."""

import torch
from torch import Tensor

from pyseq.ops import checks, registration
from pyseq.ops.lstm import autograd  # noqa: F401  (registers the op)
from pyseq.ops.lstm.reference import GATES

OP = "lstm"


def lstm(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor,
    hidden: Tensor | None = None,
    cell: Tensor | None = None,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one LSTM layer over time, for S models side by side.

    i, f, g, o = W_ih x_t + W_hh h_(t-1) + b; c_t = sigmoid(f) c_(t-1) + sigmoid(i) tanh(g);
    h_t = sigmoid(o) tanh(c_t). Rows of a batch never meet, so the native kernels take a few rows
    through all of time while their states and a model's weights stay in the caches; a training
    keeps the gates and cells of all steps, 5 H numbers each. A NaN or an infinity in a row reaches
    the output of no other row. On a GPU PyTorch's own LSTM serves better than this op, which has
    only its reference there.

    Args:
        x (Tensor (S, B, T, I), float32 | bfloat16 | float16 | float64): B sequences for each of S
            models; any strides.
        weight_ih (Tensor (S, 4H, I), dtype of x): of the input; gates in the order i, f, g, o.
        weight_hh (Tensor (S, 4H, H), dtype of x): of the state before.
        bias (Tensor (S, 4H), dtype of x): the sum of the two that PyTorch's LSTM has.
        hidden (Tensor (S, B, H), dtype of x | None): h before the first step; None is 0.
        cell (Tensor (S, B, H), dtype of x | None): c before the first step; None is 0.
        backend (str): "auto", "reference" or "native".

    Returns:
        tuple (Tensor (S, B, T, H), Tensor (S, B, H), Tensor (S, B, H)): h of every step, and h and
            c after the last one (without a step, before the first), dtype of x, contiguous. States
            are carried from step to step in float32, or float64 where x is.

    Raises:
        TypeError: an argument is of the wrong kind or dtype.
        ValueError: shapes or devices do not fit together.
        BackendUnavailable: a backend asked for by name cannot serve the call.

    Source: Hochreiter and Schmidhuber 1997, Long Short-Term Memory, with the forget gate of Gers et
        al. 2000, Learning to Forget, as in `torch.nn.LSTM`.

    Example:
        >>> import torch
        >>> from pyseq.ops import lstm
        >>> weight_ih, weight_hh = torch.randn(3, 32, 5), torch.randn(3, 32, 8)
        >>> outputs, hidden, cell = lstm(torch.randn(3, 2, 7, 5), weight_ih, weight_hh,
        ...                              torch.zeros(3, 32))
        >>> outputs.shape, cell.shape
        (torch.Size([3, 2, 7, 8]), torch.Size([3, 2, 8]))
    """
    named = {"x": x, "weight_ih": weight_ih, "weight_hh": weight_hh, "bias": bias}
    named |= {
        name: state for name, state in (("hidden", hidden), ("cell", cell)) if state is not None
    }
    for name, tensor in named.items():
        checks.tensor(OP, name, tensor)
    checks.one_dtype(OP, **named)
    checks.one_device(OP, **named)
    _check_shapes(named)
    zeros = (x.shape[0], x.shape[1], weight_hh.shape[2])
    hidden = x.new_zeros(zeros) if hidden is None else hidden
    cell = x.new_zeros(zeros) if cell is None else cell
    taped = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in named.values())
    outputs, hidden, cell, _ = registration.call(
        OP, x, weight_ih, weight_hh, bias, hidden, cell, taped, backend
    )
    return outputs, hidden, cell


def _check_shapes(named: dict[str, Tensor]) -> None:
    """x (S, B, T, I), weights (S, 4H, I) and (S, 4H, H), bias (S, 4H), states (S, B, H)."""
    x, weight_ih, weight_hh = named["x"], named["weight_ih"], named["weight_hh"]
    if not (x.dim() == 4 and weight_ih.dim() == weight_hh.dim() == 3):
        raise ValueError(
            f"{OP}: {x.dim()}, {weight_ih.dim()} and {weight_hh.dim()} dimensions; x (S, B, T, I),"
            f" weight_ih (S, 4H, I) and weight_hh (S, 4H, H) fit; {checks.shapes_of(**named)}"
        )
    S, B, _, I = x.shape  # noqa: E741
    H = weight_hh.shape[2]
    fitting = {
        "weight_ih": (S, GATES * H, I),
        "weight_hh": (S, GATES * H, H),
        "bias": (S, GATES * H),
        "hidden": (S, B, H),
        "cell": (S, B, H),
    }
    for name, shape in fitting.items():
        if name in named and tuple(named[name].shape) != shape:
            raise ValueError(
                f"{OP}: {name} has shape {tuple(named[name].shape)}; {shape} fits;"
                f" {checks.shapes_of(**named)}"
            )
