"""exponential_smoothing in plain PyTorch, differentiable, on any device: the specification."""

import torch
from torch import Tensor

from pyseq.ops.precision import accumulation_dtype


def smooth(values: Tensor, alpha: Tensor, initial: Tensor) -> Tensor:
    """a_t of values (B, T, H, D), alpha (H,) and initial (H, D)."""
    return states(values, alpha, initial)[:, 1:].to(values.dtype)


def states(values: Tensor, alpha: Tensor, initial: Tensor) -> Tensor:
    """The state before the first step and after every step, (B, T + 1, H, D), not rounded."""
    dtype = accumulation_dtype(values)
    weight = alpha.to(dtype)[:, None]
    state = initial.to(dtype).expand(values.shape[0], -1, -1)
    found = [state]
    for value in values.to(dtype).unbind(1):
        # Not alpha v + (1 - alpha) a: rounding 1 - alpha would change a small alpha.
        state = torch.lerp(state, value, weight)
        found.append(state)
    return torch.stack(found, 1)


def gradients(
    grad: Tensor, values: Tensor, alpha: Tensor, initial: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of values, alpha and initial, not rounded, by the recursion run backwards."""
    dtype = accumulation_dtype(values)
    weight = alpha.to(dtype)[:, None]
    errors = values.to(dtype) - states(values, alpha, initial)[:, :-1]  # v_t - a_(t-1)
    d_values = torch.empty_like(errors)
    d_state = errors.new_zeros(values.shape[0], *initial.shape)  # what reaches a_t through a_(t+1)
    d_alpha = torch.zeros_like(d_state)
    for t in reversed(range(values.shape[1])):
        d_smoothed = grad[:, t].to(dtype) + d_state
        d_values[:, t] = weight * d_smoothed
        d_alpha += d_smoothed * errors[:, t]
        # Not a difference, which loses the digits of a state that hardly matters (alpha near 1).
        d_state = torch.lerp(d_smoothed, torch.zeros_like(d_smoothed), weight)
    return d_values, d_alpha.sum((0, 2)), d_state.sum(0)
