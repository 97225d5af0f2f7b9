"""Named streams with a known entropy rate: the answer that a model or an estimator should find.

A stream is a frozen dataclass of its parameters. The symbols are a pure function of the
parameters and the seed: a shorter stream is the beginning of a longer one, whatever the chunks.
Generators are NumPy's PCG64.
"""

import hmac
import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from hashlib import sha256
from itertools import count as count_from
from typing import Any, ClassVar

import numpy as np
import torch

from pyseq.data.stream_info import MAX_ALPHABET, Kind
from pyseq.errors import UserError

BLOCK = 2**14  # symbols made at a time; part of what a seed means, so it never changes


class Stream(ABC):
    """A source of symbols 0..alphabet-1 with its entropies in bits/symbol."""

    name: ClassVar[str]
    kind: ClassVar[Kind]

    @property
    @abstractmethod
    def alphabet(self) -> int:
        """Number of symbols, 1..65536."""

    @property
    @abstractmethod
    def entropy_rate(self) -> float:
        """Shannon entropy rate in bits/symbol: the least cross-entropy any model can reach."""

    @property
    @abstractmethod
    def min_entropy(self) -> float:
        """Min-entropy rate, lim -log2(max_x P(x_1..x_n)) / n, in bits/symbol."""

    @property
    def average_min_entropy(self) -> float:
        """-log2 of the top-1 accuracy of the best predictor, in bits/symbol.

        It equals the min-entropy where symbols are independent.
        Source: Dodis, Ostrovsky, Reyzin, Smith 2008, Fuzzy extractors, section 2.4.
        """
        return self.min_entropy

    @abstractmethod
    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        """The endless stream in arrays of uint16 whose lengths do not depend on the caller."""

    def chunks(self, count: int, seed: int, chunk: int = 2**20) -> Iterator[np.ndarray]:
        """The first `count` symbols, in pieces.

        Args:
            count (int): number of symbols, at least 0.
            seed (int): at least 0; other seeds give independent streams.
            chunk (int): symbols per piece, at least 1 (the last piece is smaller); it does not
                change the symbols.

        Returns:
            Iterator of ndarray (chunk,), uint16.

        Raises:
            UserError: a number is out of range.
        """
        _check_int("count", count, 0)
        _check_int("seed", seed, 0)
        _check_int("chunk", chunk, 1)
        return _recut(self._blocks(seed), count, chunk)

    def generate(self, count: int, seed: int) -> torch.Tensor:
        """The first `count` symbols at once.

        Args:
            count (int): number of symbols, at least 0.
            seed (int): at least 0.

        Returns:
            Tensor (count,), uint16.

        Raises:
            UserError: a number is out of range.
        """
        whole = next(self.chunks(count, seed, max(count, 1)), np.empty(0, np.uint16))
        return torch.from_numpy(whole)

    def describe(self, seed: int) -> str:
        """One line that tells how to make the stream again.

        Args:
            seed (int): the seed it was or will be made with.

        Returns:
            str, such as "synthetic biased (alphabet 6, bias 0.5), seed 0".
        """
        parameters = ", ".join(f"{key} {value}" for key, value in asdict(self).items())  # type: ignore[call-overload]
        return f"synthetic {self.name} ({parameters}), seed {seed}"


@dataclass(frozen=True)
class Uniform(Stream):
    """Independent draws, each of k symbols alike: both entropies are log2(k).

    Args:
        alphabet (int): k, 1..65536.
    """

    name: ClassVar[str] = "uniform"
    kind: ClassVar[Kind] = "values"

    alphabet: int = 65_536

    def __post_init__(self) -> None:
        _check_int("alphabet", self.alphabet, 1, MAX_ALPHABET)

    @property
    def entropy_rate(self) -> float:
        return math.log2(self.alphabet)

    @property
    def min_entropy(self) -> float:
        return math.log2(self.alphabet)

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        random = _generator(seed)
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

    alphabet: int = 6
    bias: float = 0.5

    def __post_init__(self) -> None:
        _check_int("alphabet", self.alphabet, 2, MAX_ALPHABET)
        _check_number("bias", self.bias, -1, self.alphabet - 1)

    @property
    def favoured(self) -> float:
        """P(0), without unit."""
        return (1 + self.bias) / self.alphabet

    @property
    def entropy_rate(self) -> float:
        p, others = self.favoured, self.alphabet - 1
        return float(_surprise(p) + others * _surprise((1 - p) / others))

    @property
    def min_entropy(self) -> float:
        p = self.favoured
        return math.log2(1 / max(p, (1 - p) / (self.alphabet - 1)))

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        random, p, others = _generator(seed), self.favoured, self.alphabet - 1
        while True:
            draw = random.random(BLOCK)
            # given draw >= p, (draw - p) / (1 - p) is uniform; at bias k - 1 no draw reaches p = 1
            rest = np.maximum(draw - p, 0.0) / max(1 - p, 2.0**-53)
            face = 1 + np.minimum(rest * others, others - 1).astype(np.uint16)
            yield np.where(draw < p, np.uint16(0), face)


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
        _check_int("alphabet", self.alphabet, 2, 1024)
        _check_number("sharpness", self.sharpness, 0, 16)
        _check_int("matrix_seed", self.matrix_seed, 0)

    @cached_property
    def transition(self) -> np.ndarray:
        """P (k, k), float64, read-only: row i holds the probabilities of what follows i."""
        # the spawn key keeps these draws apart from those of a path with the same seed
        random = _generator(np.random.SeedSequence(self.matrix_seed, spawn_key=(1,)))
        # odd multiples of 2**-53: neither 0 nor 1, so every weight is finite and positive
        draws = (random.integers(2**52, size=(self.alphabet, self.alphabet)) + 0.5) / 2**52
        weights = (-np.log(draws)) ** self.sharpness
        matrix = weights / weights.sum(axis=1, keepdims=True)
        matrix.flags.writeable = False
        return matrix

    @cached_property
    def stationary(self) -> np.ndarray:
        """pi (k,), float64, read-only: how often each symbol comes in the long run."""
        equations = np.eye(self.alphabet) - self.transition.T
        equations[-1] = 1.0  # the last equation follows from the others; the sum takes its place
        pi = np.linalg.solve(equations, np.eye(self.alphabet)[-1])
        pi.flags.writeable = False
        return pi

    @cached_property
    def entropy_rate(self) -> float:
        return float(self.stationary @ _surprise(self.transition).sum(axis=1))

    @cached_property
    def min_entropy(self) -> float:
        return -max_cycle_mean(np.log2(self.transition))

    @property
    def average_min_entropy(self) -> float:
        return -math.log2(self.stationary @ self.transition.max(axis=1))

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        random = _generator(seed)
        # inverse cumulative distributions; without the last edge no draw can fall beyond it
        rows = [row[:-1].tolist() for row in np.cumsum(self.transition, axis=1)]
        first = np.cumsum(self.stationary)[:-1].tolist()
        row = first
        while True:
            path = []
            for draw in random.random(BLOCK).tolist():
                symbol = bisect_right(row, draw)
                path.append(symbol)
                row = rows[symbol]
            yield np.array(path, dtype=np.uint16)


@dataclass(frozen=True)
class HmacRolls(Stream):
    """Rolls 0..10000 as "provably fair" games make them: a negative control.

    Roll n is floor(10001 u / 2**32), with u the first 4 bytes, big-endian, of
    HMAC-SHA256(server_seed, "client_seed:n:0"). The key is the ASCII text of the server seed, here
    the hexadecimal SHA-256 of the decimal seed of the stream.

    The entropies are those of uniform 32-bit u: roll r has exactly
    ceil(2**32 (r + 1) / 10001) - ceil(2**32 r / 10001) values of u, 429453 or 429454. Whoever does
    not hold the server seed cannot tell the rolls from that (as far as is known of SHA-256).

    Args:
        client_seed (str): the part of the message that the player chooses.
    """

    name: ClassVar[str] = "hmac_rolls"
    kind: ClassVar[Kind] = "values"
    sides: ClassVar[int] = 10_001

    client_seed: str = "pyseq"

    @property
    def alphabet(self) -> int:
        return self.sides

    @cached_property
    def probabilities(self) -> np.ndarray:
        """P (10001,), float64, read-only: exact multiples of 2**-32."""
        edges = -((-np.arange(self.sides + 1) << 32) // self.sides)
        probabilities = np.diff(edges) / 2.0**32
        probabilities.flags.writeable = False
        return probabilities

    @property
    def entropy_rate(self) -> float:
        return math.fsum(_surprise(self.probabilities))

    @property
    def min_entropy(self) -> float:
        return -math.log2(self.probabilities.max())

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        server_seed = sha256(str(seed).encode()).hexdigest()
        for start in count_from(0, BLOCK):
            yield hmac_roll(server_seed, self.client_seed, range(start, start + BLOCK))


def hmac_roll(server_seed: str, client_seed: str, nonces: range) -> np.ndarray:
    """Rolls 0..10000 of one server seed and client seed, cursor 0.

    Args:
        server_seed (str): the HMAC key, as its UTF-8 text (not decoded from hexadecimal).
        client_seed (str): first part of the message "client_seed:nonce:0".
        nonces (range): which rolls.

    Returns:
        ndarray (len(nonces),), uint16.
    """
    keyed = hmac.new(server_seed.encode(), digestmod="sha256")
    before = f"{client_seed}:".encode()
    heads = bytearray()
    for nonce in nonces:
        mac = keyed.copy()
        mac.update(b"%b%d:0" % (before, nonce))
        heads += mac.digest()[:4]
    fractions = np.frombuffer(heads, dtype=">u4").astype(np.uint64)
    return ((fractions * np.uint64(HmacRolls.sides)) >> np.uint64(32)).astype(np.uint16)


STREAMS: dict[str, type[Stream]] = {
    stream.name: stream for stream in (Uniform, Biased, Markov1, HmacRolls)
}


def make(name: str, **parameters: Any) -> Stream:
    """A stream by its name.

    Args:
        name (str): a key of STREAMS.
        **parameters: the fields of its dataclass; what is left out keeps its default.

    Returns:
        Stream.

    Raises:
        UserError: unknown name or parameter, or a parameter out of range.
    """
    if name not in STREAMS:
        raise UserError(f"there is no stream {name!r}; known are {', '.join(sorted(STREAMS))}")
    known = [field.name for field in fields(STREAMS[name])]  # type: ignore[arg-type]
    unknown = [key for key in parameters if key not in known]
    if unknown:
        raise UserError(f"stream {name} has no {', '.join(unknown)}; it has {', '.join(known)}")
    return STREAMS[name](**parameters)


def max_cycle_mean(weight: np.ndarray) -> float:
    """The largest mean weight of a cycle in a graph with an edge between any two nodes.

    Args:
        weight (ndarray (k, k), float64): weight[i, j] of the edge from i to j, loops included.

    Returns:
        float, in the unit of the weights.

    Source: Karp 1978, A characterization of the minimum cycle mean in a digraph, theorem 1, with
    the sign turned and a virtual source before every node.
    """
    k = len(weight)
    best = np.zeros((k + 1, k))  # best[n, j]: heaviest walk of n edges that ends in j
    for n in range(k):
        best[n + 1] = (best[n][:, None] + weight).max(axis=0)
    means = (best[k] - best[:k]) / (k - np.arange(k))[:, None]
    return float(means.min(axis=0).max())


def _recut(blocks: Iterator[np.ndarray], count: int, chunk: int) -> Iterator[np.ndarray]:
    """The first `count` symbols of endless blocks, in arrays of `chunk`."""
    block = np.empty(0, np.uint16)
    while count:
        whole = np.empty(min(chunk, count), np.uint16)
        filled = 0
        while filled < whole.size:
            if not block.size:
                block = next(blocks)
            part = block[: whole.size - filled]
            whole[filled : filled + part.size] = part
            filled += part.size
            block = block[part.size :]
        yield whole
        count -= whole.size


def _generator(seed: int | np.random.SeedSequence) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def _surprise(probability: Any) -> np.ndarray:
    """-p log2(p) elementwise, 0 at p = 0."""
    p = np.asarray(probability, dtype=np.float64)
    return p * np.log2(1 / np.where(p > 0, p, 1.0))


def _check_int(name: str, value: object, low: int, high: int | None = None) -> None:
    fits = f"a whole number in {low}..{high}" if high is not None else f"a whole number >= {low}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{name} is {value!r}; {fits} fits")
    if value < low or (high is not None and value > high):
        raise UserError(f"{name} is {value}; {fits} fits")


def _check_number(name: str, value: object, low: float, high: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and low <= value <= high):  # type: ignore[operator]
        raise UserError(f"{name} is {value!r}; a number in {low}..{high} fits")
