"""From an alphabet of up to 65,536 symbols to fewer classes."""

from dataclasses import dataclass

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
        if not 2 <= bins <= alphabet:
            raise UserError(
                f"--bins {bins} does not fit an alphabet of {alphabet} symbols;"
                f" 2 to {alphabet} or none fits"
            )
        return Binning(alphabet, tuple(-(-b * alphabet // bins) for b in range(bins)))

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
        return torch.from_numpy(self.table()).to(symbols.device)[symbols]
