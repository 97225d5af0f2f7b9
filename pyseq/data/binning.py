"""From an alphabet of up to 65,536 symbols to fewer classes."""

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pyseq.errors import UserError


@dataclass(frozen=True)
class Binning:
    """Which class each symbol falls in.

    Attributes:
        alphabet (int): symbols are 0..alphabet-1.
        edges (tuple of ints): first symbol of each bin, ascending from 0; None: every symbol is a
            class of its own.
    """

    alphabet: int
    edges: tuple[int, ...] | None = None

    @staticmethod
    def uniform(alphabet: int, bins: int) -> "Binning":
        """Bins of (nearly) equal width over 0..alphabet-1: symbol i falls in i * bins // alphabet.

        Raises:
            UserError: there are fewer than 2 bins, or more bins than symbols.
        """
        _check_bins(alphabet, bins)
        return Binning(alphabet, tuple(-(-b * alphabet // bins) for b in range(bins)))

    @staticmethod
    def adaptive(counts: np.ndarray, bins: int) -> "Binning":
        """Bins that hold about equally many of the symbols that were counted.

        No bin of several counted symbols holds more than the least bound with which `bins` bins
        suffice; a symbol that is more frequent than that has a bin of its own, and the others share
        the rest about evenly. A symbol that was not counted falls in the bin of the next lower one
        that was (below all of them, in the first bin).

        Since the bins are made even on the symbols counted, these look a little more even than
        their law is: where no symbol is frequent, the entropy of N counts over B bins exceeds the
        law's by about B / (2 N) nats.

        Args:
            counts (array (alphabet,), int64): how often each symbol occurs where the model is to
                be trained; nothing else may be counted.
            bins (int): how many; fewer come out where fewer different symbols were counted.

        Returns:
            Binning: every bin holds a symbol that was counted.

        Raises:
            UserError: there are fewer than 2 bins, more bins than symbols, or fewer than two
                different symbols were counted.
        """
        _check_bins(len(counts), bins)
        seen = np.flatnonzero(counts)
        if len(seen) < 2:
            raise UserError(
                f"--binning adaptive: the training range holds {len(seen)} different symbols;"
                " 2 or more fit"
            )
        firsts = _even_cuts(counts[seen], min(bins, len(seen)))
        return Binning(len(counts), (0, *(int(seen[first]) for first in firsts[1:])))

    def is_even_on(self, counts: np.ndarray) -> bool:
        """Whether these are the bins that `adaptive` makes of counts (alphabet,) int64."""
        if self.edges is None or len(self.edges) < 2 or np.count_nonzero(counts) < 2:
            return False
        return Binning.adaptive(counts, len(self.edges)) == self

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return self.alphabet if self.edges is None else len(self.edges)

    def table(self) -> np.ndarray:
        """Class of each symbol, (alphabet,) int64."""
        symbols = np.arange(self.alphabet)
        if self.edges is None:
            return symbols
        return np.searchsorted(np.asarray(self.edges), symbols, side="right") - 1

    def apply(self, symbols: Tensor) -> Tensor:
        """Classes of symbols, int64 of the same shape; symbols must lie in the alphabet."""
        symbols = symbols.long()
        if self.edges is None:
            return symbols
        if symbols.device not in self._tables:  # copied once: a copy at every step would wait
            self._tables[symbols.device] = torch.from_numpy(self.table()).to(symbols.device)
        return self._tables[symbols.device][symbols]

    @cached_property
    def _tables(self) -> dict[torch.device, Tensor]:
        return {}


def _check_bins(alphabet: int, bins: int) -> None:
    if not 2 <= bins <= alphabet:
        raise UserError(
            f"--bins {bins} does not fit an alphabet of {alphabet} symbols;"
            f" 2 to {alphabet} or none fits"
        )


def _even_cuts(counts: np.ndarray, bins: int) -> list[int]:
    """Where to cut positive counts (S,) into `bins` <= S parts that are as even as can be."""
    ends = np.concatenate(([0], np.cumsum(counts)))  # (S + 1,) counts before each cut
    bound = _least_bound(ends, bins)
    # The furthest cut after each cut, and how many parts that leaves necessary.
    furthest = np.searchsorted(ends, ends[:-1] + bound, side="right") - 1
    furthest = np.maximum(furthest, np.arange(1, len(ends)))
    needed = np.zeros(len(ends), np.int64)
    for cut in range(len(furthest) - 1, -1, -1):
        needed[cut] = 1 + needed[furthest[cut]]
    heavy = counts > bound
    light = ends - np.concatenate(([0], np.cumsum(counts * heavy)))
    single = np.concatenate(([0], np.cumsum(heavy)))
    stops = np.append(np.flatnonzero(heavy), len(counts))  # between them lie light counts only
    cuts = [0]
    for left in range(bins - 1, 0, -1):  # parts after this one
        cut = cuts[-1]
        # Parts to come that are no single heavy count share all light ones evenly, and those up to
        # the next heavy count share what lies there.
        sharing = left + 1 - (single[-1] - single[cut])
        share = max(1, (light[-1] - light[cut]) / max(1, sharing))
        stretch = ends[stops[np.searchsorted(stops, cut)]] - ends[cut]
        wanted = ends[cut] + stretch / max(1, round(stretch / share))
        last = min(furthest[cut], len(counts) - left)
        first = max(cut + 1, int(np.searchsorted(-needed, -left)))  # the rest fits from there on
        cuts.append(first + int(np.argmin(np.abs(ends[first : last + 1] - wanted))))
    return cuts


def _least_bound(ends: np.ndarray, bins: int) -> int:
    """The least size to which `bins` parts can be held, where parts of one count may be larger."""
    cumulated = ends.tolist()
    low, high = 0, cumulated[-1]
    while low < high:
        bound = (low + high) // 2
        cut = parts = 0
        while cut < len(cumulated) - 1 and parts <= bins:
            cut = max(cut + 1, bisect_right(cumulated, cumulated[cut] + bound) - 1)
            parts += 1
        low, high = (low, bound) if parts <= bins else (bound + 1, high)
    return low
