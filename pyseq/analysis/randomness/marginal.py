"""Tests of the marginal: are symbols independent draws of the declared law?

The null is the uniform law over the alphabet, or the law behind another stream. All tests read the
histogram of every symbol. They count symbols as independent; where they are not, a p-value says
that the stream is no sequence of independent draws of that law, and not which part of it is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pyseq.analysis.randomness.tails import (
    any_of,
    chi_square_tail,
    count_tail,
    group_starts,
    pooled,
)
from pyseq.analysis.randomness.test_result import TestResult
from pyseq.analysis.randomness.views import SYMBOLS, View, bits_of, low_bits, shifted


@dataclass(frozen=True, eq=False)
class DeclaredLaw:
    """The law that the marginal is compared with.

    Attributes:
        words (str): such as "uniform over 6 symbols".
        alphabet (int): k.
        sample (array (65536,), int64, or None): counts of a stream of the law; None is uniform.
    """

    words: str
    alphabet: int
    sample: NDArray[np.int64] | None = None

    @property
    def weights(self) -> NDArray[np.float64]:
        """Of each symbol, (65536,), float64: 1 for each of the alphabet, or its count."""
        if self.sample is not None:
            return self.sample.astype(np.float64)
        return (np.arange(SYMBOLS) < self.alphabet).astype(np.float64)

    def chi_square(self, counts: NDArray[np.int64], view: View) -> tuple[float, float, str]:
        """Statistic, p-value and null of the counts (65536,) of a stream, seen through a view."""
        seen, weights = view.fold(counts), view.fold(self.weights)
        if self.sample is not None:
            return _two_samples(seen, view.fold(self.sample))
        seen, weights = seen[weights > 0], weights[weights > 0]
        observed, expected = pooled(seen, weights / weights.sum() * counts.sum())
        degrees = len(observed) - 1
        if degrees == 0:
            return 0.0, 1.0, "nothing to compare"
        statistic = float(((observed - expected) ** 2 / expected).sum())
        return statistic, chi_square_tail(statistic, degrees), f"chi-square, {degrees:,} df"

    def single_symbols(self, counts: NDArray[np.int64]) -> tuple[int, float, float, str]:
        """The symbol that stands out most, its expected count and p-value, and the null."""
        total = int(counts.sum())
        if self.sample is None:
            p = 1 / self.alphabet
            seen = counts[: self.alphabet]
            # Only the most and the least frequent one can have the smallest p-value.
            extremes = np.array([int(seen.argmax()), int(seen.argmin())])
            tails = np.array([stats.binom.sf(seen[extremes[0]] - 1, total, p),
                              stats.binom.cdf(seen[extremes[1]], total, p)])  # fmt: skip
            best = int(tails.argmin())
            return int(extremes[best]), total * p, min(1.0, 2 * float(tails[best])), "binomial"
        theirs = int(self.sample.sum())
        both = counts + self.sample
        share = total / (total + theirs)
        variance = both * share * (1 - share) * (1 - both / (total + theirs))
        tails = count_tail(counts - both * share, variance)
        symbol = int(tails.argmin())
        return symbol, float(both[symbol] * share), float(tails[symbol]), "hypergeometric, bounded"


def _two_samples(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> tuple[float, float, str]:
    """Chi-square of homogeneity of two histograms."""
    table = np.stack([ours, theirs])
    share = table.sum(axis=1) / max(1, table.sum())
    # Every group is expected FEWEST_EXPECTED times in the smaller sample too.
    columns = group_starts(table.sum(axis=0) * share.min(), 10.0)
    grouped = np.add.reduceat(table, columns, axis=1)
    degrees = len(columns) - 1
    if degrees == 0 or not table.sum(axis=1).all():
        return 0.0, 1.0, "nothing to compare"
    expected = share[:, None] * grouped.sum(axis=0)
    statistic = float(((grouped - expected) ** 2 / expected).sum())
    return statistic, chi_square_tail(statistic, degrees), f"chi-square, {degrees:,} df"


def marginal_tests(histogram: NDArray[np.int64], law: DeclaredLaw) -> Iterator[TestResult]:
    """Everything that is asked of the marginal.

    Args:
        histogram (array (65536,), int64): of every symbol.
        law (DeclaredLaw): the null.

    Yields:
        TestResult: of the question "marginal".
    """
    symbols, bits = int(histogram.sum()), bits_of(law.alphabet)

    def result(name: str, p: float, statistic: str, null: str, finding: str) -> TestResult:
        return TestResult(name, "marginal", p, statistic, null, symbols, finding)

    statistic, p, null = law.chi_square(histogram, shifted(0))
    yield result("histogram", p, f"{statistic:,.1f}", null, "frequencies are not the declared ones")
    symbol, expected, p, null = law.single_symbols(histogram)
    count = int(histogram[symbol])
    # Each symbol has its own test, on two sides.
    compared = np.count_nonzero(histogram + law.weights)
    p = min(1.0, p * compared)
    yield result(
        "single symbols", p, f"symbol {symbol}: {count:,} times, {expected:,.1f} expected",
        f"{null}, Bonferroni over {compared:,} symbols",
        f"symbol {symbol} comes {'too often' if count > expected else 'too rarely'}",
    )  # fmt: skip
    if bits < 2:
        return
    views = [shifted(k) for k in range(1, bits)], [low_bits(k) for k in range(1, bits)]
    for name, group in zip(("coarser scales", "low bits"), views, strict=True):
        tests = [law.chi_square(histogram, view) for view in group]
        p_values = [p for _, p, _ in tests]
        worst = int(np.argmin(p_values))
        statistic, _, null = tests[worst]
        yield result(
            name, any_of(p_values), f"{group[worst].name}: {statistic:,.1f}",
            f"{null}, Bonferroni over {len(group)} views", f"{group[worst].name} are uneven",
        )  # fmt: skip


def entropies(histogram: NDArray[np.int64]) -> tuple[float, float]:
    """Plug-in Shannon entropy and min-entropy of counts, bits/symbol; 0 without symbols."""
    total = histogram.sum()
    p = histogram[histogram > 0] / max(1, total)
    if p.size == 0:
        return 0.0, 0.0
    return float(0.0 - (p * np.log2(p)).sum()), float(0.0 - np.log2(p.max()))
