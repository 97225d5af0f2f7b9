"""Curves for the page, each with the band in which its null keeps it 99 times in 100."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from pyseq.analysis.randomness.lag_information import LagInformation
from pyseq.analysis.randomness.lags import correlations, equality_moments
from pyseq.analysis.randomness.marginal import DeclaredLaw
from pyseq.analysis.randomness.spectrum import ViewSpectrum
from pyseq.analysis.randomness.symbol_pass import PassCounts
from pyseq.analysis.stream_analysis import Band

LEVEL = 0.01  # chance under the null that a whole curve leaves its band
_POINTS = 512  # of a curve; more cannot be seen
_FEWEST_IN_BIN = 25.0


def cumulated_band(found: ViewSpectrum) -> Band:
    """Bartlett's cumulative periodogram, less what white noise has."""
    steps = found.spectrum.cumulated
    place = np.arange(1, steps.size + 1)
    strays = steps - place / (steps.size + 1)
    chosen = _thinned(strays)
    width = float(stats.kstwo.isf(LEVEL, steps.size))
    return Band(found.view.name, place[chosen] / found.spectrum.length, strays[chosen],
                -width, width, LEVEL)  # fmt: skip


def line_band(found: ViewSpectrum) -> Band:
    """The largest power in each of some hundred intervals of frequencies, over the mean power."""
    power = found.spectrum.power * found.spectrum.power.size
    starts = np.unique(np.linspace(0, power.size, min(_POINTS, power.size), False).astype(int))
    largest = np.maximum.reduceat(power, starts)
    ends = np.append(starts[1:], power.size)
    middle = (starts + ends + 1) / 2 / found.spectrum.length
    # The share g at which Fisher's bound M (1 - g)^(M - 1) is the level.
    g = -np.expm1(np.log(LEVEL / power.size) / max(1, power.size - 1))
    return Band(found.view.name, middle, largest, 0.0, float(g * power.size), LEVEL)


def correlation_band(counts: PassCounts) -> Band | None:
    """Autocorrelation at lags 1 to 64; None for a constant or a very short stream."""
    correlation = correlations(counts)
    if counts.symbols < 8 or not np.any(correlation):
        return None
    lags = np.arange(1, correlation.size + 1)
    z = float(stats.norm.isf(LEVEL / lags.size / 2))
    mean = -(counts.symbols - lags) / (counts.symbols * (counts.symbols - 1))
    width = z * np.sqrt(counts.symbols - lags) / counts.symbols
    return Band("symbols", lags.astype(float), correlation, mean - width, mean + width, LEVEL)


def information_band(found: LagInformation) -> Band:
    """Mutual information at lags, beside what shuffles of the same symbols show.

    Where no law continues that of the shuffles, the band holds all that were made.
    """
    tail = LEVEL / found.lags.size / 2
    low, high = found.null_low, found.null_high
    if found.tail:
        low, high = found.beyond(1 - tail), found.beyond(tail)
    return Band(f"{found.classes} bins", found.lags.astype(float), found.bits, low, high, LEVEL)


def histogram_band(histogram: NDArray[np.int64], law: DeclaredLaw) -> Band | None:
    """Counts over expectations by bins of the alphabet; None where nothing is expected."""
    weights, total = law.weights, float(histogram.sum())
    bins = int(max(1, min(256, law.alphabet, total / _FEWEST_IN_BIN)))
    starts = np.unique(np.arange(bins) * law.alphabet // bins)
    expected = np.add.reduceat(weights[: law.alphabet], starts) / weights.sum() * total
    observed = np.add.reduceat(histogram[: law.alphabet], starts)
    kept = expected > 0
    if not kept.any():
        return None
    expected, observed, starts = expected[kept], observed[kept], starts[kept]
    # Quantiles of Poisson counts, rounded outward.
    tail = LEVEL / expected.size / 2
    low = _poisson_quantile(tail, expected) / expected
    high = (_poisson_quantile(1 - tail, expected) + 1) / expected
    return Band("symbols", starts.astype(float), observed / expected, low, high, LEVEL)


def accuracy_band(accuracy: NDArray[np.float64], histogram: NDArray[np.int64]) -> Band:
    """Share of symbols equal to the one so many before, with the band of independent draws.

    Args:
        accuracy (array (L,), float64): at lags 1..L.
        histogram (array (65536,), int64): of the symbols that were looked at.
    """
    lags = np.arange(1, accuracy.size + 1)
    mean, variance = equality_moments(histogram, lags)
    pairs = histogram.sum() - lags
    width = float(stats.norm.isf(LEVEL / max(1, lags.size) / 2)) * np.sqrt(variance)
    low, high = np.maximum(mean - width, 0) / pairs, (mean + width) / pairs
    return Band("symbols", lags.astype(float), accuracy, low, high, LEVEL)


def _poisson_quantile(p: float, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(special.pdtrik(p, mean))


def _thinned(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places of the largest and the smallest value of each of many stretches, in order."""
    if values.size <= 2 * _POINTS:
        return np.arange(values.size)
    parts: Sequence[NDArray] = np.array_split(np.arange(values.size), _POINTS)
    extremes = [part[[values[part].argmin(), values[part].argmax()]] for part in parts]
    return np.unique(np.concatenate(extremes))
