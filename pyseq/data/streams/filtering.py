"""Bounds of what the whole past tells about the next symbol of a chain of two hidden states.

The filter b = P(state 1 | past) decides everything: the next symbol x has probability
p(x | b) = (1 - b) B[0, x] + b B[1, x], and after it the filter is
next(b, x) = ((1 - b) B[0, x] A[0, 1] + b B[1, x] A[1, 1]) / p(x | b).

For a concave f (the entropy of the next symbol) the mean of f(b_n), as a function of where the
filter starts, is concave again, since filtering is linear before it is divided. So filters that are
merged into their mean can only raise it, and a filter that is split into two around it, with the
same mean, can only lower it. For a convex f (the probability of the likeliest symbol) it is the
other way round.
"""

import math
from typing import NamedTuple

import numpy as np

from pyseq.data.streams.stream import surprise
from pyseq.errors import UserError

TOLERANCE = 1e-4  # bits between the bounds
CELLS = (2**10, 2**12, 2**14, 2**16)  # grids tried in turn
MAX_STEPS = 4000  # of the filter; states that are left once in 200 steps are forgotten long before
CHECKED_EVERY = 20  # steps


class Bounds(NamedTuple):
    """lower <= the truth <= upper."""

    lower: float
    upper: float

    @property
    def middle(self) -> float:
        """Halfway; at most half of `width` from the truth."""
        return (self.lower + self.upper) / 2

    @property
    def width(self) -> float:
        """upper - lower."""
        return self.upper - self.lower


class HiddenChain(NamedTuple):
    """Two hidden states: pi (2,), A (2, 2) and B (2, k), float64, all positive."""

    stationary: np.ndarray
    transition: np.ndarray
    emission: np.ndarray

    def filtered(self, beliefs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """p(x | b) and next(b, x), both (k, n), of filters (n,)."""
        first = (1 - beliefs) * self.emission[0][:, None]
        second = beliefs * self.emission[1][:, None]
        chances = first + second
        following = (first * self.transition[0, 1] + second * self.transition[1, 1]) / chances
        return chances, following


def prediction_bounds(chain: HiddenChain) -> tuple[Bounds, Bounds]:
    """How well the next symbol is known, given the whole past.

    Args:
        chain (HiddenChain): what emits the symbols.

    Returns:
        Bounds of the entropy rate in bits/symbol, and of the accuracy of the best guess (no unit);
        those of the entropy and of -log2 of the accuracy are at most 1e-4 bits apart.

    Raises:
        UserError: the states are forgotten too slowly for that.
    """
    for cells in CELLS:
        merged, split = _Merged(chain, cells), _Split(chain, cells)
        previous = (0.0, 0.0)
        for step in range(1, MAX_STEPS + 1):
            merged.advance()
            split.advance()
            if step % CHECKED_EVERY:
                continue
            (high, poorer), (low, better) = merged.prediction(), split.prediction()
            bounds = Bounds(low, high), Bounds(poorer, better)
            if high - low <= TOLERANCE and math.log2(better / poorer) <= TOLERANCE:
                return bounds
            # the bounds hold after any number of steps; once they stand still, cells are too wide
            if max(abs(high - previous[0]), abs(low - previous[1])) < TOLERANCE / 1000:
                break
            previous = high, low
    raise UserError(
        f"bounds of the entropy rate stay {bounds[0].width:.2g} bits apart; states that differ"
        " less, or are left more often, fit"
    )


class _Merged:
    """The law of the filter from no past, with all filters of a cell in their mean."""

    def __init__(self, chain: HiddenChain, cells: int) -> None:
        self._chain, self._cells = chain, cells
        self._beliefs = np.array([chain.stationary[1]])
        self._weights: np.ndarray = np.ones(1)

    def advance(self) -> None:
        chances, following = self._chain.filtered(self._beliefs)
        weights, following = (chances * self._weights).ravel(), following.ravel()
        cell = np.minimum(following * self._cells, self._cells - 1).astype(np.int64)
        mass = np.bincount(cell, weights, self._cells)
        moment = np.bincount(cell, weights * following, self._cells)
        held = mass > 0
        self._weights = mass[held]
        self._beliefs = moment[held] / self._weights

    def prediction(self) -> tuple[float, float]:
        return _prediction(self._chain, self._beliefs, self._weights)


class _Split:
    """The law of the filter from a known state, each filter split between two points of a grid."""

    def __init__(self, chain: HiddenChain, cells: int) -> None:
        self._chain = chain
        self._points = np.linspace(0, 1, cells + 1)
        self._weights: np.ndarray = np.zeros(cells + 1)
        self._weights[[0, -1]] = chain.stationary
        self._chances, following = chain.filtered(self._points)
        self._below = np.minimum(following * cells, cells - 1).astype(np.int64)
        self._share = following * cells - self._below  # of the point above

    def advance(self) -> None:
        weights = self._chances * self._weights
        above = weights * self._share
        size = self._weights.size
        self._weights = np.bincount(self._below.ravel(), (weights - above).ravel(), size)
        self._weights += np.bincount(self._below.ravel() + 1, above.ravel(), size)

    def prediction(self) -> tuple[float, float]:
        return _prediction(self._chain, self._points, self._weights)


def _prediction(
    chain: HiddenChain, beliefs: np.ndarray, weights: np.ndarray
) -> tuple[float, float]:
    """Mean entropy of the next symbol, bits, and mean probability of the likeliest."""
    chances, _ = chain.filtered(beliefs)
    entropy = weights @ surprise(chances).sum(axis=0)
    return float(entropy), float(weights @ chances.max(axis=0))


def likeliest_growth(chain: HiddenChain) -> Bounds:
    """lim log2(max P(x_1..x_n)) / n.

    V_n(b), the probability of the likeliest n symbols from filter b, obeys
    V_(n+1)(b) = max_x p(x | b) V_n(next(b, x)) and is convex, as a maximum of linear functions.
    Any convex V that is positive will do: interpolated on a grid it can only grow, so if one more
    step multiplies it by at most c at every point, the growth is at most log2(c). From below, a
    word that is repeated for ever grows by log2(spectral radius of its matrix) per repetition;
    words are cut from the sequence that V takes for the likeliest.

    Args:
        chain (HiddenChain): what emits the symbols.

    Returns:
        Bounds in bits/symbol, at most 1e-4 apart; both are negative or 0.

    Raises:
        UserError: no such bounds were found.
    """
    lower, upper = -math.inf, math.inf
    for cells in CELLS:
        points = np.linspace(0, 1, cells + 1)
        chances, following = chain.filtered(points)
        gain = np.log2(chances)
        value = np.zeros(cells + 1)  # log2 V up to a constant
        previous = math.inf
        for step in range(1, MAX_STEPS + 1):
            ahead = np.exp2(value)
            longer = (gain + np.log2(np.interp(following, points, ahead))).max(axis=0)
            growth = longer - value
            upper = min(upper, float(growth.max()))
            # the mean of V and the longer V, scaled alike, stands still where V alone would swing
            # between the states of a likeliest sequence that alternates
            value = np.logaddexp2(value, longer - (growth.max() + growth.min()) / 2)
            value -= value.max()
            if step % CHECKED_EVERY == 0:
                # where a step gains most, the best repetition is near before all of V knows it
                start = float(points[growth.argmax()])
                lower = max(lower, _best_repetition(chain, points, np.exp2(value), start))
                if upper - lower <= TOLERANCE:
                    return Bounds(lower, upper)
                if previous - upper < TOLERANCE / 1000:  # as far as this grid goes
                    break
                previous = upper
    raise UserError(
        f"bounds of the min-entropy rate stay {upper - lower:.2g} bits apart; states that differ"
        " less, or are left more often, fit"
    )


def _best_repetition(
    chain: HiddenChain, points: np.ndarray, value: np.ndarray, belief: float
) -> float:
    """Growth in bits/symbol of the best word, up to 64 symbols, of the sequence that V prefers."""
    word = []
    for _ in range(160):
        chances, following = chain.filtered(np.array([belief]))
        symbol = int((chances[:, 0] * np.interp(following[:, 0], points, value)).argmax())
        word.append(symbol)
        belief = float(following[symbol, 0])
    steps = chain.emission.T[:, :, None] * chain.transition  # (k, 2, 2): emit, then move on
    best = -math.inf
    for start in (64, 96):  # the beginning depends on where the filter started
        product, scale = np.eye(2), 0.0
        for length in range(1, 65):
            product = product @ steps[word[start + length - 1]]
            size = product.max()
            product, scale = product / size, scale + math.log2(size)
            radius = float(np.abs(np.linalg.eigvals(product)).max())
            best = max(best, (scale + math.log2(radius)) / length)
    return best
