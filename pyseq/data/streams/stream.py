"""What every named stream promises, and the checks and draws that streams share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import torch

from pyseq.data.stream_info import Kind
from pyseq.errors import UserError

BLOCK = 2**14  # symbols made at a time; part of what a seed means, so it never changes


class Stream(ABC):
    """A source of symbols 0..alphabet-1 with its entropies in bits/symbol.

    Class attributes:
        name (str): the key in STREAMS.
        kind ("values" | "tokens"): whether the magnitude of a symbol means something.
        independent (bool): whether symbols are independent draws (or, of cryptographic generators,
            cannot be told from them as far as is known), so that the past never helps; False even
            where one choice of parameters takes the dependence away.
        reproducible (bool): whether the same seed gives the same symbols again.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    independent: ClassVar[bool] = False
    reproducible: ClassVar[bool] = True

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
            seed (int): at least 0; other seeds give independent streams, or, of a generator with
                one long cycle, other places to start on it.
            chunk (int): symbols per piece, at least 1 (the last piece is smaller); it does not
                change the symbols.

        Returns:
            Iterator of ndarray (chunk,), uint16.

        Raises:
            UserError: a number is out of range.
        """
        check_int("count", count, 0)
        check_int("seed", seed, 0)
        check_int("chunk", chunk, 1)
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
        shown = f" ({parameters})" if parameters else ""
        return f"synthetic {self.name}{shown}, seed {seed}"


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


def generator(seed: int | np.random.SeedSequence) -> np.random.Generator:
    """NumPy's PCG64, whose draws are part of what a seed means."""
    return np.random.Generator(np.random.PCG64(seed))


def surprise(probability: Any) -> np.ndarray:
    """-p log2(p) elementwise, 0 at p = 0."""
    p = np.asarray(probability, dtype=np.float64)
    return p * np.log2(1 / np.where(p > 0, p, 1.0))


def die_entropy(favoured: float, others: int) -> float:
    """Bits/roll of a die with P(one face) = favoured and the other faces alike."""
    return float(surprise(favoured) + others * surprise((1 - favoured) / others))


def check_int(name: str, value: object, low: int, high: int | None = None) -> None:
    """UserError unless the parameter is an int in low..high."""
    fits = f"a whole number in {low}..{high}" if high is not None else f"a whole number >= {low}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{name} is {value!r}; {fits} fits")
    if value < low or (high is not None and value > high):
        raise UserError(f"{name} is {value}; {fits} fits")


def check_number(name: str, value: object, low: float, high: float) -> None:
    """UserError unless the parameter is a number in low..high."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and low <= value <= high):  # type: ignore[operator]
        raise UserError(f"{name} is {value!r}; a number in {low}..{high} fits")
