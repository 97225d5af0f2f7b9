"""What the best predictor of independent symbols reaches on average.

On symbols that are drawn independently from one law the past says nothing, and the best that can
be done is to know that law. The ceiling is an average: a finite sample can come out on either side
of it, symbols with another law than the training symbols' may lie anywhere, and whether a model has
found something is for `pyseq.analysis.verdicts` to say, on the same symbols and with intervals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from pyseq.analysis.intervals import Interval

# Chi-square's usual rule: at least five expected in every cell.
_EXPECTED_PER_CELL = 5
# With this many pairs of equal symbols expected, a law on half of the alphabet would show twice
# as many, ten standard deviations away; with fewer the test is too blind to lean on.
_FEWEST_COINCIDENCES = 100
_REJECTED_BELOW = 0.001


@dataclass(frozen=True)
class Ceiling:
    """The best average scores that are possible on independent draws from one law.

    Attributes:
        bits (float): entropy of the (binned) law, bits per symbol; on average no predictor needs
            fewer.
        top1 (float): probability of the most probable bin; best possible top-1 accuracy, fraction.
        top3 (float): the same for three guesses.
        top5 (float): the same for five guesses.
        uniform_bits (float): log2 of the number of bins: what guessing evenly costs.
        law (str): "uniform" where the figures are exact for a uniform alphabet, "marginal" where
            they are estimated from the training symbols' frequencies.
        reason (str): one sentence on which law was taken and why.
    """

    bits: float
    top1: float
    top3: float
    top5: float
    uniform_bits: float
    law: Literal["uniform", "marginal"]
    reason: str

    @property
    def nats(self) -> float:
        """The entropy in nats, as a cross-entropy loss would show it."""
        return self.bits * math.log(2)

    @property
    def allowance(self) -> str:
        """What stands before the bits in words: an estimated law allows only "about" as many."""
        about = " about" if self.law == "marginal" else ""
        return f"independent symbols allow{about}"


def ceiling(
    counts: ArrayLike, bin_of_symbol: ArrayLike | None = None, *, bins: int | None = None
) -> Ceiling:
    """The ceiling of independent symbols, from how often each occurs in the training split.

    "Uniform over 0..V-1" is tested on the symbols, not on the bins, with the smaller of two
    chi-square p-values doubled: one on neighbours merged until each cell expects five, one on the
    symbols as they are, whose first two moments chi-square has at any expectation. Where neither
    rejects at 0.001 and the test had power (N (N - 1) / (2 V) >= 100 expected coincidences), the
    figures are those of the bins' exact sizes. Otherwise they are estimated from the counts: the
    entropy with Miller and Madow's correction, the accuracies plugged in, which reads a little
    high when symbols are few. Not to reject is no proof; the reason quotes the p-value.

    Args:
        counts (array (V,), integer): occurrences of each symbol in the training split.
        bin_of_symbol (array (V,), integer or None): the bin of each symbol, from 0; None where
            every symbol is its own bin.
        bins (int or None): number of bins, for bins that no symbol falls into at the upper end;
            None takes the largest of bin_of_symbol plus one.

    Returns:
        Ceiling: bits per symbol and fractions.

    Raises:
        ValueError: counts are empty, negative or all zero, or the binning does not fit them.

    Source: Miller 1955, Note on the bias of information estimates; Koehler and Larntz 1980, An
        empirical investigation of goodness-of-fit statistics for sparse multinomials.
    """
    seen = np.asarray(counts, dtype=np.int64)
    if seen.ndim != 1 or seen.size == 0 or seen.min() < 0 or seen.sum() == 0:
        raise ValueError(
            f"ceiling: counts of shape {seen.shape} with sum {int(seen.sum())}; "
            "one non-negative count per symbol, not all zero, is needed"
        )
    where = np.arange(seen.size) if bin_of_symbol is None else np.asarray(bin_of_symbol)
    if where.shape != seen.shape or where.min() < 0:
        raise ValueError(
            f"ceiling: bin_of_symbol has shape {where.shape}, counts {seen.shape}; "
            "one bin from 0 per symbol is needed"
        )
    number = int(where.max()) + 1 if bins is None else bins
    if number <= where.max():
        raise ValueError(f"ceiling: bin {int(where.max())} of {bins} bins; bins count from 0")
    reason, uniform = _judge_uniform(seen)
    if uniform:
        sizes = np.bincount(where, minlength=number)
        return _ceiling(sizes, number, 0.0, "uniform", reason)
    binned = np.bincount(where, weights=seen, minlength=number)
    correction = (np.count_nonzero(binned) - 1) / (2 * int(seen.sum()) * math.log(2))
    return _ceiling(binned, number, correction, "marginal", reason)


def format_percent(fraction: float | Interval) -> str:
    """A fraction as a percentage with three significant digits: 0.100 %, 5.83 %, 41.2 %.

    Args:
        fraction (float or Interval): from 0 to 1; an Interval shows its ends too.

    Returns:
        str: as in "0.100 %", or "5.83 % [5.41 %, 6.27 %]".
    """
    if isinstance(fraction, Interval):
        ends = f"[{format_percent(fraction.low)}, {format_percent(fraction.high)}]"
        return f"{format_percent(fraction.value)} {ends}"
    if not math.isfinite(fraction):
        return f"{fraction} %"
    percent = 100 * fraction
    exponent = int(f"{percent:.2e}".split("e")[1]) if percent else -1
    return f"{percent:.{max(1, 2 - exponent)}f} %"


def _ceiling(
    weights: NDArray, number: int, correction: float, law: Literal["uniform", "marginal"], why: str
) -> Ceiling:
    """Entropy and best accuracies of bins in proportion to `weights`."""
    shares = np.sort(weights / weights.sum())[::-1]
    inside = shares[shares > 0]
    entropy = max(0.0, -float(np.sum(inside * np.log2(inside))))
    uniform_bits = math.log2(number)
    top1, top3, top5 = (float(shares[:k].sum()) for k in (1, 3, 5))
    bits = min(entropy + correction, uniform_bits)
    return Ceiling(bits, top1, top3, top5, uniform_bits, law, why)


def _judge_uniform(counts: NDArray[np.int64]) -> tuple[str, bool]:
    """Whether to take the alphabet for uniform, and the sentence that says why."""
    alphabet, total = counts.size, int(counts.sum())
    known = f"{total:,} training symbols"
    if alphabet == 1:
        return "the alphabet has one symbol", True
    p_value = _uniform_p_value(counts)
    if p_value <= _REJECTED_BELOW:
        shown = f"= {p_value:.2g}" if p_value >= 1e-300 else "< 1e-300"
        return (
            f"{known} are not uniform over 0..{alphabet - 1} (chi-square p {shown}), "
            "so their frequencies are taken for the law"
        ), False
    if total * (total - 1) / (2 * alphabet) < _FEWEST_COINCIDENCES:
        return (
            f"{known} are too few to tell whether {alphabet} values are equally likely, "
            "so their frequencies are taken for the law, which flatters accuracy"
        ), False
    return (
        f"{known} are consistent with uniform over 0..{alphabet - 1} "
        f"(chi-square p = {p_value:.2g}), so the figures are exact for that law"
    ), True


def _uniform_p_value(counts: NDArray[np.int64]) -> float:
    """Chi-square against equal probabilities, merged and unmerged, Bonferroni for the two."""
    alphabet, total = counts.size, int(counts.sum())
    plain = _chi_square(counts, np.ones_like(counts))
    if total >= _EXPECTED_PER_CELL * alphabet:
        return plain
    cells = max(2, total // _EXPECTED_PER_CELL)
    # Cells of as equal a number of neighbours as the alphabet allows; their exact sizes count.
    edges = np.arange(cells) * alphabet // cells
    merged = np.add.reduceat(counts, edges)
    return min(1.0, 2 * min(plain, _chi_square(merged, np.diff(edges, append=alphabet))))


def _chi_square(counts: NDArray[np.int64], sizes: NDArray[np.int64]) -> float:
    """p-value of counts whose expectations are in proportion to `sizes`."""
    expected = counts.sum() * (sizes / sizes.sum())
    return float(stats.chisquare(counts, expected).pvalue)
