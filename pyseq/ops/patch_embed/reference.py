"""patch_embed in plain PyTorch, differentiable, on any device: the specification."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import fold, linear


def working_dtype(samples: Tensor, weight: Tensor) -> torch.dtype:
    """Where everything is computed: float64 if either is float64, else float32."""
    return torch.float64 if torch.float64 in (samples.dtype, weight.dtype) else torch.float32


def count(T: int, P: int, stride: int, pad_end: bool) -> int:
    """Patches of P samples, one every `stride`, in T samples; T must be at least P."""
    return (T + (stride if pad_end else 0) - P) // stride + 1


def embed(
    samples: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    center: Tensor,
    spread: Tensor,
    stride: int,
    pad_end: bool,
) -> Tensor:
    """The embeddings (B, N, C); center and spread are () or (B,)."""
    dtype = working_dtype(samples, weight)
    x = patches(samples, center, spread, weight.shape[1], stride, pad_end, dtype)
    # One flat product: of others PyTorch chooses the way by strides, and by who wants a gradient.
    flat = x.flatten(0, 1).contiguous()
    out = linear(flat, weight.to(dtype).contiguous(), None if bias is None else bias.to(dtype))
    return out.unflatten(0, x.shape[:2]).to(weight.dtype)


def patches(
    samples: Tensor,
    center: Tensor,
    spread: Tensor,
    P: int,
    stride: int,
    pad_end: bool,
    dtype: torch.dtype,
) -> Tensor:
    """The normalised samples of every patch, (B, N, P) in `dtype`."""
    # First of all: 65535 is infinite in float16, and bfloat16 moves 40001 to 39936.
    x = (samples.to(dtype) - _per_row(center, dtype)) / _per_row(spread, dtype)
    if pad_end:
        x = torch.cat([x, x[:, -1:].expand(-1, stride)], dim=1)
    return x.unfold(1, P, stride)


def gradients(
    grad: Tensor,
    samples: Tensor,
    weight: Tensor,
    center: Tensor,
    spread: Tensor,
    stride: int,
    pad_end: bool,
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of samples, weight and bias, not rounded; None where `needs` has none.

    Written out, because autograd is switched off inside an op under many of PyTorch's modes.
    """
    dtype = working_dtype(samples, weight)
    P = weight.shape[1]
    grad = grad.to(dtype)
    found: list[Tensor | None] = [None] * 3
    if needs[0]:
        flat = grad.flatten(0, 1).contiguous()
        d_patches = (flat @ weight.to(dtype).contiguous()).unflatten(0, grad.shape[:2])
        d_samples = _overlap_add(d_patches, samples.shape[1], stride, pad_end)
        found[0] = d_samples / _per_row(spread, dtype)
    if needs[1]:
        x = patches(samples, center, spread, P, stride, pad_end, dtype)
        found[1] = grad.flatten(0, 1).mT @ x.flatten(0, 1)
    if needs[2]:
        found[2] = grad.sum((0, 1))
    return found


def _overlap_add(d_patches: Tensor, T: int, stride: int, pad_end: bool) -> Tensor:
    """Gradients of patches (B, N, P) summed where the patches overlap, (B, T)."""
    padded = T + stride if pad_end else T
    P = d_patches.shape[2]
    total = fold(d_patches.mT, (1, padded), (1, P), stride=(1, stride)).flatten(1)  # (B, padded)
    copies = total[:, T:].sum(1, keepdim=True)
    return torch.cat([total[:, : T - 1], total[:, T - 1 : T] + copies], dim=1)


def _per_row(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor () or (B,) against (B, T)."""
    return x.to(dtype).unsqueeze(-1)
