"""prepare_keys in plain PyTorch: normalise, gain, rotate; and the same backwards."""

import torch
from torch import Tensor

from pyseq.ops.attention import quarantine
from pyseq.ops.precision import accumulation_dtype


def prepare(
    key: Tensor,
    key_weight: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    norm: str | None,
    eps: float,
    position: int,
) -> Tensor:
    """The specification: key (B, G, S, D) as a cache holds it."""
    unit, _ = normalise(key.to(accumulation_dtype(key)), norm, eps)
    return gain_and_rotate(unit, key_weight, cos, sin, position).to(key.dtype)


def gradients(
    grad: Tensor,
    key: Tensor,
    key_weight: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    norm: str | None,
    eps: float,
    position: int,
) -> tuple[Tensor, Tensor]:
    """The gradients of key and key_weight, not yet rounded to their dtypes."""
    dtype = accumulation_dtype(key)
    unit, factor = normalise(key.to(dtype), norm, eps)
    d = unrotate(grad.to(dtype), cos, sin, position)
    # A key that is NaN whatever the gain has no share in the gain's gradient.
    finite, _ = quarantine(unit)
    d_weight = (d * finite).sum((0, 1, 2))
    return through_norm(gain(d, key_weight), unit, factor, norm, eps), d_weight


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
    """Multiply x (B, H, T, D) by its gain, then rotate row t by the angles of position + t.

    Tables (B, 1, positions, D/2) give every entry of the batch its own.
    """
    if weight is not None:
        x = x * weight.to(x.dtype)
    if cos is None or sin is None:
        return x
    rows = slice(position, position + x.shape[2])
    return rotate(x, cos[..., rows, :], sin[..., rows, :])


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + D/2) of row t of x (..., T, D) by the angles of row t."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def unrotate(d: Tensor, cos: Tensor | None, sin: Tensor | None, position: int) -> Tensor:
    """The gradient before `gain_and_rotate` turned its rows."""
    if cos is None or sin is None:
        return d
    rows = slice(position, position + d.shape[2])
    return rotate(d, cos[..., rows, :], -sin[..., rows, :])


def gain(d: Tensor, weight: Tensor | None) -> Tensor:
    """The gradient before `gain_and_rotate` multiplied by the gain."""
    return d if weight is None else d * weight.to(d.dtype)


def through_norm(d: Tensor, unit: Tensor, factor: Tensor, norm: str | None, eps: float) -> Tensor:
    """The gradient of x, where unit = x * factor (for "layer", of x less its mean)."""
    if norm is None:
        return d
    along = (d * unit).sum(-1, keepdim=True)
    # "l2": there the factor does not depend on x. By the division that made the factor, because a
    # rounded 1 / eps, multiplied by eps, need not be 1.
    constant = factor >= 1 / factor.new_full((), eps)
    along = along.masked_fill(constant, 0) if norm == "l2" else along / unit.shape[-1]
    d = (d - unit * along) * factor
    return d - d.mean(-1, keepdim=True) if norm == "layer" else d
