"""What the estimates of SP 800-90B say of a source of independent uniform symbols."""

import math
from dataclasses import dataclass

import numpy as np

from pyseq.analysis.predictability.runs import chance_of_run, likeliest_p
from pyseq.analysis.predictability.sp800_90b import (
    CONFIDENCE,
    FEWEST_SYMBOLS,
    FIRST_GUESSED,
    Z,
    global_bound,
)

_TAIL = 1e-12  # chance of the scores that are left out at each end
_RAREST_RUN, _USUAL_RUN = 1e-3, 0.999


@dataclass(frozen=True)
class Expectation:
    """A figure of a perfect source.

    Attributes:
        bits (float): expected, bits per symbol.
        low (float): 2.5 % of perfect sources are scored less, or hardly more.
        high (float): 2.5 % of perfect sources are scored more, or hardly less.
    """

    bits: float
    low: float
    high: float


@dataclass(frozen=True)
class ExpectedRun:
    """How the longest run of correct guesses scores a perfect source.

    Attributes:
        longest_run (int): correct guesses in a row.
        chance (float): that the longest run of a perfect source is at least so long.
        bits (float): what such a run alone says, bits per symbol (`Prediction.local_bits`).
    """

    longest_run: int
    chance: float
    bits: float


def expected_of_perfect(count: int, alphabet: int) -> dict[str, Expectation]:
    """What a perfect source is expected to score: independent, uniform over the alphabet.

    A predictor guesses each symbol with chance 1 / alphabet, whatever it does, so C is binomial;
    early in a stream of a wide alphabet MultiMMC and LZ78Y have no guess yet, and C is a little
    less. For more than two symbols the largest count is taken for that of independent Poisson
    counts, less what their sum varies.

    Args:
        count (int): N, symbols of the stream; >= 3.
        alphabet (int): 2 to 65536.

    Returns:
        dict: `Prediction.global_bits` by the predictor's name, for those that serve streams so
        short, and `MostCommonValue.min_entropy` as "most_common_value".

    Raises:
        ValueError: count or alphabet is out of its range.
    """
    from scipy import stats

    _check("expected_of_perfect", count, alphabet)
    found = {}
    for name, first in FIRST_GUESSED.items():
        if count < FEWEST_SYMBOLS[name]:
            continue
        correct = stats.binom(count - first, 1 / alphabet)
        scores = np.arange(correct.ppf(_TAIL), correct.isf(_TAIL) + 1)
        bits = _bits_of_counts(np.maximum(scores, 1), count - first)
        bits[scores == 0] = -math.log2(global_bound(0, count - first))
        found[name] = _expectation(bits, correct.pmf(scores))
    found["most_common_value"] = _most_common_value(count, alphabet)
    return found


def expected_runs(count: int, alphabet: int) -> list[ExpectedRun]:
    """How often the longest run of correct guesses misjudges a perfect source, and by how much.

    Args:
        count (int): guesses, or symbols of the stream; >= 3.
        alphabet (int): 2 to 65536.

    Returns:
        list of ExpectedRun: the runs that show in less than 999 of 1000 perfect sources and in more
        than 1 of 1000, and the one before them.

    Raises:
        ValueError: count or alphabet is out of its range.
    """
    _check("expected_runs", count, alphabet)
    runs: list[ExpectedRun] = []
    for longest in range(count + 1):
        chance = chance_of_run(1 / alphabet, longest, count)
        if chance < _RAREST_RUN:
            break
        if chance > _USUAL_RUN:
            runs.clear()
        p = likeliest_p(longest + 1, count, CONFIDENCE)
        runs.append(ExpectedRun(longest, chance, abs(math.log2(p))))
    return runs


def _most_common_value(count: int, alphabet: int) -> Expectation:
    from scipy import stats

    if alphabet == 2:
        most = min(count, math.ceil(count / 2 + 6 * math.sqrt(count) + 1))  # 12 deviations
        counts = np.arange(math.ceil(count / 2), most + 1)
        chances = stats.binom(count, 0.5).pmf(counts) * np.where(2 * counts == count, 1, 2)
        likely = chances > 0
        return _expectation(_bits_of_counts(counts[likely], count), chances[likely])
    # Independent Poisson counts less their mean are distributed as the true counts are, as far as
    # both are normal: so the expected maximum is that of Poisson counts, its variance less.
    cell = stats.poisson(count / alphabet)
    # No count of 65,536 is further out but with a chance of less than 1e-20.
    most = math.ceil(cell.mean() + 12 * cell.std() + 60)
    least = max(1, math.floor(cell.mean() - 12 * cell.std()))
    counts = np.arange(least, most + 1)
    # P(max <= m) = F(m)^alphabet, by the upper tail of F for the precision.
    with np.errstate(divide="ignore"):  # F(m) may be 0
        chances = np.diff(np.exp(alphabet * np.log1p(-cell.sf(counts))), prepend=0.0)
    mean = chances @ counts
    variance = chances @ (counts - mean) ** 2
    of_their_mean = count / alphabet**2
    counts = mean + (counts - mean) * math.sqrt(max(0.0, 1 - of_their_mean / variance))
    return _expectation(_bits_of_counts(np.clip(counts, 1, count), count), chances)


def _bits_of_counts(counts: np.ndarray, count: int) -> np.ndarray:
    """-log2, never -0, of NIST's bounds on the shares of `counts`, all above 0, in `count`."""
    p = counts / count
    return np.abs(np.log2(np.minimum(1, p + Z * np.sqrt(p * (1 - p) / (count - 1)))))


def _check(who: str, count: int, alphabet: int) -> None:
    if count < min(FEWEST_SYMBOLS.values()) or not 2 <= alphabet <= 1 << 16:
        raise ValueError(
            f"{who}: {count} symbols, alphabet {alphabet}; "
            f"at least {min(FEWEST_SYMBOLS.values())}, and 2 to 65536 fit"
        )


def _expectation(bits: np.ndarray, chances: np.ndarray) -> Expectation:
    """Mean and central 95 % of scores with these chances."""
    order = np.argsort(bits)
    bits, cumulative = bits[order], np.cumsum(chances[order]) / chances.sum()
    low, high = bits[np.searchsorted(cumulative, [0.025, 0.975])]
    mean = float(np.diff(cumulative, prepend=0.0) @ bits)
    return Expectation(mean, float(low), float(high))
