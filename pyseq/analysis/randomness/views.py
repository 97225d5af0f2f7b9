"""Views of a symbol: functions of it that may show structure which the whole symbol hides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SYMBOLS = 65_536


@dataclass(frozen=True, eq=False)
class View:
    """A function of the symbol.

    Attributes:
        name (str): such as "low byte".
        table (array (65536,), uint16): what it makes of each symbol.
        classes (int): its values lie in 0..classes-1.
    """

    name: str
    table: NDArray[np.uint16]
    classes: int

    def fold(self, per_symbol: NDArray) -> NDArray:
        """Sums over symbols (65536,) by class, (classes,), of the same dtype."""
        folded = np.zeros(self.classes, per_symbol.dtype)
        np.add.at(folded, self.table, per_symbol)
        return folded


def bits_of(alphabet: int) -> int:
    """How many bits a symbol below `alphabet` takes, 1..16."""
    return max(1, int(alphabet - 1).bit_length())


def shifted(bits: int) -> View:
    """symbol >> bits: the scale of 2**bits symbols."""
    return View(f"symbols >> {bits}", (np.arange(SYMBOLS) >> bits).astype(np.uint16),
                max(1, SYMBOLS >> bits))  # fmt: skip


def low_bits(bits: int) -> View:
    """The lowest bits of a symbol."""
    return View(f"low {bits} bits" if bits > 1 else "low bit",
                (np.arange(SYMBOLS) & (2**bits - 1)).astype(np.uint16), 2**bits)  # fmt: skip


def plane(bit: int) -> View:
    """One bit of a symbol, 0 the lowest."""
    return View(f"bit {bit}", (np.arange(SYMBOLS) >> bit & 1).astype(np.uint16), 2)


def parity() -> View:
    """Whether a symbol has an odd number of ones: what no bit alone shows."""
    bits = np.arange(SYMBOLS)[:, None] >> np.arange(16) & 1
    return View("parity of the bits", (bits.sum(axis=1) & 1).astype(np.uint16), 2)


def quantile_bins(histogram: NDArray[np.int64], classes: int) -> View:
    """Bins of neighbouring symbols that hold about equally many of the symbols counted.

    Args:
        histogram (array (65536,), int64): of the symbols that decide; at least one.
        classes (int): bins wanted, 2..256; fewer come out where single symbols are frequent.

    Returns:
        View: empty bins are left out.
    """
    before = np.cumsum(histogram) - histogram
    middle = (before + histogram / 2) / max(1, int(histogram.sum()))
    wanted = np.minimum((middle * classes).astype(np.int64), classes - 1)
    # Bins that no counted symbol falls into are closed up.
    used = np.unique(wanted[histogram > 0])
    place = np.searchsorted(used, wanted, side="right") - 1
    table = np.maximum(place, 0).astype(np.uint16)
    return View(f"{len(used)} bins", table, max(1, len(used)))
