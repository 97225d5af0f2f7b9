"""scale_cross_entropy by the CPU's kernels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyseq.ops import backends
from pyseq.ops.scale_cross_entropy.reference import is_ignored

# What the kernels round the sizes of gradients up to.
ROWS, COLUMNS = 16, 32


def check_targets(op: str, targets: Tensor, V: int, ignore_index: int | None) -> None:
    """Each is a symbol or ignored: an IndexError, as of the reference on the CPU."""
    wrong = targets[((targets < 0) | (targets >= V)) & ~is_ignored(targets, ignore_index)]
    if wrong.numel() > 0:
        raise IndexError(f"{op}: target {int(wrong[0])} is out of range; 0 to {V - 1} fits")


def forward(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, scales: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Losses (n_scales, N) and the masses (2, 1 + n_scales, N) that they were made from.

    hidden (N, C), targets (N,) int64, scales below V; a target outside the alphabet has an infinite
    loss. A mass is a maximum, [0], and a sum of exp(logit - maximum), [1]: of all symbols, then of
    the bins of each scale.
    """
    N = len(hidden)
    losses = torch.empty(len(scales), N, dtype=torch.float32)
    masses = torch.empty(2, 1 + len(scales), N, dtype=torch.float32)
    if N > 0:
        backends.core().scale_cross_entropy(
            *_constants(hidden, weight, bias, targets),
            list(scales),
            losses,
            masses,
            torch.get_num_threads(),
        )
    return losses, masses


def backward(
    grad: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    masses: Tensor,
    scales: Sequence[int],
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of hidden, weight and bias in float32, None where not needed.

    From grad (n_scales, N) and the forward's masses. A row whose gradients are all 0 reaches
    nothing, whatever it holds.
    """
    inputs = zip(needs, (hidden, weight, bias), strict=True)
    wanted = [x if need else None for need, x in inputs]
    if len(hidden) == 0 or len(scales) == 0:
        return [None if x is None else torch.zeros_like(x) for x in wanted]
    found = [None if x is None else _padded(x) for x in wanted]
    backends.core().scale_cross_entropy_backward(
        grad.to(torch.float32).contiguous(),
        *_constants(hidden, weight, bias, targets),
        masses.contiguous(),
        list(scales),
        *found,
        torch.get_num_threads(),
    )
    pairs = zip(wanted, found, strict=True)
    return [None if x is None or y is None else y[_inside(x)] for x, y in pairs]


def _constants(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if x is None else x.detach() for x in tensors]


def _padded(x: Tensor) -> Tensor:
    """Memory for the gradient of x, whole blocks of it."""
    units = (ROWS, COLUMNS)[: x.dim()]
    sizes = [-(-size // unit) * unit for size, unit in zip(x.shape, units, strict=True)]
    return torch.empty(sizes, dtype=torch.float32)


def _inside(x: Tensor) -> tuple[slice, ...]:
    return tuple(slice(size) for size in x.shape)
