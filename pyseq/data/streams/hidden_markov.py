"""Symbols of two hidden states, with entropies between bounds that are computed, not sampled."""

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from pyseq.data.stream_info import Kind
from pyseq.data.streams.filtering import Bounds, HiddenChain, likeliest_growth, prediction_bounds
from pyseq.data.streams.markov import cumulative_rows, random_rows
from pyseq.data.streams.stream import BLOCK, Stream, check_int, check_number, generator
from pyseq.errors import UserError


@dataclass(frozen=True)
class HiddenMarkov(Stream):
    """A hidden chain of two states, each with its own law of symbols (Gilbert and Elliott's kind).

    Before every symbol but the first, state s is left for the other with probability leave[s].
    State s emits symbol x with probability B[s, x], proportional to (-ln u_sx) ** sharpness as in
    `markov1`. The first state is drawn from the stationary law (leave[1], leave[0]) / their sum.

    No closed form of the entropies is known. The entropy rate is the mean entropy of the next
    symbol given the filter b_t = P(state 1 | past), a Markov chain on [0, 1]; it lies between
    H(X_n | X_1..X_(n-1), S_1) and H(X_n | X_1..X_(n-1)) (Cover, Thomas 2006, theorem 4.5.1), and
    both are bounded in turn on a grid of filters (`filtering.prediction_bounds`), as is the
    accuracy behind the average min-entropy. For the min-entropy rate, -log2 of the growth of the
    likeliest sequence, `filtering.likeliest_growth` has bounds of its own. The properties are
    middles of bounds at most 1e-4 bits apart.

    Args:
        alphabet (int): k, 2..64.
        leave (tuple of two float): probability to leave states 0 and 1 at a step, 0.005..0.995.
        sharpness (float): 0..4, without unit.
        matrix_seed (int): chooses B, at least 0; the stream's own seed chooses the path.
    """

    name: ClassVar[str] = "hidden_markov"
    kind: ClassVar[Kind] = "tokens"

    alphabet: int = 4
    leave: tuple[float, float] = (0.05, 0.1)
    sharpness: float = 2.0
    matrix_seed: int = 0

    def __post_init__(self) -> None:
        check_int("alphabet", self.alphabet, 2, 64)
        if not isinstance(self.leave, tuple) or len(self.leave) != 2:
            raise UserError(f"leave is {self.leave!r}; a tuple of two numbers fits")
        for leave in self.leave:
            check_number("a number of leave", leave, 0.005, 0.995)
        check_number("sharpness", self.sharpness, 0, 4)
        check_int("matrix_seed", self.matrix_seed, 0)

    @cached_property
    def emission(self) -> np.ndarray:
        """B (2, k), float64, read-only: row s holds the probabilities of what state s emits."""
        emission = random_rows((2, self.alphabet), self.sharpness, self.matrix_seed)
        emission.flags.writeable = False
        return emission

    @cached_property
    def transition(self) -> np.ndarray:
        """A (2, 2), float64, read-only: row s holds the probabilities of the state after s."""
        first, second = self.leave
        transition = np.array([[1 - first, first], [second, 1 - second]])
        transition.flags.writeable = False
        return transition

    @property
    def stationary(self) -> np.ndarray:
        """pi (2,), float64: how often each state comes in the long run."""
        return np.array([self.leave[1], self.leave[0]]) / sum(self.leave)

    @property
    def _chain(self) -> HiddenChain:
        return HiddenChain(self.stationary, self.transition, self.emission)

    @cached_property
    def _predictions(self) -> tuple[Bounds, Bounds]:
        return prediction_bounds(self._chain)

    @property
    def entropy_bounds(self) -> Bounds:
        """(lower, upper) of the entropy rate, bits/symbol."""
        return self._predictions[0]

    @property
    def average_min_entropy_bounds(self) -> Bounds:
        """(lower, upper) of the average min-entropy, bits/symbol."""
        accuracy = self._predictions[1]
        return Bounds(-math.log2(accuracy.upper), -math.log2(accuracy.lower))

    @cached_property
    def min_entropy_bounds(self) -> Bounds:
        """(lower, upper) of the min-entropy rate, bits/symbol."""
        growth = likeliest_growth(self._chain)
        return Bounds(-growth.upper, -growth.lower)

    @property
    def entropy_rate(self) -> float:
        return self.entropy_bounds.middle

    @property
    def min_entropy(self) -> float:
        return self.min_entropy_bounds.middle

    @property
    def average_min_entropy(self) -> float:
        return self.average_min_entropy_bounds.middle

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        random = generator(seed)
        edges = np.array(cumulative_rows(self.emission))
        leave = self.leave
        state = bisect_right([float(self.stationary[0])], random.random())
        while True:
            states = []
            for draw in random.random(BLOCK).tolist():
                states.append(state)
                if draw < leave[state]:
                    state = 1 - state
            draws = random.random(BLOCK)
            symbols = [np.searchsorted(row, draws, side="right") for row in edges]
            yield np.where(np.array(states, bool), symbols[1], symbols[0]).astype(np.uint16)
