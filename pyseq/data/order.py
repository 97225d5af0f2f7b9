"""The order of windows in an epoch, as a pure function of (seed, epoch, index)."""

from functools import cached_property
from typing import Any

import numpy as np

from pyseq.ops import backends

ROUNDS = 8
TABLE_SIZE = 1 << 16  # up to here an exactly uniform table is small (512 KiB) and simplest
_MASK64 = (1 << 64) - 1


class WindowOrder:
    """A keyed permutation of 0..windows-1 that is never stored.

    Index i goes through a Feistel network on the smallest power of two that holds `windows`, again
    until it lands inside (cycle-walking, under two rounds on average): a bijection, so an epoch
    visits every window once, in O(1) memory, and any part of the order can be had at once. Up to
    65,536 windows, where so short a cipher would favour some permutations, the order is a table
    sorted by keyed hashes instead.

    Args:
        windows (int): how many there are, at least 1.
        seed (int): chooses the family of orders.
        epoch (int): chooses one of the family.
        shuffle (bool): False gives 0, 1, 2, ... for every seed and epoch.

    Source: Black and Rogaway 2002, Ciphers with arbitrary finite domains; the mixing function is
    the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
    """

    def __init__(self, windows: int, seed: int, epoch: int, *, shuffle: bool = True):
        if windows < 1:
            raise ValueError(f"WindowOrder: {windows} windows; at least 1 fits")
        self.windows = windows
        self._keys = _round_keys(seed, epoch) if shuffle else []
        bits = max((windows - 1).bit_length(), 2)
        self._low_bits = bits // 2
        self._masks = (_ones(bits - self._low_bits), _ones(self._low_bits))
        self._table = self._make_table() if shuffle and windows <= TABLE_SIZE else None

    def __call__(self, start: int, count: int) -> np.ndarray:
        """Windows at positions start..start+count-1 of the epoch, (count,) int64."""
        refusals = {"native": backends.refuse_native}
        if backends.choose("gather_windows", "auto", refusals) != "native":
            return self.reference(start, count)
        windows = np.empty(count, np.int64)
        self.native.windows(start, windows)
        return windows

    @cached_property
    def native(self) -> Any:
        """The same order as a `_core.WindowOrder`."""
        if self._table is not None:
            return backends.core().WindowOrder(table=self._table)
        if self._keys:
            return backends.core().WindowOrder(self.windows, [int(key) for key in self._keys])
        return backends.core().WindowOrder()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "native"}

    def reference(self, start: int, count: int) -> np.ndarray:
        """What a call returns, in numpy: the specification."""
        positions = np.arange(start, start + count, dtype=np.uint64)
        if self._table is not None:
            return self._table[start : start + count]
        if self._keys:
            positions = self._encrypt(positions)
            outside = np.flatnonzero(positions >= self.windows)
            while len(outside):
                positions[outside] = self._encrypt(positions[outside])
                outside = outside[positions[outside] >= self.windows]
        return positions.astype(np.int64)

    def _encrypt(self, x: np.ndarray) -> np.ndarray:
        low_bits = np.uint64(self._low_bits)
        high_mask, low_mask = self._masks
        high, low = x >> low_bits, x & low_mask
        for round_, key in enumerate(self._keys):
            if round_ % 2 == 0:
                high = high ^ (_mix(low ^ key) & high_mask)
            else:
                low = low ^ (_mix(high ^ key) & low_mask)
        return (high << low_bits) | low

    def _make_table(self) -> np.ndarray:
        hashes = np.arange(self.windows, dtype=np.uint64)
        for key in self._keys[:2]:
            hashes = _mix(hashes ^ key)
        return np.argsort(hashes, kind="stable")


def _round_keys(seed: int, epoch: int) -> list[np.uint64]:
    """ROUNDS keys from a SplitMix64 stream whose start depends on every bit of seed and epoch."""
    state = np.array([seed & _MASK64, epoch & _MASK64], dtype=np.uint64)
    state = _mix(state + np.uint64(0x9E3779B97F4A7C15))
    start = int(state[0]) ^ (int(state[1]) * 0xD1342543DE82EF95 & _MASK64)
    steps = [(start + i * 0x9E3779B97F4A7C15) & _MASK64 for i in range(1, ROUNDS + 1)]
    return list(_mix(np.array(steps, dtype=np.uint64)))


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _ones(bits: int) -> np.uint64:
    return np.uint64((1 << bits) - 1)
