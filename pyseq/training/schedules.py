"""Learning-rate schedules, as factors of the base rate over the progress of a training."""

import math
import time
from collections.abc import Callable

SCHEDULES = ("cosine", "onecycle", "constant")
FLOOR = 0.1  # where cosine and one-cycle end, as a factor of the base rate
PEAK = 10.0  # of one-cycle


def rate_factor(schedule: str, progress: float, warmup: float) -> float:
    """Factor of the base rate at `progress` in [0, 1], of which `warmup` is spent rising.

    "cosine" rises linearly from 0 to 1, then follows a half cosine down to 0.1; "onecycle" rises
    from 1 to 10 and falls to 0.1, both along half cosines (Smith and Topin 2018, arXiv 1708.07120);
    "constant" rises to 1 and stays.
    """
    rising = progress / warmup if progress < warmup else 1.0
    falling = max(0.0, progress - warmup) / (1 - warmup) if warmup < 1 else 0.0
    if schedule == "onecycle":
        if rising < 1:
            return _half_cosine(1.0, PEAK, rising)
        return _half_cosine(PEAK, FLOOR, falling)
    if rising < 1 or schedule == "constant":
        return rising
    return _half_cosine(1.0, FLOOR, falling)


def peak_factor(schedule: str) -> float:
    """The highest factor of the base rate that a schedule comes to."""
    return PEAK if schedule == "onecycle" else 1.0


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


class Progress:
    """How far a training is: the share of its steps or of its time, whichever is larger.

    Args:
        steps (int): optimiser steps at the most.
        seconds (float | None): time at the most; the clock starts at the first call.
    """

    def __init__(self, steps: int, seconds: float | None, clock: Callable = time.monotonic):
        self.steps, self.seconds, self._clock = steps, seconds, clock
        self._started: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the first call; 0 before it."""
        return 0.0 if self._started is None else self._clock() - self._started

    def resume(self, elapsed: float) -> None:
        """Go on from a clock that had run for `elapsed` seconds."""
        self._started = self._clock() - elapsed

    def __call__(self, step: int) -> float:
        """Progress in [0, 1] when `step` steps have been made; step 1 of n counts as 1/n begun."""
        share = (step + 1) / self.steps
        if self.seconds is not None:
            self._started = self._clock() if self._started is None else self._started
            share = max(share, self.elapsed / self.seconds)
        return min(share, 1.0)
