"""A random walk whose steps carry all of its entropy."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from pyseq.data.stream_info import MAX_ALPHABET, Kind
from pyseq.data.streams.independent import normal_mass
from pyseq.data.streams.stream import BLOCK, Stream, check_int, check_number, generator, surprise

FARTHEST = 9  # standard deviations; what lies further out, 2e-19, changes no digit of an entropy


@dataclass(frozen=True)
class RandomWalk(Stream):
    """A walk on a circle of k values: x_t = (x_(t-1) + s_t) mod k.

    The steps s_t are independent, deviation * z rounded to the nearest whole number with z standard
    normal. The first symbol is uniform, and so is every symbol by itself; on the circle nothing
    has to hold the walk back at an edge, so the law of a step is the same everywhere.

    Entropy rate: that of a step mod k, sum_d P(d) log2(1 / P(d)), where P(d) sums the normal masses
    F(s + 1/2) - F(s - 1/2) over all s = d mod k. Min-entropy rate and average min-entropy: -log2 of
    the largest P(d).

    Args:
        alphabet (int): k, 2..65536.
        deviation (float): standard deviation of a step before rounding, 0.01..65536 symbols.
    """

    name: ClassVar[str] = "random_walk"
    kind: ClassVar[Kind] = "values"

    alphabet: int = 4096
    deviation: float = 10.0

    def __post_init__(self) -> None:
        check_int("alphabet", self.alphabet, 2, MAX_ALPHABET)
        check_number("deviation", self.deviation, 0.01, 65_536)

    @cached_property
    def steps(self) -> np.ndarray:
        """P (k,), float64, read-only: how likely each step mod k is."""
        farthest = math.ceil(FARTHEST * self.deviation)
        step = np.arange(-farthest, farthest + 1)
        mass = normal_mass((np.append(step, farthest + 1) - 0.5) / self.deviation)
        steps = np.bincount(step % self.alphabet, weights=mass, minlength=self.alphabet)
        steps.flags.writeable = False
        return steps

    @cached_property
    def entropy_rate(self) -> float:
        return math.fsum(surprise(self.steps))

    @property
    def min_entropy(self) -> float:
        return -math.log2(self.steps.max())

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        random = generator(seed)
        draws = random.standard_normal(BLOCK)
        draws[0] = 0.0  # the first symbol is the start itself
        place = int(random.integers(self.alphabet))
        while True:
            path = place + np.cumsum(np.rint(draws * self.deviation).astype(np.int64))
            path %= self.alphabet
            yield path.astype(np.uint16)
            place = int(path[-1])
            draws = random.standard_normal(BLOCK)
