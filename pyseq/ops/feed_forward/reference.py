"""feed_forward in plain PyTorch, differentiable, on any device: the specification."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from pyseq.ops import dropout as drops
from pyseq.ops.precision import accumulation_dtype

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
}


def transform(
    x: Tensor,
    weight_in: Tensor,
    bias_in: Tensor,
    weight_out: Tensor,
    bias_out: Tensor,
    seed: Tensor,
    activation: str,
    dropout: float,
) -> Tensor:
    """The output (S, N, O), not rounded to the dtype of x."""
    dtype = accumulation_dtype(x)
    z = before_activation(x, weight_in, bias_in)  # (S, N, F)
    hidden = ACTIVATIONS[activation](z) * drops.factors(seed, dropout, z.shape, x.device, dtype)
    return torch.baddbmm(bias_out.to(dtype)[:, None], hidden, weight_out.to(dtype).mT)


def before_activation(x: Tensor, weight_in: Tensor, bias_in: Tensor) -> Tensor:
    """W_in x + b_in, (S, N, F), in the accumulation dtype."""
    dtype = accumulation_dtype(x)
    return torch.baddbmm(bias_in.to(dtype)[:, None], x.to(dtype), weight_in.to(dtype).mT)


def gradients(
    grad: Tensor,
    x: Tensor,
    weight_in: Tensor,
    bias_in: Tensor,
    weight_out: Tensor,
    seed: Tensor,
    activation: str,
    dropout: float,
) -> list[Tensor]:
    """The gradients of x and of all weights and biases, not rounded."""
    dtype = accumulation_dtype(x)
    d_out = grad.to(dtype)
    z = before_activation(x, weight_in, bias_in)
    factors = drops.factors(seed, dropout, z.shape, x.device, dtype)
    hidden = ACTIVATIONS[activation](z) * factors
    d_z = (d_out @ weight_out.to(dtype)) * factors * _slope(z, activation)
    return [
        d_z @ weight_in.to(dtype),
        d_z.mT @ x.to(dtype),
        d_z.sum(1),
        d_out.mT @ hidden,
        d_out.sum(1),
    ]


def _slope(z: Tensor, activation: str) -> Tensor:
    """The activation's derivative."""
    if activation == "relu":
        return (z > 0).to(z.dtype)
    below = (1 + torch.erf(z * math.sqrt(0.5))) / 2
    return below + z * torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
