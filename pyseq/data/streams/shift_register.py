"""Generators that are linear over GF(2): every bit is an exclusive or of bits of the seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from pyseq.data.stream_info import MAX_ALPHABET
from pyseq.data.streams.arithmetic import Deterministic
from pyseq.data.streams.stream import BLOCK, generator


@dataclass(frozen=True)
class Lfsr16(Deterministic):
    """16 bits after 16 bits of a linear feedback shift register of 16 bits.

    The bits obey b_n = b_(n-11) ^ b_(n-13) ^ b_(n-14) ^ b_(n-16); that polynomial,
    x^16 + x^14 + x^13 + x^11 + 1, reversed or not, is primitive, so they repeat after 2**16 - 1 and
    not before (Golomb 1967, Shift register sequences). A symbol is the next 16 of them, the first
    as the highest bit: no bit is in two symbols. As 16 and 65535 have no common factor, the symbols
    too have the period 65535, in which each of 1..65535 comes once; 0 never comes. The register
    starts anywhere but at 0.

    A block of n symbols holds log2(65535) bits; the entropy rate is 0. Linear complexity of the
    bits, and of every bit plane of the symbols: 16.
    """

    name: ClassVar[str] = "lfsr16"

    @property
    def alphabet(self) -> int:
        return MAX_ALPHABET

    @cached_property
    def _period(self) -> np.ndarray:
        """All symbols in order, from the register 1 on (65535,), uint16."""
        state, states = 1, []  # the last 16 bits, the newest lowest
        for _ in range(2**16 - 1):
            states.append(state)
            bit = (state >> 15 ^ state >> 13 ^ state >> 12 ^ state >> 10) & 1
            state = (state << 1 | bit) & 0xFFFF
        every_16th = 16 * np.arange(2**16 - 1) % (2**16 - 1)
        return np.array(states, np.uint16)[every_16th]

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        start = int(generator(seed).integers(2**16 - 1))
        while True:
            yield np.concatenate([self._period[start:], self._period[:start]])


@dataclass(frozen=True)
class Xorshift32(Deterministic):
    """The low 16 bits of Marsaglia's xorshift generator of 32 bits.

    s ^= s << 13; s ^= s >> 17; s ^= s << 5, all in 32 bits; a symbol is the low half of s after a
    step. From any s but 0 the period is 2**32 - 1. A block of n symbols holds at most 32 bits; the
    entropy rate is 0. Linear complexity of every bit plane: 32.

    Source: Marsaglia 2003, Xorshift RNGs, Journal of Statistical Software 8 (14), shifts 13, 17, 5.
    """

    name: ClassVar[str] = "xorshift32"

    @property
    def alphabet(self) -> int:
        return MAX_ALPHABET

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        first = generator(seed).integers(1, 2**32, dtype=np.uint32)
        states = xorshift32(np.array([first], np.uint32))
        jump = xorshift32(np.uint32(1) << np.arange(32, dtype=np.uint32))  # of as many steps
        while states.size < BLOCK:
            states = np.concatenate([states, _times(_byte_tables(jump), states)])
            jump = _times(_byte_tables(jump), jump)
        tables = _byte_tables(jump)
        while True:
            yield states.astype(np.uint16)
            states = _times(tables, states)


def xorshift32(states: np.ndarray) -> np.ndarray:
    """One step of the generator.

    Args:
        states (ndarray (n,), uint32): where it is.

    Returns:
        ndarray (n,), uint32.
    """
    states = states ^ states << np.uint32(13)
    states = states ^ states >> np.uint32(17)
    return states ^ states << np.uint32(5)


def _byte_tables(columns: np.ndarray) -> np.ndarray:
    """What each value of each byte of a state becomes: (4, 256), uint32.

    A linear map is known by what it makes of the 32 single bits, `columns` (32,), uint32.
    """
    tables = np.zeros((4, 256), np.uint32)
    for byte in range(4):
        for bit in range(8):
            size = 1 << bit
            tables[byte, size : 2 * size] = tables[byte, :size] ^ columns[8 * byte + bit]
    return tables


def _times(tables: np.ndarray, states: np.ndarray) -> np.ndarray:
    """The linear map applied to states (n,), uint32."""
    b0, b1, b2, b3 = (states >> np.uint32(8 * byte) & np.uint32(255) for byte in range(4))
    return tables[0][b0] ^ tables[1][b1] ^ tables[2][b2] ^ tables[3][b3]
