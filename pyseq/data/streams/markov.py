"""Markov chains of order 1 and 2 with random matrices, and what their entropies need."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from pyseq.data.stream_info import Kind
from pyseq.data.streams.stream import (
    BLOCK,
    Stream,
    check_int,
    check_number,
    generator,
    surprise,
)


@dataclass(frozen=True)
class Markov1(Stream):
    """A stationary order-1 Markov chain: x_t depends on x_(t-1) only, by the matrix P.

    P[i, j] is proportional to (-ln u_ij) ** sharpness, with u_ij uniform draws from `matrix_seed`:
    sharpness 0 gives independent uniform symbols, 1 rows that are uniform on the simplex, more
    gives rows with few likely successors. All P[i, j] are positive, so the stationary distribution
    pi = pi P is unique; the first symbol is drawn from it.

    Entropy rate: sum_i pi_i sum_j P_ij log2(1 / P_ij) (Shannon 1948, theorem 5). Min-entropy rate:
    -log2 of the largest geometric mean of P along a cycle, because the likeliest long sequence
    goes round that cycle (Karp 1978, A characterization of the minimum cycle mean).

    Args:
        alphabet (int): k, 2..1024; P has k x k entries.
        sharpness (float): 0..16, without unit.
        matrix_seed (int): chooses the matrix, at least 0; the stream's own seed chooses the path.
    """

    name: ClassVar[str] = "markov1"
    kind: ClassVar[Kind] = "tokens"

    alphabet: int = 64
    sharpness: float = 3.0
    matrix_seed: int = 0

    def __post_init__(self) -> None:
        check_int("alphabet", self.alphabet, 2, 1024)
        check_number("sharpness", self.sharpness, 0, 16)
        check_int("matrix_seed", self.matrix_seed, 0)

    @cached_property
    def transition(self) -> np.ndarray:
        """P (k, k), float64, read-only: row i holds the probabilities of what follows i."""
        matrix = random_rows((self.alphabet, self.alphabet), self.sharpness, self.matrix_seed)
        matrix.flags.writeable = False
        return matrix

    @cached_property
    def stationary(self) -> np.ndarray:
        """pi (k,), float64, read-only: how often each symbol comes in the long run."""
        pi = stationary_law(self.transition)
        pi.flags.writeable = False
        return pi

    @cached_property
    def entropy_rate(self) -> float:
        return float(self.stationary @ surprise(self.transition).sum(axis=1))

    @cached_property
    def min_entropy(self) -> float:
        return -max_cycle_mean(np.log2(self.transition))

    @property
    def average_min_entropy(self) -> float:
        return -math.log2(self.stationary @ self.transition.max(axis=1))

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        random = generator(seed)
        rows = cumulative_rows(self.transition)
        (row,) = cumulative_rows(self.stationary[None])
        while True:
            path = []
            for draw in random.random(BLOCK).tolist():
                symbol = bisect_right(row, draw)
                path.append(symbol)
                row = rows[symbol]
            yield np.array(path, dtype=np.uint16)


@dataclass(frozen=True)
class Markov2(Stream):
    """A stationary order-2 Markov chain: x_t depends on x_(t-2) and x_(t-1) by the table P.

    P[h, i, j], the probability of j after h and i, is proportional to (-ln u_hij) ** sharpness as
    in `markov1`. The pairs (x_(t-1), x_t) are an order-1 chain on k ** 2 states with a unique
    stationary distribution pi; the first two symbols are drawn from it.

    Entropy rate: sum_hi pi_hi sum_j P_hij log2(1 / P_hij) (Shannon 1948, theorem 5). Min-entropy
    rate: -log2 of the largest geometric mean of P along a cycle of pairs (Karp 1978, A
    characterization of the minimum cycle mean).

    Args:
        alphabet (int): k, 2..32; P has k ** 3 entries.
        sharpness (float): 0..16, without unit.
        matrix_seed (int): chooses the table, at least 0; the stream's own seed chooses the path.
    """

    name: ClassVar[str] = "markov2"
    kind: ClassVar[Kind] = "tokens"

    alphabet: int = 16
    sharpness: float = 3.0
    matrix_seed: int = 0

    def __post_init__(self) -> None:
        check_int("alphabet", self.alphabet, 2, 32)
        check_number("sharpness", self.sharpness, 0, 16)
        check_int("matrix_seed", self.matrix_seed, 0)

    @cached_property
    def transition(self) -> np.ndarray:
        """P (k, k, k), float64, read-only: P[h, i] holds the probabilities of what follows h, i."""
        table = random_rows((self.alphabet,) * 3, self.sharpness, self.matrix_seed)
        table.flags.writeable = False
        return table

    @cached_property
    def stationary(self) -> np.ndarray:
        """pi (k, k), float64, read-only: how often each pair comes in the long run."""
        k = self.alphabet
        pairs = np.zeros((k, k, k, k))  # from (h, i) to (i, j)
        middle = np.arange(k)
        pairs[:, middle, middle] = self.transition
        pi = stationary_law(pairs.reshape(k * k, k * k)).reshape(k, k)
        pi.flags.writeable = False
        return pi

    @cached_property
    def entropy_rate(self) -> float:
        return float((self.stationary * surprise(self.transition).sum(axis=2)).sum())

    @cached_property
    def min_entropy(self) -> float:
        k, weight = self.alphabet, np.log2(self.transition)

        def extend(best: np.ndarray) -> np.ndarray:
            return (best.reshape(k, k, 1) + weight).max(axis=0).ravel()

        return -_heaviest_mean(extend, k * k)

    @property
    def average_min_entropy(self) -> float:
        return -math.log2((self.stationary * self.transition.max(axis=2)).sum())

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        random, k = generator(seed), self.alphabet
        flat = cumulative_rows(self.transition.reshape(k * k, k))
        table = [flat[before * k : (before + 1) * k] for before in range(k)]
        first = self.stationary.sum(axis=1)
        (row,) = cumulative_rows(first[None])
        following = cumulative_rows(self.stationary / first[:, None])
        while True:
            path = []
            for draw in random.random(BLOCK).tolist():
                symbol = bisect_right(row, draw)
                path.append(symbol)
                row = following[symbol]
                following = table[symbol]
            yield np.array(path, dtype=np.uint16)


def random_rows(
    shape: tuple[int, ...], sharpness: float, seed: int, *, spawn_key: int = 1
) -> np.ndarray:
    """Random probabilities along the last axis, proportional to (-ln u) ** sharpness.

    Args:
        shape (tuple of int): of the table.
        sharpness (float): 0 makes all rows uniform, 1 draws them uniformly from the simplex, more
            leaves them few likely entries; no unit.
        seed (int): at least 0.
        spawn_key (int): other keys give independent tables for one seed.

    Returns:
        ndarray (*shape), float64, positive, sums of the last axis 1.
    """
    # the spawn key keeps these draws apart from those of a path with the same seed
    random = generator(np.random.SeedSequence(seed, spawn_key=(spawn_key,)))
    # odd multiples of 2**-53: neither 0 nor 1, so every weight is finite and positive
    draws = (random.integers(2**52, size=shape) + 0.5) / 2**52
    weights = (-np.log(draws)) ** sharpness
    return weights / weights.sum(axis=-1, keepdims=True)


def stationary_law(transition: np.ndarray) -> np.ndarray:
    """pi with pi = pi P and sum 1.

    Args:
        transition (ndarray (n, n), float64): P of a chain with one stationary law.

    Returns:
        ndarray (n,), float64.
    """
    nodes = len(transition)
    equations = np.eye(nodes) - transition.T
    equations[-1] = 1.0  # the last equation follows from the others; the sum takes its place
    return np.linalg.solve(equations, np.eye(nodes)[-1])


def cumulative_rows(rows: np.ndarray) -> list[list[float]]:
    """Inner edges of each row's cumulative distribution, for bisect_right of a draw in [0, 1).

    Args:
        rows (ndarray (n, k), float64): probabilities.

    Returns:
        n lists of k - 1 floats: without the last edge no draw can fall beyond it.
    """
    return [row[:-1].tolist() for row in np.cumsum(rows, axis=1)]


def max_cycle_mean(weight: np.ndarray) -> float:
    """The largest mean weight of a cycle in a graph with an edge between any two nodes.

    Args:
        weight (ndarray (k, k), float64): weight[i, j] of the edge from i to j, loops included.

    Returns:
        float, in the unit of the weights.

    Source: Karp 1978, A characterization of the minimum cycle mean in a digraph, theorem 1, with
    the sign turned and a virtual source before every node.
    """
    return _heaviest_mean(lambda best: (best[:, None] + weight).max(axis=0), len(weight))


def max_cycle_mean_of_words(weight: np.ndarray) -> float:
    """The largest mean weight of a cycle in the graph of n-bit words that shift in one bit.

    Args:
        weight (ndarray (2**n, 2), float64): weight[w, x] of the edge from the word w to
            (2 w + x) mod 2**n.

    Returns:
        float, in the unit of the weights.

    Source: as `max_cycle_mean`.
    """
    words = len(weight)
    ends = np.arange(words)
    one, other = ends >> 1, ends >> 1 | words >> 1  # the two words that shift into each

    def extend(best: np.ndarray) -> np.ndarray:
        return np.maximum(best[one] + weight[one, ends & 1], best[other] + weight[other, ends & 1])

    return _heaviest_mean(extend, words)


def _heaviest_mean(extend: Callable[[np.ndarray], np.ndarray], nodes: int) -> float:
    """Karp's theorem; extend maps the heaviest walks of n edges per end to those of n + 1."""
    best = np.zeros((nodes + 1, nodes))  # best[n, j]: heaviest walk of n edges that ends in j
    for n in range(nodes):
        best[n + 1] = extend(best[n])
    means = (best[nodes] - best[:nodes]) / (nodes - np.arange(nodes))[:, None]
    return float(means.min(axis=0).max())
