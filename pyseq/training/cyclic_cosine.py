"""Cosine cycles with falling peaks, as a torch scheduler."""

import math

import torch


class CyclicCosine(torch.optim.lr_scheduler.LRScheduler):
    """Rises linearly from min to max, then falls along cosines, each from 0.8 of the last peak.

    Max is the base rate of each parameter group, min is `min_factor` of it. The peak of cycle k is
    max(min, max * decay^k): without that bound it would pass below min after some cycles (21 at a
    `min_factor` of 0.01), and the rate would rise along the cosine instead of falling.

    The rate depends on nothing but the number of calls of `step`, which `last_epoch` counts as in
    all of torch's schedulers, and the base rates: a restored scheduler goes on exactly. Whether a
    call is an optimiser step or an epoch is settled by `steps_per_epoch`.

    Args:
        optimizer (Optimizer): whose groups' rates are set; their initial rates are the maxima.
        cycle_epochs (int): epochs of a cycle.
        warmup_epochs (int): epochs of the rise; 0 starts at the first peak.
        steps_per_epoch (int): calls of `step` in an epoch; 1 where it is called once per epoch.
        min_factor (float): min as a share of max, 0 to 1. At 0 the very first step learns nothing.
        decay (float): a cycle's peak as a share of the one before, above 0 to 1.
        last_epoch (int): calls made so far, less one; -1 begins.

    Raises:
        ValueError: a number makes no sense.

    Source: Loshchilov and Hutter 2017, SGDR, eq. 5 (arXiv 1608.03983); warm-up and decay as in
        timm's CosineLRScheduler with warmup_prefix and cycle_decay.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, cycle_epochs: int,
                 warmup_epochs: int = 0, steps_per_epoch: int = 1, min_factor: float = 0.01,
                 decay: float = 0.8, last_epoch: int = -1):  # fmt: skip
        if cycle_epochs < 1 or warmup_epochs < 0 or steps_per_epoch < 1:
            raise ValueError(
                f"CyclicCosine: cycle_epochs {cycle_epochs}, warmup_epochs {warmup_epochs},"
                f" steps_per_epoch {steps_per_epoch}; at least 1, 0 and 1 fit"
            )
        if not (0 <= min_factor <= 1 and 0 < decay <= 1):
            raise ValueError(
                f"CyclicCosine: min_factor {min_factor}, decay {decay}; 0 to 1, and above 0 to 1,"
                " fit"
            )
        self.cycle_epochs, self.warmup_epochs = cycle_epochs, warmup_epochs
        self.steps_per_epoch = steps_per_epoch
        self.min_factor, self.decay = min_factor, decay
        super().__init__(optimizer, last_epoch)

    def factor(self, step: int) -> float:
        """Rate after so many calls of `step`, as a share of the base rate."""
        low, warmup = self.min_factor, self.warmup_epochs * self.steps_per_epoch
        if step < warmup:
            return low + (1 - low) * step / warmup
        length = self.cycle_epochs * self.steps_per_epoch
        cycle, inside = divmod(step - warmup, length)
        peak = max(low, self.decay**cycle)
        return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * inside / length))

    def get_lr(self) -> list[float | torch.Tensor]:
        """Rates of all groups, by the closed form."""
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]


def cycle_ends(epochs: int, *, cycle_epochs: int, warmup_epochs: int) -> list[int]:
    """After how many epochs a training's cycles end, those that it completes.

    Args:
        epochs (int): of the training.
        cycle_epochs (int): epochs of a cycle.
        warmup_epochs (int): epochs of the rise before them.

    Returns:
        list of int: rising.
    """
    return list(range(warmup_epochs + cycle_epochs, epochs + 1, cycle_epochs))
