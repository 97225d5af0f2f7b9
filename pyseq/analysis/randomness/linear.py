"""Tests for linear structure in bit planes: linear complexity and rank of binary matrices.

Shift registers and other generators that are linear over two elements fail them whatever their
period. Under the null the bits of a plane are independent but not fair where the marginal is
uneven, so distant stretches of a plane are added (exclusive or) until the bias is gone: sums of
stretches of one linear recurrence still follow it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pyseq.analysis.randomness.symbol_pass import native_core
from pyseq.analysis.randomness.tails import FEWEST_EXPECTED, any_of
from pyseq.analysis.randomness.test_result import TestResult
from pyseq.analysis.randomness.views import bits_of, parity, plane

SAMPLE = 1 << 20  # symbols
MOST_BITS = 1 << 16  # of a sequence whose linear complexity is found
_FEWEST_BITS = 64
_MOST_STRETCHES = 16
_BIAS = 0.01  # largest |P(1) - P(0)| that is left as it is
_SIZE = 64  # rows and columns of a matrix


def linear_complexity(bits: NDArray[np.uint8]) -> int:
    """Length of the shortest linear recurrence over two elements that makes bits (n,) of 0 and 1.

    Raises:
        BackendUnavailable: pyseq._core was not built.

    Source: Massey 1969, Shift-register synthesis and BCH decoding.
    """
    return int(native_core().linear_complexity(np.ascontiguousarray(bits, np.uint8)))


def complexity_p_value(complexity: int, length: int) -> float:
    """Two-sided p-value of the linear complexity of fair bits.

    2**min(2n - 2L, 2L - 1) of the 2**n sequences of n bits have complexity L >= 1, one has 0.

    Source: Rueppel 1986, Analysis and design of stream ciphers, chapter 4.
    """
    n = length
    sizes = np.arange(n + 1)
    log = np.minimum(2 * n - 2 * sizes, 2 * sizes - 1).astype(np.float64) - n
    log[0] = -n
    lower = np.exp2(log[: complexity + 1]).sum()
    upper = np.exp2(log[complexity:]).sum()
    return float(min(1.0, 2 * min(lower, upper)))


def rank_law(size: int, fewest: int) -> NDArray[np.float64]:
    """P(rank) of a random square matrix of fair bits for ranks `fewest`..size, the first cumulated.

    Source: Kovalenko 1972; P(r) = 2^(r(2n - r) - n^2) prod_(i<r) (1 - 2^(i-n))^2 / (1 - 2^(i-r)).
    """
    ranks = np.arange(fewest + 1, size + 1)
    law = []
    for rank in ranks.tolist():
        i = np.arange(rank)
        log = rank * (2.0 * size - rank) - size**2
        log += 2 * np.log2(1 - np.exp2(i - float(size))).sum()
        log -= np.log2(1 - np.exp2(i - float(rank))).sum()
        law.append(2.0**log)
    return np.array([1 - sum(law), *law])


def binary_ranks(bits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Ranks of the 64 x 64 matrices that bits (n,) of 0 and 1 fill row by row, (n // 4096,)."""
    matrices = bits.size // _SIZE**2
    packed = np.packbits(bits[: matrices * _SIZE**2].astype(np.uint8), bitorder="little")
    ranks = np.empty(matrices, np.int64)
    native_core().binary_ranks(packed.view(np.uint64).reshape(-1, 1), ranks)
    return ranks


def rank_p_value(ranks: NDArray[np.int64]) -> float:
    """Two-sided p-value of how many of the matrices (M,) have rank 64, and how many 62 or less.

    The counts are binomial; chi-square of so few and so uneven cells has too light a tail.
    """
    law = rank_law(_SIZE, _SIZE - 2)
    tails = []
    for count, share in ((int((ranks <= _SIZE - 2).sum()), law[0]),
                         (int((ranks == _SIZE).sum()), law[2])):  # fmt: skip
        lower = float(stats.binom.cdf(count, ranks.size, share))
        upper = float(stats.binom.sf(count - 1, ranks.size, share))
        tails.append(min(1.0, 2 * min(lower, upper)))
    return any_of(tails)


def fair_bits(plane: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """The sum of as many stretches of a plane (n,) as make its bits fair; None if none do."""
    bias = abs(1 - 2 * float(plane.mean()))
    stretches = 1
    while bias**stretches > _BIAS:
        stretches *= 2
        if stretches > _MOST_STRETCHES:
            return None
    length = plane.size // stretches
    if length < _FEWEST_BITS:
        return None
    return np.bitwise_xor.reduce(plane[: length * stretches].reshape(stretches, length), axis=0)


def linear_tests(symbols: NDArray[np.uint16], alphabet: int) -> Iterator[TestResult]:
    """Linear complexity and matrix ranks of the bit planes of a sample.

    Args:
        symbols (array (n,), uint16): a stretch of the stream.
        alphabet (int): k.

    Yields:
        TestResult: of the question "dependence"; none where no plane can be made fair.
    """
    complexities: list[tuple[float, str, str]] = []
    ranks: list[tuple[float, str, str]] = []
    law = rank_law(_SIZE, _SIZE - 2)
    planes = [plane(bit) for bit in range(bits_of(alphabet))]
    for view in [*planes, parity()] if alphabet > 2 else planes:
        bits = fair_bits(view.table[symbols].astype(np.uint8))
        if bits is None:
            continue
        shown = bits[:MOST_BITS]
        length = linear_complexity(shown)
        words = f"{view.name}: {length:,} for {shown.size:,} bits"
        complexities.append((complexity_p_value(length, shown.size), words, view.name))
        matrices = bits.size // _SIZE**2
        if matrices * law.min() >= FEWEST_EXPECTED:
            found = binary_ranks(bits)
            p = rank_p_value(found)
            low = int((found <= _SIZE - 2).sum())
            words = f"{view.name}: {low} of {matrices} of rank {_SIZE - 2} or less"
            ranks.append((p, words, view.name))
    for name, tests, null in (
        ("linear complexity of bit planes", complexities, "exact"),
        ("rank of 64 x 64 matrices of bits", ranks, "binomial"),
    ):
        if tests:
            _, words, name_of_plane = min(tests)
            yield TestResult(
                name, "dependence", any_of([p for p, _, _ in tests]), words,
                f"{null}, Bonferroni over {len(tests)} planes", symbols.size,
                f"{name_of_plane} follows a linear recurrence",
            )  # fmt: skip
