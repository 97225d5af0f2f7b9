"""What a stack of seeds needs beyond one model: norms of each seed, and leaving the stack."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def gradient_norms(parameters: Iterable[Tensor]) -> Tensor:
    """Euclidean norm of each seed's gradient.

    Args:
        parameters (iterable of Tensor (S, ...)): those without a gradient are left out.

    Returns:
        Tensor (S,), float32: before anything is clipped.
    """
    squares = [
        torch.linalg.vector_norm(p.grad.flatten(1), dim=1) ** 2
        for p in parameters
        if p.grad is not None
    ]
    return torch.stack(squares).sum(0).sqrt()


def clip_gradients(parameters: Sequence[Tensor], norms: Tensor, largest: float) -> None:
    """Scale each seed's gradient down to a norm, on its own; smaller ones stay.

    Args:
        parameters (sequence of Tensor (S, ...)): whose gradients are changed in place.
        norms (Tensor (S,)): `gradient_norms` of them.
        largest (float): the norm that is allowed.
    """
    scale = (largest / (norms + 1e-6)).clamp_max(1.0)  # (S,)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(scale.view(-1, *[1] * (parameter.dim() - 1)))


def keep_optimizer_state(
    optimizer: torch.optim.Optimizer, which: Sequence[int], before: int
) -> None:
    """Shrink an optimiser to the seeds that the model has kept; their moments stay.

    Args:
        optimizer (Optimizer): of the stack's parameters, which are shrunk already.
        which (sequence of int): places in the stack of the seeds that stay.
        before (int): seeds that the stack had.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None
            state = optimizer.state.get(parameter, {})
            for name, value in state.items():
                # Adam's count of steps has no dimension.
                if torch.is_tensor(value) and value.dim() and value.shape[0] == before:
                    state[name] = value[list(which)].clone()
