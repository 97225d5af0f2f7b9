"""The registered op's code: the specification and its gradient in parts, and the fused kernels'.

The reference's gradient is written out, because autograd is switched off inside an op under many of
PyTorch's modes; like every fused backward it makes the logits again.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from pyseq.ops.precision import accumulation_dtype
from pyseq.ops.scale_cross_entropy import reference

MAX_LOGITS = 1 << 24  # logits per part: 64 MiB in float32


def forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    scales: Sequence[int],
    ignore_index: int | None,
) -> Tensor:
    """`reference.losses`."""
    dtype = accumulation_dtype(hidden)
    out = hidden.new_empty((len(scales), len(hidden)), dtype=dtype)
    weight = weight.to(dtype)  # once for all parts
    for rows in _parts(hidden, weight):
        out[:, rows] = reference.losses(
            hidden[rows], weight, bias, targets[rows], scales, ignore_index
        )
    return out


def backward(
    grad: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    scales: Sequence[int],
    ignore_index: int | None,
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of hidden, weight and bias, None where not needed, from grad (n_scales, N).

    A row whose gradients are all 0, as every ignored one's, reaches nothing with its NaNs.
    """
    dtype = accumulation_dtype(hidden)
    inputs = (hidden, weight, bias)
    wanted = {i: x for i, x in enumerate(inputs) if needs[i] and x is not None}
    # The parameters' gradients are sums over the parts, and must not be rounded on the way.
    found = {i: torch.zeros_like(x, dtype=x.dtype if i == 0 else dtype) for i, x in wanted.items()}
    ignored = reference.is_ignored(targets, ignore_index)
    targets = targets.masked_fill(ignored, 0)
    grad = grad.masked_fill(ignored, 0)
    silent = (grad == 0).all(0)
    exact_weight = weight.to(dtype)
    for rows in _parts(hidden, weight):
        h = hidden[rows].to(dtype).masked_fill(silent[rows, None], 0)
        logits = reference.logits(h, exact_weight, bias)
        d_logits = reference.logits_gradient(logits, targets[rows], grad[:, rows], scales)
        if 0 in found:
            found[0][rows] = d_logits @ exact_weight
        if 1 in found:
            found[1].addmm_(d_logits.mT, h)
        if 2 in found:
            found[2] += d_logits.sum(0)
    return [found.get(i) for i in range(3)]


def fused_forward(
    kernel: Callable[..., tuple[Tensor, Tensor]],
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    scales: Sequence[int],
    ignore_index: int | None,
) -> tuple[Tensor, Tensor]:
    """`reference.losses` by a kernel, and the masses (2, 1 + n_scales, N) for its backward."""
    fine = _below(scales, len(weight))
    found, found_masses = kernel(
        hidden, weight, bias, targets.contiguous(), [scales[i] for i in fine]
    )
    ignored = reference.is_ignored(targets, ignore_index)
    found.masked_fill_(ignored, 0)
    if len(fine) == len(scales):
        return found, found_masses
    losses = found.new_zeros(len(scales), len(hidden))
    masses = found.new_zeros(2, 1 + len(scales), len(hidden))
    masses[:, : len(found_masses[0])] = found_masses
    for i, row in zip(fine, found, strict=True):
        losses[i] = row
    return losses, masses


def fused_backward(
    kernel: Callable[..., list[Tensor | None]],
    grad: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    masses: Tensor,
    *,
    scales: Sequence[int],
    ignore_index: int | None,
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """`backward` by a kernel, with the masses of `fused_forward`."""
    fine = _below(scales, len(weight))
    ignored = reference.is_ignored(targets, ignore_index)
    # Not indexed by a list, which would have to be sent to the device.
    kept = [grad[i].masked_fill(ignored, 0) for i in fine]
    return kernel(
        torch.stack(kept) if kept else grad[:0],
        hidden,
        weight,
        bias,
        targets.contiguous(),
        masses[:, : 1 + len(fine)],
        [scales[i] for i in fine],
        needs,
    )


def _below(scales: Sequence[int], V: int) -> list[int]:
    """Which scales have more than one bin; at the others the loss is 0."""
    return [i for i, scale in enumerate(scales) if scale < V]


def _parts(hidden: Tensor, weight: Tensor) -> Iterator[slice]:
    """Rows whose logits are alive at the same time."""
    step = max(1, MAX_LOGITS // len(weight))
    for start in range(0, len(hidden), step):
        yield slice(start, start + step)
