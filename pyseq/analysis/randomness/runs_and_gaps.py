"""Tests of clustering: runs on one side of a threshold, longest runs, gaps between returns.

Their null is exchangeability: given the histogram, every order is alike.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from pyseq.analysis.randomness.symbol_pass import GAPS, PassCounts
from pyseq.analysis.randomness.tails import FEWEST_EXPECTED, any_of, normal_tail
from pyseq.analysis.randomness.test_result import TestResult

_MOST_EXACT = 200_000  # of the rarer side, up to which the law of the number of runs is summed
_FEWEST_GAPS = 100


def runs_p_value(runs: int, above: int, others: int) -> tuple[float, str]:
    """Two-sided p-value of the number of runs in a random order of two kinds.

    Args:
        runs (int): maximal stretches of one kind.
        above (int), others (int): how many there are of each kind; at least 1.

    Returns:
        tuple (p-value, null): the exact law where one kind is rare, else normal, with the moments
        of Wald and Wolfowitz 1940 in whole numbers of any size.

    Source: Wald and Wolfowitz 1940, On a test whether two samples are from the same population.
    """
    total, rarer = above + others, min(above, others)
    if rarer <= _MOST_EXACT:
        numbers, law = _law_of_runs(above, others)
        lower = float(law[numbers <= runs].sum())
        upper = float(law[numbers >= runs].sum())
        return min(1.0, 2 * min(lower, upper)), "exact"
    product = 2 * above * others
    mean = product / total + 1
    variance = product * (product - total) / (total * total * (total - 1))  # Python's own integers
    return float(normal_tail((runs - mean) / variance**0.5)), "normal"


def _law_of_runs(above: int, others: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every possible number of runs, and its probability."""

    def log_choose(n: int, k: NDArray) -> NDArray[np.float64]:
        inside = (k >= 0) & (k <= n)
        k = np.clip(k, 0, n)
        log = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
        return np.where(inside, log, -np.inf)

    k = np.arange(1, min(above, others) + 1)
    even = np.log(2) + log_choose(above - 1, k - 1) + log_choose(others - 1, k - 1)
    odd = np.logaddexp(
        log_choose(above - 1, k) + log_choose(others - 1, k - 1),
        log_choose(above - 1, k - 1) + log_choose(others - 1, k),
    )
    log = np.concatenate([even, odd])
    # Normalised by their own sum, which takes out what the logarithms of large factorials round.
    return np.concatenate([2 * k, 2 * k + 1]), np.exp(log - special.logsumexp(log))


def longest_run_p_value(longest: int, counts: NDArray[np.int64], total: int) -> float:
    """Bound on the chance that one of some symbols comes `longest` times in a row, in random order.

    The expected number of places where such a run begins, which is no less than that chance.

    Args:
        longest (int): length, at least 1.
        counts (array (k,), int64): how often each of the symbols comes.
        total (int): of all symbols.
    """
    enough = counts[counts >= longest].astype(np.float64)
    if longest <= 1000:  # products of ratios keep all digits
        log = np.zeros(enough.size)
        for step in range(longest):
            log += np.log((enough - step) / (total - step))
    else:
        log = (
            special.gammaln(enough + 1) - special.gammaln(enough - longest + 1)
            - special.gammaln(total + 1) + special.gammaln(total - longest + 1)
        )  # fmt: skip
    return float(min(1.0, (total - longest + 1) * np.exp(log).sum()))


def gaps_p_value(gaps: NDArray[np.int64], share: float) -> tuple[float, float, int]:
    """Chi-square of gaps between returns against the geometric law.

    Args:
        gaps (array (GAPS,), int64): [g - 1] counts gaps of g, the last one those of GAPS and more.
        share (float): of the symbols that belong to the class, in (0, 1). It comes from the same
            symbols, which makes the test a little more careful than its level.

    Returns:
        tuple (statistic, p-value, degrees of freedom).
    """
    size = np.arange(GAPS)
    law = share * (1 - share) ** size
    law[-1] = (1 - share) ** (GAPS - 1)
    expected = law * gaps.sum()
    # Cells of one gap each while they are expected often enough, then all longer gaps in one.
    single = int(np.argmax(np.append(expected < FEWEST_EXPECTED, True)))
    while single > 0 and expected[single:].sum() < FEWEST_EXPECTED:
        single -= 1
    cells = np.arange(single + 1)
    observed, expected = np.add.reduceat(gaps, cells), np.add.reduceat(expected, cells)
    degrees = len(cells) - 1
    if degrees == 0:
        return 0.0, 1.0, 0
    statistic = float(((observed - expected) ** 2 / expected).sum())
    return statistic, float(stats.chi2.sf(statistic, degrees)), degrees


def clustering_tests(counts: PassCounts) -> Iterator[TestResult]:
    """Runs, longest runs and gaps of every symbol.

    Args:
        counts (PassCounts): of the whole stream.

    Yields:
        TestResult: of the question "dependence"; none that has nothing to count.
    """
    above, others = counts.above, counts.symbols - counts.above

    def result(name: str, p: float, statistic: str, null: str, finding: str) -> TestResult:
        return TestResult(name, "dependence", p, statistic, null, counts.symbols, finding)

    if above and others:
        p, null = runs_p_value(counts.runs, above, others)
        expected = 2 * above * others / counts.symbols + 1
        yield result(
            "runs above and below the median", p, f"{counts.runs:,} runs, {expected:,.1f} expected",
            null,
            f"symbols stay on one side too {'long' if counts.runs < expected else 'briefly'}",
        )  # fmt: skip
        sides = ((counts.longest_above, above), (counts.longest_not_above, others))
        p_values = [
            longest_run_p_value(longest, np.array([of]), counts.symbols) for longest, of in sides
        ]
        longest = max(longest for longest, _ in sides)
        yield result(
            "longest run above or below the median", any_of(p_values), f"{longest:,} symbols",
            "bound by expected runs", "symbols stay on one side for too long once",
        )  # fmt: skip
    if np.count_nonzero(counts.histogram) > 1:
        yield result(
            "longest run of one symbol",
            longest_run_p_value(counts.longest_equal, counts.histogram, counts.symbols),
            f"symbol {counts.longest_symbol}, {counts.longest_equal:,} times",
            "bound by expected runs", f"symbol {counts.longest_symbol} is repeated too long once",
        )  # fmt: skip
    in_class = np.bincount(counts.class_of, counts.histogram, 16)
    tests = [
        gaps_p_value(gaps, of / counts.symbols)
        for gaps, of in zip(counts.gaps, in_class, strict=True)
        if gaps.sum() >= _FEWEST_GAPS and of < counts.symbols
    ]
    tests = [test for test in tests if test[2]]
    if tests:
        worst = min(tests, key=lambda test: test[1])
        yield result(
            "gaps between returns to a class", any_of([p for _, p, _ in tests]),
            f"{worst[0]:,.1f}", f"chi-square, {worst[2]} df, Bonferroni over {len(tests)} classes",
            "symbols of a class return too regularly or too clustered",
        )  # fmt: skip
