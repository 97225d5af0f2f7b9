"""A pattern that comes round again, under noise."""

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
)


@dataclass(frozen=True)
class Periodic(Stream):
    """A fixed pattern of P symbols for ever; each symbol is lost to noise with one probability.

    x_t = pattern[(t + phase) mod P], or, with probability `noise`, a uniform symbol instead. The
    pattern is uniform draws from `pattern_seed` (so it may have a shorter period, where it is
    short and symbols are few); the phase is uniform.

    Given the phase, which takes at most log2(P) bits in all, symbols are independent, and the one
    of the pattern has probability p = 1 - noise + noise / k. Entropy rate: -p log2(p)
    - (1 - p) log2((1 - p) / (k - 1)); min-entropy rate and average min-entropy: -log2(p).

    Args:
        alphabet (int): k, 2..65536.
        period (int): P, 1..2**20 symbols.
        noise (float): probability of a uniform symbol, 0..1.
        pattern_seed (int): chooses the pattern, at least 0; the stream's own seed chooses phase
            and noise.
    """

    name: ClassVar[str] = "periodic"
    kind: ClassVar[Kind] = "tokens"

    alphabet: int = 256
    period: int = 100
    noise: float = 0.5
    pattern_seed: int = 0

    def __post_init__(self) -> None:
        check_int("alphabet", self.alphabet, 2, MAX_ALPHABET)
        check_int("period", self.period, 1, 2**20)
        check_number("noise", self.noise, 0, 1)
        check_int("pattern_seed", self.pattern_seed, 0)

    @cached_property
    def pattern(self) -> np.ndarray:
        """The pattern (P,), uint16, read-only."""
        # the spawn key keeps these draws apart from those of the noise with the same seed
        random = generator(np.random.SeedSequence(self.pattern_seed, spawn_key=(1,)))
        pattern = random.integers(self.alphabet, size=self.period, dtype=np.uint16)
        pattern.flags.writeable = False
        return pattern

    @property
    def expected(self) -> float:
        """P(x_t = the symbol of the pattern), without unit."""
        return 1 - self.noise + self.noise / self.alphabet

    @property
    def entropy_rate(self) -> float:
        return die_entropy(self.expected, self.alphabet - 1)

    @property
    def min_entropy(self) -> float:
        return -math.log2(self.expected)

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        random = generator(seed)
        phase = int(random.integers(self.period))
        rounds = np.resize(self.pattern, self.period + BLOCK)  # any phase has a block ahead of it
        while True:
            lost = random.random(BLOCK) < self.noise
            noise = random.integers(self.alphabet, size=BLOCK, dtype=np.uint16)
            yield np.where(lost, noise, rounds[phase : phase + BLOCK])
            phase = (phase + BLOCK) % self.period
