"""Independent draws: nothing of the past helps, only the marginal tells them from uniform."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from pyseq.data.stream_info import MAX_ALPHABET, Kind
from pyseq.data.streams.stream import (
    BLOCK,
    Stream,
    check_int,
    check_number,
    die_entropy,
    generator,
    surprise,
)


@dataclass(frozen=True)
class Uniform(Stream):
    """Independent draws, each of k symbols alike: both entropies are log2(k).

    Args:
        alphabet (int): k, 1..65536.
    """

    name: ClassVar[str] = "uniform"
    kind: ClassVar[Kind] = "values"
    independent: ClassVar[bool] = True

    alphabet: int = 65_536

    def __post_init__(self) -> None:
        check_int("alphabet", self.alphabet, 1, MAX_ALPHABET)

    @property
    def entropy_rate(self) -> float:
        return math.log2(self.alphabet)

    @property
    def min_entropy(self) -> float:
        return math.log2(self.alphabet)

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        random = generator(seed)
        while True:
            yield random.integers(self.alphabet, size=BLOCK, dtype=np.uint16)


@dataclass(frozen=True)
class Biased(Stream):
    """A die that favours one face: P(0) = p = (1 + bias) / k, the other faces alike.

    Entropy: -p log2(p) - (1 - p) log2((1 - p) / (k - 1)) bits; min-entropy: -log2 of the larger
    of p and (1 - p) / (k - 1).

    Args:
        alphabet (int): k, the number of faces, 2..65536.
        bias (float): relative excess of face 0, from -1 (never) through 0 (a fair die) to k - 1
            (always).
    """

    name: ClassVar[str] = "biased"
    kind: ClassVar[Kind] = "values"
    independent: ClassVar[bool] = True

    alphabet: int = 6
    bias: float = 0.5

    def __post_init__(self) -> None:
        check_int("alphabet", self.alphabet, 2, MAX_ALPHABET)
        check_number("bias", self.bias, -1, self.alphabet - 1)

    @property
    def favoured(self) -> float:
        """P(0), without unit."""
        return (1 + self.bias) / self.alphabet

    @property
    def entropy_rate(self) -> float:
        return die_entropy(self.favoured, self.alphabet - 1)

    @property
    def min_entropy(self) -> float:
        p = self.favoured
        return math.log2(1 / max(p, (1 - p) / (self.alphabet - 1)))

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        random, p, others = generator(seed), self.favoured, self.alphabet - 1
        while True:
            draw = random.random(BLOCK)
            # given draw >= p, (draw - p) / (1 - p) is uniform; at bias k - 1 no draw reaches p = 1
            rest = np.maximum(draw - p, 0.0) / max(1 - p, 2.0**-53)
            face = 1 + np.minimum(rest * others, others - 1).astype(np.uint16)
            yield np.where(draw < p, np.uint16(0), face)


@dataclass(frozen=True)
class DiscretisedNormal(Stream):
    """Normal noise as a converter with k codes reads it: rounded, and held at the two end codes.

    With the mean m = (k - 1) / 2, x is m + deviation z, z standard normal, rounded to the nearest
    whole number and clipped to 0..k-1. P(x) = F(x + 1/2) - F(x - 1/2), with F the distribution
    function of N(m, deviation ** 2), F(-1/2) replaced by 0 and F(k - 1/2) by 1.

    Entropy: sum_x P(x) log2(1 / P(x)) bits; min-entropy: -log2 of the largest P(x).

    Args:
        alphabet (int): k, 2..65536.
        deviation (float): standard deviation before rounding, 0.01..65536 symbols.
    """

    name: ClassVar[str] = "discretised_normal"
    kind: ClassVar[Kind] = "values"
    independent: ClassVar[bool] = True

    alphabet: int = 4096
    deviation: float = 300.0

    def __post_init__(self) -> None:
        check_int("alphabet", self.alphabet, 2, MAX_ALPHABET)
        check_number("deviation", self.deviation, 0.01, 65_536)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """P (k,), float64, read-only."""
        edges = (np.arange(1, self.alphabet) - self.alphabet / 2) / self.deviation
        probabilities = normal_mass(np.concatenate([[-np.inf], edges, [np.inf]]))
        probabilities.flags.writeable = False
        return probabilities

    @cached_property
    def entropy_rate(self) -> float:
        return math.fsum(surprise(self.probabilities))

    @property
    def min_entropy(self) -> float:
        return -math.log2(self.probabilities.max())

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        random, last = generator(seed), self.alphabet - 1
        while True:
            level = random.standard_normal(BLOCK) * self.deviation + last / 2
            yield np.clip(np.rint(level), 0, last).astype(np.uint16)


def normal_mass(edges: np.ndarray) -> np.ndarray:
    """The standard normal probability of each interval between neighbouring edges.

    Args:
        edges (ndarray (n + 1,), float64): ascending, infinities included.

    Returns:
        ndarray (n,), float64, precise in both tails.
    """
    # by symmetry the tail on the nearer side is subtracted, so small masses lose no digits
    lower = np.array(
        [math.erfc(-edge / math.sqrt(2)) / 2 for edge in np.minimum(edges, 0).tolist()]
    )
    upper = np.array([math.erfc(edge / math.sqrt(2)) / 2 for edge in np.maximum(edges, 0).tolist()])
    # lower is F up to 0 and 1/2 beyond; upper is 1/2 up to 0 and 1 - F beyond
    return np.diff(lower) - np.diff(upper)
