"""Confidence intervals for means of dependent observations, and for proportions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

# The bootstrap's own error in the width is about 1 / sqrt(2 * blocks): 1 % at 4096, where more
# blocks would only cost time. Below 8 blocks the blocks are shortened instead.
_MOST_BLOCKS = 4096
_FEWEST_BLOCKS = 8
_GATHERED_AT_ONCE = 1 << 20  # block sums, 8 MiB
_MOST_DECIMALS = 5


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its confidence interval, in the unit of the estimate.

    Attributes:
        value (float): the estimate.
        low (float): lower end; -inf where the data cannot bound it.
        high (float): upper end; +inf where the data cannot bound it.
    """

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the distance between the ends."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        form = _form(self.half_width, self.value)
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"


def block_bootstrap(
    per_symbol: ArrayLike,
    *,
    block: int,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval for the mean of dependent observations, by the circular block bootstrap.

    The observations are laid on a circle; a resample strings together blocks of `block` neighbours
    that start anywhere on it, as many as N needs, the last one cut to fit. The distances of the
    resampled means from the mean are stretched by sqrt(m / (m - 1)) * t / z for m = N / block
    blocks (Student's quantile over the normal one), which matters for fewer than about 30.

    For a paired comparison pass the difference of the two arrays.

    Limits: dependence that reaches further than `block` makes the interval too short, so take a
    block several times the reach (a window's length for a sequence model). Where N holds fewer
    than 8 blocks, blocks of N / 8 are used instead, which is the best that can be done but trusts
    that dependence is shorter than that; where N holds more than 4096, blocks of N / 4096, which
    loses nothing that shows. One observation gives an infinite interval. Observations that are all
    equal give an interval of width zero; for a proportion of 0 or 1 use `binomial_interval`.

    Args:
        per_symbol (array (N,), float): the observations, in order; N >= 1.
        block (int): length of a block, in observations; >= 1.
        resamples (int): how many means are drawn; >= 100.
        seed (int): of the draws; the same seed gives the same interval.
        level (float): coverage asked for, in (0, 1); no unit.

    Returns:
        Interval: mean and interval, in the unit of the observations.

    Raises:
        ValueError: per_symbol is empty, not one-dimensional or not finite, or an option is out of
            its range.

    Source: Politis and Romano 1992, A circular block-resampling procedure for stationary data;
        Künsch 1989, The jackknife and the bootstrap for general stationary observations.
    """
    values = np.asarray(per_symbol, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(
            f"block_bootstrap: per_symbol has shape {values.shape}; it must be (N,) with N >= 1"
        )
    if block < 1 or resamples < 100 or not 0 < level < 1:
        raise ValueError(
            f"block_bootstrap: block {block}, resamples {resamples}, level {level}; "
            "block must be >= 1, resamples >= 100, level between 0 and 1"
        )
    mean = float(values.mean())
    if not math.isfinite(mean):
        raise ValueError("block_bootstrap: per_symbol holds NaN or infinity; it must be finite")
    count = values.size
    if count == 1:
        return Interval(mean, -math.inf, math.inf)
    length = max(min(block, count // _FEWEST_BLOCKS), math.ceil(count / _MOST_BLOCKS), 1)
    distances = _resampled_means(values - mean, length, resamples, np.random.default_rng(seed))
    tail = (1 - level) / 2
    low, high = np.quantile(distances, [tail, 1 - tail])
    blocks = count / length
    stretch = math.sqrt(blocks / (blocks - 1))
    stretch *= float(stats.t.ppf(1 - tail, blocks - 1) / stats.norm.ppf(1 - tail))
    return Interval(mean, mean + stretch * float(low), mean + stretch * float(high))


def binomial_interval(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Exact (Clopper-Pearson) interval for a proportion of independent trials.

    Args:
        successes (int): how many trials succeeded; 0 <= successes <= trials.
        trials (int): how many there were; >= 1.
        level (float): least coverage, in (0, 1); no unit.

    Returns:
        Interval: successes / trials and its interval, a fraction.

    Raises:
        ValueError: the counts do not fit each other.

    Source: Clopper and Pearson 1934, by scipy.stats.binomtest.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            f"binomial_interval: {successes} successes in {trials} trials; "
            "0 <= successes <= trials and trials >= 1 must hold"
        )
    interval = stats.binomtest(successes, trials).proportion_ci(level, method="exact")
    return Interval(successes / trials, float(interval.low), float(interval.high))


def _resampled_means(
    centred: np.ndarray, length: int, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Means of circular block resamples, (resamples,)."""
    count = centred.size
    whole, rest = divmod(count, length)
    running = np.empty(count + length + 1)
    running[0] = 0.0
    np.cumsum(centred, out=running[1 : count + 1])
    running[count + 1 :] = running[count] + running[1 : length + 1]
    means = np.empty(resamples)
    rows = max(1, _GATHERED_AT_ONCE // (whole + 1))
    for first in range(0, resamples, rows):
        starts = rng.integers(count, size=(min(rows, resamples - first), whole + 1))
        full, last = starts[:, :whole], starts[:, whole]
        total = (running[full + length] - running[full]).sum(axis=1)
        means[first : first + rows] = total + running[last + rest] - running[last]
    return means / count


def _form(half_width: float, value: float) -> str:
    """A format that shows two significant digits of the half width, or four of the value.

    At most five decimals, unless all of it would then read as zero; zero has no sign.
    """
    if 0 < max(half_width, abs(value)) < 1e-4:
        return ".1e"
    size = half_width / 10 if math.isfinite(half_width) and half_width > 0 else abs(value) / 1000
    decimals = int(np.clip(math.ceil(-math.log10(size)), 0, _MOST_DECIMALS)) if size > 0 else 4
    return f"z.{decimals}f"
