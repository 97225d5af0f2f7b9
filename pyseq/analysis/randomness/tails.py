"""Tail probabilities that the tests share, each on the safe side where it is approximate."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

FEWEST_EXPECTED = 10.0  # in a cell of a chi-square test
_FEWEST_FOR_LOWER_TAIL = 100  # degrees of freedom


def count_tail(excess: ArrayLike, variance: ArrayLike, *, step: int = 1) -> NDArray[np.float64]:
    """Two-sided p-values of counts that lie `excess` from their mean.

    Counts of rare coincidences have the tails of a Poisson law, counts of frequent ones those of a
    normal law; the Poisson law of the same variance has the heavier upper tail of the two, and is
    taken on both sides.

    Args:
        excess (array): count minus its mean under the null.
        variance (array): of the count under the null.
        step (int): by how much one coincidence changes the count.

    Returns:
        array, float64: p-values of at most 1; 1 where the variance is 0 and so is the excess, 0
        where the variance is 0 and the excess is not.
    """
    distance = np.abs(np.asarray(excess, np.float64)) / step
    spread = np.asarray(variance, np.float64) / step**2
    # P(Poisson(v) >= v + d), with v + d no whole number, by the incomplete gamma function.
    upper = special.gammainc(np.maximum(spread + distance, 1e-300), np.maximum(spread, 0.0))
    certain = np.where(distance > 1e-6, 0.0, 1.0)
    return np.minimum(1.0, np.where(spread > 0, 2 * upper, certain))


def normal_tail(z: ArrayLike) -> NDArray[np.float64]:
    """Two-sided p-values of standard normal scores."""
    return np.asarray(2 * stats.norm.sf(np.abs(np.asarray(z, np.float64))))


def any_of(p_values: ArrayLike) -> float:
    """The p-value of the smallest of several: Bonferroni's bound."""
    p = np.asarray(p_values, np.float64)
    return min(1.0, float(p.min()) * p.size) if p.size else 1.0


def chi_square_tail(statistic: float, degrees: float) -> float:
    """Two-sided p-value: counts that fit too well are no chance either.

    Of few counts a perfect fit is no rare event, so these have an upper tail only.
    """
    upper = float(stats.chi2.sf(statistic, degrees))
    if degrees < _FEWEST_FOR_LOWER_TAIL:
        return upper
    return min(1.0, 2 * min(upper, float(stats.chi2.cdf(statistic, degrees))))


def pooled(
    counts: NDArray[np.int64], expected: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Neighbouring cells put together until each is expected often enough for a chi-square test.

    Args:
        counts (array (K,)): observed.
        expected (array (K,)): under the null; what it decides depends on this only.

    Returns:
        tuple of arrays (M,), M <= K: with at least FEWEST_EXPECTED each, unless the total has less.
    """
    if np.all(expected >= FEWEST_EXPECTED):
        return counts, expected
    starts = group_starts(expected, FEWEST_EXPECTED)
    return np.add.reduceat(counts, starts), np.add.reduceat(expected, starts)


def group_starts(weights: NDArray[np.float64], least: float) -> NDArray[np.int64]:
    """Where groups of neighbours begin that each weigh at least `least`; one group at the least."""
    starts, weight = [0], 0.0
    for place, more in enumerate(weights.tolist()):
        if weight >= least:
            starts.append(place)
            weight = 0.0
        weight += more
    if weight < least and len(starts) > 1:
        starts.pop()
    return np.asarray(starts, np.int64)


def contingency(table: NDArray[np.int64]) -> tuple[float, int]:
    """Chi-square of independence of rows and columns, rare ones put together with neighbours.

    Args:
        table (array (R, C), int64): counts.

    Returns:
        tuple (statistic, degrees of freedom); degrees are 0 where too few counts are left.
    """
    total = float(table.sum())
    if total == 0:
        return 0.0, 0
    least = np.sqrt(FEWEST_EXPECTED * total)  # so that row * column / total is enough
    rows = group_starts(table.sum(axis=1).astype(np.float64), least)
    columns = group_starts(table.sum(axis=0).astype(np.float64), least)
    grouped = np.add.reduceat(np.add.reduceat(table, rows, axis=0), columns, axis=1)
    expected = np.outer(grouped.sum(axis=1), grouped.sum(axis=0)) / total
    degrees = (len(rows) - 1) * (len(columns) - 1)
    if degrees == 0:
        return 0.0, 0
    return float(((grouped - expected) ** 2 / expected).sum()), degrees


def p_text(p: float) -> str:
    """A p-value as people read it."""
    if p < 1e-300:
        return "< 1e-300"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"
