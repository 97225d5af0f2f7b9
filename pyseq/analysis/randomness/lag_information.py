"""Test of dependence of any shape at chosen lags: mutual information against shuffles.

The plug-in estimate of mutual information is biased upward, by about (K - 1)^2 / 2n nats for K
classes and n symbols, so that its null is made of shuffles of the same symbols.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from pyseq.analysis.randomness.symbol_pass import native_core
from pyseq.analysis.randomness.test_result import TestResult
from pyseq.analysis.randomness.views import SYMBOLS, quantile_bins

SAMPLE = 1 << 20  # symbols
FEWEST = 40
_MOST_CLASSES = 16
_FEWEST_IN_CELL = 10
_NEAR_LAGS = 64
_WORK = 1 << 28  # pairs counted for shuffles, about a third of a second on one core
_FEWEST_DRAWS, _MOST_DRAWS = 300, 20_000
_ROUNDING = 1e-12  # bits
_COUNTED = 20  # shuffles beyond the measured value that decide by themselves


@dataclass(frozen=True)
class LagInformation:
    """Mutual information of symbols with those before.

    Attributes:
        lags (array (L,), int64): in symbols.
        bits (array (L,), float64): plug-in estimates, in bits.
        null_mean, null_deviation (float): of shuffles of the same symbols, in bits.
        null_low, null_high (float): smallest and largest of the shuffles, in bits.
        draws (int): how many estimates of shuffled symbols that is.
        classes (int): K, bins of about equally many symbols.
        symbols (int): n.
        p_values (array (L,), float64): of each lag.
        null (str): how the p-values were had.
        tail (bool): whether a gamma law continues the shuffles' law beyond them.
    """

    lags: NDArray[np.int64]
    bits: NDArray[np.float64]
    null_mean: float
    null_deviation: float
    null_low: float
    null_high: float
    draws: int
    classes: int
    symbols: int
    p_values: NDArray[np.float64]
    null: str
    tail: bool

    def beyond(self, p_value: float) -> float:
        """The estimate, in bits, that the test takes for as rare as this, where there is a tail."""
        mean, deviation = careful_moments(self.null_mean, self.null_deviation, self.draws)
        return float(stats.gamma.isf(p_value, (mean / deviation) ** 2, scale=deviation**2 / mean))


def careful_moments(mean: float, deviation: float, draws: int) -> tuple[float, float]:
    """Mean and deviation of so many draws, each moved to the far end of its 99 % interval."""
    return mean + 2.58 * deviation / draws**0.5, deviation * (1 + 2.58 / (2 * draws) ** 0.5)


def lag_information(symbols: NDArray[np.uint16], seed: int) -> LagInformation | None:
    """Mutual information at lags 1 to 64 and at powers of two, on a circle.

    Args:
        symbols (array (n,), uint16): a stretch of the stream.
        seed (int): of the shuffles.

    Returns:
        LagInformation, or None where there are too few symbols or only one class.
    """
    count = symbols.size
    if count < FEWEST:
        return None
    most = int(min(_MOST_CLASSES, max(2, (count / _FEWEST_IN_CELL) ** 0.5)))
    view = quantile_bins(np.bincount(symbols, minlength=SYMBOLS), most)
    classes = view.table[symbols].astype(np.uint8)
    if view.classes < 2:
        return None
    powers = 2 ** np.arange(7, 40)
    near = np.arange(1, min(_NEAR_LAGS, count // 4) + 1)
    # At half a circle each pair would count twice.
    lags = np.concatenate([near, powers[2 * powers < count]]).astype(np.int64)
    draws = int(np.clip(_WORK // count, _FEWEST_DRAWS, _MOST_DRAWS))
    rows = -(-draws // lags.size)
    nats = np.empty((1 + rows, lags.size))
    native_core().lag_information(classes, view.classes, lags, seed, nats, torch.get_num_threads())
    bits = np.maximum(nats, 0.0) / np.log(2)
    ours, shuffled = bits[0], bits[1:].ravel()
    # Of rare classes a single coincidence is far beyond all shuffles, and no gamma law says so.
    rarest = float(np.bincount(classes).min())
    tail = rarest**2 / count >= _FEWEST_IN_CELL
    p_values, null = _p_values(ours, shuffled, tail=tail)
    return LagInformation(
        lags, ours, float(shuffled.mean()), float(shuffled.std()), float(shuffled.min()),
        float(shuffled.max()),
        shuffled.size, view.classes, count, p_values, null, tail,
    )  # fmt: skip


def _p_values(
    ours: NDArray[np.float64], shuffled: NDArray[np.float64], *, tail: bool
) -> tuple[NDArray[np.float64], str]:
    """Shares of shuffles beyond, and, if asked for, the tail of a gamma law where these are few.

    On a circle all lags have the same law under the null.
    """
    count = shuffled.size
    beyond = count - np.searchsorted(np.sort(shuffled), ours - _ROUNDING, side="left")
    by_count = (beyond + 1) / (count + 1)
    if not tail:
        return by_count, f"{count:,} shuffles"
    mean, deviation = careful_moments(float(shuffled.mean()), float(shuffled.std()), count)
    gamma = stats.gamma.sf(ours, (mean / deviation) ** 2, scale=deviation**2 / mean)
    p = np.where(beyond >= _COUNTED, by_count, np.minimum(gamma, by_count))
    return p, f"{count:,} shuffles, tail of a gamma law"


def lag_information_test(found: LagInformation) -> TestResult:
    """The largest of all lags.

    Args:
        found (LagInformation): of a sample.

    Returns:
        TestResult: of the question "dependence".
    """
    worst = int(found.p_values.argmin())
    lag = int(found.lags[worst])
    return TestResult(
        "mutual information at lags", "dependence",
        min(1.0, float(found.p_values[worst]) * found.lags.size),
        f"lag {lag:,}: {found.bits[worst]:.2e} bits, {found.null_mean:.2e} by chance",
        f"{found.null}, Bonferroni over {found.lags.size} lags", found.symbols,
        f"symbols depend on those {lag:,} before",
    )  # fmt: skip
