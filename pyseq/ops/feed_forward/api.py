"""The public feed_forward: meaning and checks."""

from torch import Tensor

from pyseq.ops import checks, registration
from pyseq.ops import dropout as drops
from pyseq.ops.feed_forward import autograd  # noqa: F401  (registers the op)
from pyseq.ops.feed_forward.reference import ACTIVATIONS

OP = "feed_forward"


def feed_forward(
    x: Tensor,
    weight_in: Tensor,
    bias_in: Tensor,
    weight_out: Tensor,
    bias_out: Tensor,
    *,
    activation: str = "relu",
    dropout: float = 0.0,
    seed: int | Tensor = 0,
    backend: str = "auto",
) -> Tensor:
    """Transform every token: W_out drop(act(W_in x + b_in)) + b_out, for S models side by side.

    Made for narrow models on the CPU, whose hidden layer is many times wider than all else: the
    native kernels hold it for a few tokens at a time, and make it again in the backward. On a GPU
    plain PyTorch serves. A NaN or an infinity in a token reaches the output of no other token.

    Args:
        x (Tensor (S, N, C), float32 | bfloat16 | float16 | float64): N tokens for each of S models;
            any strides.
        weight_in (Tensor (S, F, C), dtype of x): of the first layer.
        bias_in (Tensor (S, F), dtype of x): of the first layer.
        weight_out (Tensor (S, O, F), dtype of x): of the second layer.
        bias_out (Tensor (S, O), dtype of x): of the second layer.
        activation (str): "relu" or "gelu", the exact one.
        dropout (float): the share of hidden features that become 0, in [0, 1), rounded to a
            multiple of 2^-16; the others grow so that their expectation stays; no unit. Nothing
            here asks whether a model trains.
        seed (int | Tensor (), int64): which features: whether feature f is dropped is a pure
            function of (seed, s, n, f), the same on every backend. A tensor is a new seed without a
            new compilation.
        backend (str): "auto", "reference" or "native".

    Returns:
        Tensor (S, N, O), dtype of x, contiguous.

    Raises:
        TypeError: an argument is of the wrong kind or dtype.
        ValueError: shapes or devices do not fit together, or a number is out of its range.
        BackendUnavailable: a backend asked for by name cannot serve the call.

    Source: Vaswani et al. 2017, Attention Is All You Need, arXiv 1706.03762, section 3.3, with the
        dropout that `torch.nn.TransformerEncoderLayer` has there.

    Example:
        >>> import torch
        >>> from pyseq.ops import feed_forward
        >>> weight_in, weight_out = torch.randn(3, 32, 10), torch.randn(3, 10, 32)
        >>> bias_in, bias_out = torch.zeros(3, 32), torch.zeros(3, 10)
        >>> x = torch.randn(3, 7, 10)
        >>> feed_forward(x, weight_in, bias_in, weight_out, bias_out, dropout=0.1, seed=5).shape
        torch.Size([3, 7, 10])
    """
    named = {
        "x": x,
        "weight_in": weight_in,
        "bias_in": bias_in,
        "weight_out": weight_out,
        "bias_out": bias_out,
    }
    for name, tensor in named.items():
        checks.tensor(OP, name, tensor)
    checks.one_dtype(OP, **named)
    checks.one_device(OP, **named)
    _check_shapes(named)
    if not isinstance(activation, str):
        raise TypeError(f"{OP}: activation is a {type(activation).__name__}; a str fits")
    if activation not in ACTIVATIONS:
        known = " or ".join(map(repr, ACTIVATIONS))
        raise ValueError(f"{OP}: activation is {activation!r}; {known} fits")
    drops.check(OP, dropout, seed, x.device)
    return registration.call(
        OP, *named.values(), drops.as_tensor(seed), activation, float(dropout), backend
    )


def _check_shapes(named: dict[str, Tensor]) -> None:
    """x (S, N, C), weights (S, F, C) and (S, O, F), biases of their rows."""
    x, weight_in, weight_out = named["x"], named["weight_in"], named["weight_out"]
    if not x.dim() == weight_in.dim() == weight_out.dim() == 3:
        raise ValueError(
            f"{OP}: {x.dim()}, {weight_in.dim()} and {weight_out.dim()} dimensions; x (S, N, C),"
            f" weight_in (S, F, C) and weight_out (S, O, F) fit; {checks.shapes_of(**named)}"
        )
    S, _, C = x.shape
    F = weight_in.shape[1]
    O = weight_out.shape[1]  # noqa: E741
    fitting = {
        "weight_in": (S, F, C),
        "bias_in": (S, F),
        "weight_out": (S, O, F),
        "bias_out": (S, O),
    }
    for name, shape in fitting.items():
        if tuple(named[name].shape) != shape:
            raise ValueError(
                f"{OP}: {name} has shape {tuple(named[name].shape)}; {shape} fits;"
                f" {checks.shapes_of(**named)}"
            )
