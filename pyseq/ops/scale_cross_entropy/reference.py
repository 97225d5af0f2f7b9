"""scale_cross_entropy in plain PyTorch, differentiable, on any device: the specification."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyseq.ops.precision import accumulation_dtype


def losses(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    scales: Sequence[int],
    ignore_index: int | None,
) -> Tensor:
    """Every row's loss at every scale, (n_scales, N) in nats; targets (N,) int64."""
    ignored = is_ignored(targets, ignore_index)
    targets = targets.masked_fill(ignored, 0)
    # Not only the loss: a gradient of 0 does not keep a NaN out of the weight's matrix product.
    hidden = hidden.masked_fill(ignored[:, None], 0)
    log_p = torch.log_softmax(logits(hidden, weight, bias), -1)  # (N, V)
    by_scale = [-log_mass(log_p, targets, scale) for scale in scales]
    return torch.stack(by_scale).masked_fill(ignored, 0)


def is_ignored(targets: Tensor, ignore_index: int | None) -> Tensor:
    """Which targets do not count, (N,) bool."""
    if ignore_index is None:
        return torch.zeros_like(targets, dtype=torch.bool)
    return targets == ignore_index


def logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The rows' logits (N, V), in the accumulation dtype."""
    dtype = accumulation_dtype(hidden)
    bias = None if bias is None else bias.to(dtype)
    return torch.nn.functional.linear(hidden.to(dtype), weight.to(dtype), bias)


def log_mass(log_p: Tensor, targets: Tensor, scale: int) -> Tensor:
    """The log-probability of each target's bin, (N,); log_p (N, V) is normalised."""
    V = log_p.shape[1]
    first = first_of_bin(targets, V, scale)
    if scale >= V:  # one bin holds everything: certain, whatever sums round to
        return log_p.new_zeros(len(log_p))
    symbols, inside = own_bin(first, V, scale)
    return log_p.gather(1, symbols).masked_fill(~inside, -math.inf).logsumexp(1)


def first_of_bin(targets: Tensor, V: int, scale: int) -> Tensor:
    """The first symbol of each target's bin, (N,)."""
    # Looked up, not computed from the target, so that one outside the alphabet finds no bin.
    return (torch.arange(V, device=targets.device) // scale * scale).index_select(0, targets)


def own_bin(first: Tensor, V: int, scale: int) -> tuple[Tensor, Tensor]:
    """Symbols, all different, that hold the bins that begin at `first`, and which are in them.

    Both (N, scale), for a scale below V. A narrower last bin is filled up with symbols before it.
    """
    symbols = first.clamp(max=V - scale)[:, None] + torch.arange(scale, device=first.device)
    return symbols, symbols >= first[:, None]


def logits_gradient(logits: Tensor, targets: Tensor, grad: Tensor, scales: Sequence[int]) -> Tensor:
    """sum_s g_s (softmax(logits) - softmax(logits within the target's bin)), in logits' memory.

    logits (N, V), targets (N,) int64, grad (n_scales, N).
    """
    V = logits.shape[1]
    total = torch.zeros_like(grad[0])
    bins = []
    for g, scale in zip(grad, scales, strict=True):
        if scale >= V:  # the loss is 0, whatever the logits
            continue
        symbols, inside = own_bin(first_of_bin(targets, V, scale), V, scale)
        own = logits.gather(1, symbols).masked_fill_(~inside, -math.inf)
        bins.append((symbols, torch.softmax(own, -1) * g[:, None]))
        total += g
    d_logits = torch.softmax(logits, -1, out=logits).mul_(total[:, None])
    for symbols, share in bins:
        d_logits.scatter_add_(1, symbols, share.neg_())
    return d_logits
