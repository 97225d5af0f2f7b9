"""prepare_keys in plain PyTorch: normalise, gain, rotate; and the same backwards."""

import torch
from torch import Tensor


def normalise(x: Tensor, norm: str | None, eps: float) -> tuple[Tensor, Tensor]:
    """The rows of x (..., D) normalised, and the factor (..., 1) that did it."""
    if norm is None:
        return x, x.new_ones(())
    if norm == "layer":
        x = x - x.mean(-1, keepdim=True)
    if norm == "l2":
        factor = 1 / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(eps)
    else:
        factor = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return x * factor, factor


def gain_and_rotate(
    x: Tensor, weight: Tensor | None, cos: Tensor | None, sin: Tensor | None, position: int
) -> Tensor:
    """Multiply x (B, H, T, D) by its gain, then rotate row t by the angles of position + t."""
    if weight is not None:
        x = x * weight.to(x.dtype)
    if cos is None or sin is None:
        return x
    return rotate(x, cos[position : position + x.shape[2]], sin[position : position + x.shape[2]])


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + D/2) of row t of x (..., T, D) by the angles of row t."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def unrotate(d: Tensor, cos: Tensor | None, sin: Tensor | None, position: int) -> Tensor:
    """The gradient before `gain_and_rotate` turned its rows."""
    if cos is None or sin is None:
        return d
    end = position + d.shape[2]
    return rotate(d, cos[position:end], -sin[position:end])


def gain(d: Tensor, weight: Tensor | None) -> Tensor:
    """The gradient before `gain_and_rotate` multiplied by the gain."""
    return d if weight is None else d * weight.to(d.dtype)


def through_norm(d: Tensor, unit: Tensor, factor: Tensor, norm: str | None, eps: float) -> Tensor:
    """The gradient of x, where unit = x * factor (for "layer", of x less its mean)."""
    if norm is None:
        return d
    along = (d * unit).sum(-1, keepdim=True)
    constant = factor * eps >= 1  # "l2": there the factor does not depend on x
    along = along.masked_fill(constant, 0) if norm == "l2" else along / unit.shape[-1]
    d = (d - unit * along) * factor
    return d - d.mean(-1, keepdim=True) if norm == "layer" else d
