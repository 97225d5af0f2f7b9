"""An online mixture of count models: what each symbol costs, given all symbols before it.

Nothing is fitted beforehand and nothing of the future is used: the probability of a symbol is a
function of the symbols before it, over all symbols of the alphabet it sums to 1, and it is never 0.
So the mean code length estimates the entropy rate from above, and the ratio of the probability to
that of a null hypothesis is a test martingale under it.

The experts, each a distribution over the whole alphabet:

- "uniform";
- "order 0", from a tree of bins (what is alike within a bin is learned first) and plain counts;
- "order 1" and up, each an interpolation of its counts with the next shorter order: for up to 16
  symbols all contexts of 16 bits (order 16 for 2 symbols, 4 for 16), up to order 6 for up to 256
  symbols and order 3 beyond, where contexts that recur are kept in a table;
- "lag L", the value at a lag of 2..8, 12, 16, 32 or 64: counts of all pairs for up to 256
  symbols, the last successor of each value beyond;
- "copy", the symbol at one of the last 1,024 places (32 for 2 symbols, 256 for 16, and fewer, down
  to 32, once symbols turn out to stand at many of them);
- "match", what followed the last occurrence of the last 32 bits or more of symbols;
- "favourite", the most frequent symbol so far, all others being alike;
- "period" and "long period", the majority of the symbols 1..16 periods back;
- "difference" and "second difference" of values, modulo the alphabet, for more than 16 and more
  than 256 symbols.

Experts are mixed by Bayes' rule with a small share that goes back to the prior (1/2 for "uniform",
1/4 for "order 0", which others repeat while they have nothing to say, and equal parts for the E - 2
others). With a share of 1 / (16 * 2^floor(log2(t + 64))) after t symbols,
N symbols cost at most

    log2(1 / prior) + log2(1 + N / 64) / 8 + 0.01

bits more than any one expert, so at most 1.01 + log2(1 + N / 64) / 8 (2.8 at N = 10^6) more than
the uniform law; each change to another expert at time t adds at most log2(64 (t + 64) (E - 2)).

Memory: the table of contexts grows with the strings that recur, up to 256 MiB (384 MiB while it
grows), after which no context is added; history and places of matches take up to 96 MiB.

Sources: Herbster and Warmuth 1998, Tracking the best expert; Shamir and Merhav 1999, Low-complexity
sequential lossless coding for piecewise-stationary memoryless sources; Willems, Shtarkov and
Tjalkens 1995, The context-tree weighting method; Teh 2006, A hierarchical Bayesian language model
based on Pitman-Yor processes; Krichevsky and Trofimov 1981; Raftery 1985, A model for high-order
Markov chains (the mixture of lags).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyseq.errors import BackendUnavailable
from pyseq.ops import backends

_AT_ONCE = 1 << 18  # symbols between two chances to interrupt


@dataclass(frozen=True)
class MixtureScores:
    """One entry per symbol, in the order of the stream.

    Attributes:
        bits (array (N,), float64): -log2 of the probability that the symbol was given; at least 0.
        hits (array (N,), bool): whether the one guess made before it was right.
        weights (dict[str, float]): for each expert its weight, averaged over the later half of the
            symbols (the last (N + 1) // 2); they sum to 1.
    """

    bits: NDArray[np.float64]
    hits: NDArray[np.bool_]
    weights: dict[str, float]


class Mixture:
    """A mixture that is fed piece by piece; the pieces' sizes change nothing.

    Threads that share one take turns.

    Args:
        alphabet (int): V, from 1 to 65,536; symbols lie in 0..V-1.

    Raises:
        ValueError: an alphabet out of range.
        BackendUnavailable: pyseq._core is not built.

    Source: the module's docstring.
    """

    def __init__(self, alphabet: int):
        if not 1 <= alphabet <= 65536:
            raise ValueError(f"Mixture: alphabet {alphabet}; it must lie in 1..65536")
        reason = backends.refuse_native()
        if reason is not None:
            raise BackendUnavailable(f"Mixture: needs native code: {reason}")
        self.alphabet = alphabet
        self._native: Any = backends.core().Mixture(alphabet)

    def score(self, symbols: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Code lengths of the next symbols of the stream, and whether they were guessed.

        The guess is, of the experts' own first choices, the one to which those that make it give
        the greatest part of the mixture's probability (experts of weight below 1/100 are not
        asked).

        Args:
            symbols (array (N,), uint16 or other integers): what comes next; N may be 0.

        Returns:
            bits (array (N,), float64): -log2 of the probability of each symbol given all before it.
            hits (array (N,), bool): whether the guess made before it was right.

        Raises:
            ValueError: a symbol outside the alphabet, of which nothing is scored, or a wrong shape.
            TypeError: symbols that are not integers.
        """
        given = _symbols(symbols, self.alphabet)
        bits = np.empty(given.size, dtype=np.float64)
        hits = np.empty(given.size, dtype=np.bool_)
        for first in range(0, given.size, _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            self._native.score(given[part], bits[part], hits[part])
        return bits, hits

    def probabilities(self) -> NDArray[np.float64]:
        """Of each symbol of the alphabet to come next, (V,); they sum to 1.

        `score` never makes this vector: it takes V times as long as a symbol.
        """
        out = np.empty(self.alphabet, dtype=np.float64)
        self._native.probabilities(out)
        return out

    def weights(self) -> dict[str, float]:
        """The experts' present weights, by name; they sum to 1."""
        return dict(zip(self._native.names(), self._native.weights(), strict=True))

    def weight_sums(self) -> dict[str, float]:
        """The experts' weights summed over all symbols so far, by name."""
        return dict(zip(self._native.names(), self._native.weight_sums(), strict=True))


def mixture_scores(symbols: ArrayLike, alphabet: int) -> MixtureScores:
    """Score a stream symbol by symbol, each before it is learned from.

    Args:
        symbols (array (N,), uint16 or other integers): the stream; N may be 0.
        alphabet (int): V, from 1 to 65,536; symbols lie in 0..V-1.

    Returns:
        MixtureScores: bits, hits and the experts' weights.

    Raises:
        ValueError: a symbol outside the alphabet, an alphabet out of range, or a wrong shape.
        TypeError: symbols that are not integers.
        BackendUnavailable: pyseq._core is not built.

    Source: the module's docstring.
    """
    mixture = Mixture(alphabet)
    given = _symbols(symbols, alphabet)
    half = given.size // 2
    bits, hits = mixture.score(given[:half])
    before = mixture.weight_sums()
    later_bits, later_hits = mixture.score(given[half:])
    if given.size == 0:
        weights = mixture.weights()
    else:
        sums = mixture.weight_sums()
        weights = {name: (sums[name] - before[name]) / (given.size - half) for name in sums}
    return MixtureScores(
        np.concatenate([bits, later_bits]), np.concatenate([hits, later_hits]), weights
    )


def _symbols(given: ArrayLike, alphabet: int) -> NDArray[np.uint16]:
    """The symbols as contiguous uint16, checked."""
    symbols = np.asarray(given)
    if symbols.ndim != 1:
        raise ValueError(f"Mixture: symbols have shape {symbols.shape}; they must be (N,)")
    if symbols.size == 0:
        return np.empty(0, dtype=np.uint16)
    if symbols.dtype.kind not in "iu":
        raise TypeError(f"Mixture: symbols are {symbols.dtype}; they must be integers")
    low, high = int(symbols.min()), int(symbols.max())
    if low < 0 or high >= alphabet:
        raise ValueError(
            f"Mixture: symbols hold {low if low < 0 else high}; "
            f"those of an alphabet of {alphabet} lie in 0..{alphabet - 1}"
        )
    return np.ascontiguousarray(symbols, dtype=np.uint16)
