"""One pass over every symbol of a stream: the counts and sums that the tests read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pyseq.analysis.randomness.views import SYMBOLS, quantile_bins
from pyseq.errors import BackendUnavailable
from pyseq.ops import backends

LAGS = 64
GAP_CLASSES = 16
GAPS = 512
CHUNK = 1 << 22  # symbols read at once, 8 MiB
FIRST_LOOK = 1 << 16  # symbols whose median and quantiles decide what the later ones count as


@dataclass(frozen=True)
class PassCounts:
    """What the first N symbols of a stream gave.

    Attributes:
        symbols (int): N.
        histogram (array (65536,), int64).
        pairs (array (4, 256, 256), int64): bytes of neighbours (first, second): high and high, low
            and low, high and low, low and high.
        gaps (array (16, 512), int64): [c, g - 1]: how often class c came again after g symbols; the
            last column counts all gaps of 512 and more.
        class_of (array (65536,), uint8): those classes.
        products (array (64,), int64): [k - 1]: sum of c_t c_(t-k), with c = symbol - 32768.
        equals (array (64,), int64): [k - 1]: how often x_t = x_(t-k).
        first, last (arrays (<= 64,), int64): symbols at both ends.
        threshold (int): symbols above it are "above".
        above (int), runs (int): how many are above; maximal stretches on one side of it.
        longest_above, longest_not_above, longest_equal (int): longest stretches.
        longest_symbol (int): of which the longest stretch of equal symbols is.
    """

    symbols: int
    histogram: NDArray[np.int64]
    pairs: NDArray[np.int64]
    gaps: NDArray[np.int64]
    class_of: NDArray[np.uint8]
    products: NDArray[np.int64]
    equals: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    threshold: int
    above: int
    runs: int
    longest_above: int
    longest_not_above: int
    longest_equal: int
    longest_symbol: int


class Symbols(Protocol):
    """What is read: a U16Stream, or anything that hands out its symbols."""

    def __len__(self) -> int: ...

    def __getitem__(self, window: slice, /) -> torch.Tensor:
        """Symbols [a:b], (b - a,) uint16."""


class StreamPass:
    """Counts symbols that are added piece by piece.

    Thresholds and classes come from the first symbols added, by their counts only, so that the
    order of these decides nothing. Of a longer stream they are no function of its whole histogram,
    as exchangeability given that would have it; what 65,536 symbols more or less above a threshold
    that they chose do to the law of later ones is far below what any test can see.

    Args:
        first_look (array (M,), uint16): the first symbols of the stream, M >= 1.

    Raises:
        BackendUnavailable: pyseq._core was not built.
    """

    def __init__(self, first_look: NDArray[np.uint16]):
        counts = np.bincount(first_look, minlength=SYMBOLS)
        self._threshold = _median(counts)
        self._class_of = quantile_bins(counts, GAP_CLASSES).table.astype(np.uint8)
        self._pass = native_core().SymbolPass(self._threshold, self._class_of)

    def add(self, symbols: NDArray[np.uint16]) -> None:
        """Count the next symbols (M,)."""
        self._pass.add(np.ascontiguousarray(symbols), torch.get_num_threads())

    def counts(self) -> PassCounts:
        """Everything up to here."""
        taken = self._pass
        return PassCounts(
            symbols=len(taken),
            histogram=taken.histogram,
            pairs=taken.pairs.reshape(4, 256, 256),
            gaps=taken.gaps.reshape(GAP_CLASSES, GAPS),
            class_of=self._class_of,
            products=taken.products,
            equals=taken.equals,
            first=taken.first.astype(np.int64),
            last=taken.last.astype(np.int64),
            threshold=self._threshold,
            above=taken.above,
            runs=taken.runs,
            longest_above=taken.longest_above,
            longest_not_above=taken.longest_not_above,
            longest_equal=taken.longest_equal,
            longest_symbol=taken.longest_symbol,
        )


def pieces(stream: Symbols, count: int) -> Iterator[NDArray[np.uint16]]:
    """The first `count` symbols, cut at powers of two and every CHUNK symbols."""
    start = 0
    while start < count:
        doubled = 1 << max(16, start.bit_length())
        stop = min(start + CHUNK, count, doubled)
        yield stream[start:stop].numpy()
        start = stop


def native_core() -> ModuleType:
    """pyseq._core.

    Raises:
        BackendUnavailable: it was not built, or does not load.
    """
    reason = backends.refuse_native()
    if reason is not None:
        raise BackendUnavailable(f"the analysis is native code: {reason}")
    return backends.core()


def _median(counts: NDArray[np.int64]) -> int:
    """A symbol that about half of those counted do not exceed, and some do where any can."""
    cumulated = np.cumsum(counts)
    middle = int(np.searchsorted(cumulated, cumulated[-1] / 2))
    seen = np.flatnonzero(counts)
    return int(min(middle, seen[-2])) if len(seen) > 1 else middle
