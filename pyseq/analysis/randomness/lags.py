"""Tests of dependence on every symbol: pairs of neighbours, correlation and equality at lags.

Their null is exchangeability: given the histogram, every order is alike, which independent draws of
any marginal are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pyseq.analysis.randomness.symbol_pass import LAGS, PassCounts
from pyseq.analysis.randomness.tails import (
    any_of,
    chi_square_tail,
    contingency,
    count_tail,
    normal_tail,
)
from pyseq.analysis.randomness.test_result import TestResult

_PAIRS = (
    ("high", "high"),
    ("low", "low"),
    ("high", "low"),
    ("low", "high"),
)  # byte of a symbol, byte of the next one, as PassCounts.pairs
_FEWEST_FOR_SUM = 100  # variance of each count whose squares are summed


@dataclass(frozen=True)
class Moments:
    """Central moments of a marginal: kurtosis and squared skewness decide what can be trusted."""

    variance: float
    squared_skewness: float
    kurtosis: float

    @staticmethod
    def of(values: NDArray[np.float64], counts: NDArray[np.int64]) -> Moments:
        """Of values (K,) that come counts (K,) times."""
        share = counts / max(1, counts.sum())
        centred = values - values @ share
        variance = float(centred**2 @ share)
        if variance <= 0:
            return Moments(0.0, 0.0, 0.0)
        third, fourth = float(centred**3 @ share), float(centred**4 @ share)
        return Moments(variance, third**2 / variance**3, fourth / variance**2)

    def normal_sums(self, symbols: int) -> bool:
        """Whether sums of products of so many pairs have tails close enough to normal ones.

        Edgeworth's correction at z = 6 stays below a factor of two or so.
        """
        return (
            self.variance > 0
            and self.squared_skewness <= 0.01 * symbols**0.5
            and self.kurtosis**2 <= symbols / 100
        )


def correlations(counts: PassCounts) -> NDArray[np.float64]:
    """Autocorrelation at lags 1..64 (as far as the stream is long), (L,) float64."""
    symbols = counts.symbols
    lags = np.arange(1, min(LAGS, symbols - 1) + 1)
    seen = np.flatnonzero(counts.histogram)
    values, weights = seen - 32_768, counts.histogram[seen]
    total = int((values * weights).sum())  # at most 2^15 * N
    squares = float((values.astype(np.float64) ** 2 * weights).sum())
    mean = total / symbols
    # Sums over the stream without its first or last k symbols.
    without_first = total - np.cumsum(counts.first - 32_768)[lags - 1]
    without_last = total - np.cumsum((counts.last - 32_768)[::-1])[lags - 1]
    products = counts.products[lags - 1]
    centred = products - mean * (without_first + without_last) + (symbols - lags) * mean**2
    spread = squares - symbols * mean**2
    return centred / spread if spread > 0 else np.zeros(lags.size)


def correlation_scores(correlation: NDArray[np.float64], symbols: int) -> NDArray[np.float64]:
    """Standard scores of correlations (L,) at lags 1..L under exchangeability."""
    lags = np.arange(1, correlation.size + 1)
    mean = -(symbols - lags) / (symbols * (symbols - 1))
    return (correlation - mean) * symbols / np.sqrt(symbols - lags)


def equality_moments(
    histogram: NDArray[np.int64], lags: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance of the number of t with x_t = x_(t-lag), in a random order.

    Args:
        histogram (array (k,), int64): how often each symbol comes.
        lags (array (L,), int64): 1..N-1, with N >= 4.

    Returns:
        tuple of arrays (L,): exact but for rounding (80-bit floats).

    Source: join counts of Moran 1948, The interpretation of statistical maps, for the graph whose
    edges join places `lag` apart.
    """
    n = histogram[histogram > 0].astype(np.longdouble)
    total, lag = n.sum(), lags.astype(np.longdouble)
    edges = total - lag
    touching = np.maximum(0, total - 2 * lag)  # pairs of edges with a place in common
    apart = edges * (edges - 1) / 2 - touching
    two, three = n * (n - 1), n * (n - 1) * (n - 2)
    four = three * (n - 3)
    same = two.sum() / (total * (total - 1))
    mean = edges * same
    both_touching = three.sum() / (total * (total - 1) * (total - 2))
    pairs = two.sum() ** 2 - (two**2).sum() + four.sum()
    both_apart = pairs / (total * (total - 1) * (total - 2) * (total - 3))
    # Written as sums of small differences: the square of the mean would swallow the variance.
    variance = (
        mean * (1 - same)
        + 2 * touching * (both_touching - same**2)
        + 2 * apart * (both_apart - same**2)
    )
    return mean.astype(np.float64), np.maximum(variance, 0).astype(np.float64)


def lag_tests(counts: PassCounts) -> Iterator[TestResult]:
    """Pairs of neighbours, correlation and equality at lags 1 to 64, of every symbol.

    Args:
        counts (PassCounts): of the whole stream.

    Yields:
        TestResult: of the question "dependence"; none that has nothing to count.
    """
    yield from _pair_tests(counts)
    yield from _correlation_tests(counts)
    yield from _equality_tests(counts)


def _result(counts: PassCounts, name: str, p: float, *words: str) -> TestResult:
    return TestResult(name, "dependence", p, words[0], words[1], counts.symbols, words[2])


def _pair_tests(counts: PassCounts) -> Iterator[TestResult]:
    for (before, after), table in zip(_PAIRS, counts.pairs, strict=True):
        statistic, degrees = contingency(table)
        if degrees:
            yield _result(
                counts, f"pairs: {before} byte, then {after} byte",
                chi_square_tail(statistic, degrees), f"{statistic:,.1f}",
                f"chi-square, {degrees:,} df",
                f"the {before} byte tells of the next symbol's {after} byte",
            )  # fmt: skip
    pairs = bit_pairs(counts.pairs)
    tested = [(p, bits) for p, bits in pairs if p is not None]
    if tested:
        first, second = min(tested)[1]
        yield _result(
            counts, "pairs of bits of neighbours", any_of([p for p, _ in tested]),
            f"bit {first} and bit {second} of the next symbol",
            f"count of ones, Bonferroni over {len(tested)} pairs",
            f"bit {first} tells of bit {second} of the next symbol",
        )  # fmt: skip


def bit_pairs(pairs: NDArray[np.int64]) -> list[tuple[float | None, tuple[int, int]]]:
    """For each bit and each one of the next symbol: p-value (None where constant), and both."""
    tested: list[tuple[float | None, tuple[int, int]]] = []
    for (before, after), table in zip(_PAIRS, pairs, strict=True):
        first, second = 8 * (before == "high"), 8 * (after == "high")
        byte = np.arange(256)
        ones = (byte >> np.arange(8)[:, None] & 1).astype(np.int64)  # (8, 256)
        both = ones @ table @ ones.T
        total = int(table.sum())
        rows, columns = ones @ table.sum(axis=1), ones @ table.sum(axis=0)
        mean = np.outer(rows, columns) / max(1, total)
        variance = (
            mean * np.outer(total - rows, total - columns) / max(1, total) / max(1, total - 1)
        )
        p = count_tail(both - mean, variance)
        for i, j in np.ndindex(8, 8):
            constant = variance[i, j] <= 0
            tested.append((None if constant else float(p[i, j]), (first + i, second + j)))
    return tested


def _correlation_tests(counts: PassCounts) -> Iterator[TestResult]:
    seen = np.flatnonzero(counts.histogram)
    moments = Moments.of(seen.astype(np.float64), counts.histogram[seen])
    if counts.symbols < 4 * LAGS or not moments.normal_sums(counts.symbols):
        return
    scores = correlation_scores(correlations(counts), counts.symbols)
    statistic = float((scores**2).sum())
    yield _result(
        counts, f"autocorrelation, lags 1 to {scores.size} together",
        float(stats.chi2.sf(statistic, scores.size)), f"{statistic:.1f}",
        f"Ljung-Box, chi-square, {scores.size} df", "symbols correlate with those before",
    )  # fmt: skip
    p_values = normal_tail(scores)
    lag = int(p_values.argmin()) + 1
    yield _result(
        counts, f"autocorrelation, one of lags 1 to {scores.size}", any_of(p_values),
        f"lag {lag}: {scores[lag - 1]:+.2f} standard deviations",
        f"normal, Bonferroni over {scores.size} lags", f"symbols correlate at lag {lag}",
    )  # fmt: skip


def _equality_tests(counts: PassCounts) -> Iterator[TestResult]:
    lags = np.arange(1, min(LAGS, counts.symbols - 1) + 1)
    if np.count_nonzero(counts.histogram) < 2 or counts.symbols < 4:
        return
    # Where one symbol dominates, a coincidence of two others makes two of its own as well.
    step = 2 if 2 * counts.histogram.max() > counts.symbols else 1
    mean, variance = equality_moments(counts.histogram, lags)
    excess = counts.equals[: lags.size] - mean
    p_values = count_tail(excess, variance, step=step)
    lag = int(p_values.argmin()) + 1
    yield _result(
        counts, f"equal symbols, one of lags 1 to {lags.size}", any_of(p_values),
        f"lag {lag}: {counts.equals[lag - 1]:,} times, {mean[lag - 1]:,.1f} expected",
        f"join count, Poisson's tail, Bonferroni over {lags.size} lags",
        f"symbols come again after {lag} {'more' if excess[lag - 1] > 0 else 'less'} often than by"
        " chance",
    )  # fmt: skip
    if variance.min() >= _FEWEST_FOR_SUM:
        statistic = float((excess**2 / variance).sum())
        yield _result(
            counts, f"equal symbols, lags 1 to {lags.size} together",
            float(stats.chi2.sf(statistic, lags.size)), f"{statistic:.1f}",
            f"join counts, chi-square, {lags.size} df", "symbols come again at certain lags",
        )  # fmt: skip
