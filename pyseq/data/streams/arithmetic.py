"""Small generators whose whole state is soon seen: linear congruences and a permuted one."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from pyseq.data.stream_info import MAX_ALPHABET, Kind
from pyseq.data.streams.stream import BLOCK, Stream, check_int, generator
from pyseq.errors import UserError


class Deterministic(Stream):
    """A generator whose next symbol follows from its state, and the state from its seed.

    All entropy is in the seed, so the rates, which are per symbol as n grows, are 0: n symbols hold
    no more bits than the state has, and whoever knows enough of the past is never wrong. All seeds
    run through the same cycle; a seed chooses where they start.
    """

    kind: ClassVar[Kind] = "values"

    @property
    def entropy_rate(self) -> float:
        return 0.0

    @property
    def min_entropy(self) -> float:
        return 0.0


@dataclass(frozen=True)
class Lcg16(Deterministic):
    """A linear congruential generator mod 2**16 that shows its whole state.

    x_(t+1) = (multiplier x_t + increment) mod 2**16, the first x uniform. With an odd increment and
    multiplier = 1 mod 4 the period is the full 2**16 (Hull, Dobell 1962, Random number generators,
    theorem 1), whatever the start, so every symbol comes once in it. A block of n symbols holds 16
    bits; the entropy rate is 0. Bit j of the symbols has period 2**(j + 1).

    The default constants are those of Grogono 1978, Programming in Pascal.

    Args:
        multiplier (int): 1..65533, 1 mod 4.
        increment (int): 1..65535, odd.
    """

    name: ClassVar[str] = "lcg16"

    multiplier: int = 25_173
    increment: int = 13_849

    def __post_init__(self) -> None:
        _check_full_period(self.multiplier, self.increment, 16)

    @property
    def alphabet(self) -> int:
        return MAX_ALPHABET

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        state = generator(seed).integers(2**16, dtype=np.uint64)
        for states in _lcg_states(state, self.multiplier, self.increment, 16):
            yield states.astype(np.uint16)


@dataclass(frozen=True)
class TruncatedLcg(Deterministic):
    """The high 16 bits of the state of a linear congruential generator mod 2**state_bits.

    s_(t+1) = (multiplier s_t + increment) mod 2**state_bits, x_t = s_t >> (state_bits - 16), the
    first s uniform. Multiplier and increment give the full period 2**state_bits for any number of
    bits (Hull, Dobell 1962). A block of n symbols holds at most state_bits bits; the entropy rate
    is 0. The lowest bit of x has the period 2**(state_bits - 15), in whose second half it is the
    complement of the first; the bits above it have periods twice as long each.

    Constants: 1664525 and 1013904223 (Knuth and Lewis in Press et al. 1992, Numerical recipes in C,
    section 7.1).

    Args:
        state_bits (int): 17..32.
    """

    name: ClassVar[str] = "truncated_lcg"
    multiplier: ClassVar[int] = 1_664_525
    increment: ClassVar[int] = 1_013_904_223

    state_bits: int = 32

    def __post_init__(self) -> None:
        check_int("state_bits", self.state_bits, 17, 32)

    @property
    def alphabet(self) -> int:
        return MAX_ALPHABET

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        state = generator(seed).integers(2**self.state_bits, dtype=np.uint64)
        for states in _lcg_states(state, self.multiplier, self.increment, self.state_bits):
            yield (states >> np.uint64(self.state_bits - 16)).astype(np.uint16)


@dataclass(frozen=True)
class Pcg16(Deterministic):
    """PCG XSH RR 16/8: a congruence mod 2**16 whose state is permuted down to a byte.

    s_(t+1) = (12829 s_t + 47989) mod 2**16, the first s uniform; x_t is bits 5..12 of s ^ (s >> 5),
    rotated right by the number in the top 3 bits of s. The period is 2**16 symbols, in which every
    byte comes 256 times. A block of n symbols holds at most 16 bits; the entropy rate is 0.

    Source: O'Neill 2014, PCG: a family of simple fast space-efficient statistically good
    algorithms for random number generation; the constants are those of its C library.
    """

    name: ClassVar[str] = "pcg16"
    multiplier: ClassVar[int] = 12_829
    increment: ClassVar[int] = 47_989

    @property
    def alphabet(self) -> int:
        return 256

    def _blocks(self, seed: int) -> Iterator[np.ndarray]:
        state = generator(seed).integers(2**16, dtype=np.uint64)
        for states in _lcg_states(state, self.multiplier, self.increment, 16):
            yield self._outputs[states]

    @cached_property
    def _outputs(self) -> np.ndarray:
        return pcg_xsh_rr(np.arange(2**16, dtype=np.uint16))


def pcg_xsh_rr(states: np.ndarray) -> np.ndarray:
    """The output function XSH RR 16/8 of the PCG family.

    Args:
        states (ndarray (n,), uint16): states of the congruence.

    Returns:
        ndarray (n,), uint16, bytes 0..255.
    """
    wide = states.astype(np.uint32)
    byte = ((wide >> 5 ^ wide) >> 5) & 0xFF
    rotation = wide >> 13
    return ((byte >> rotation | byte << (8 - rotation)) & 0xFF).astype(np.uint16)


def _lcg_states(
    state: np.uint64, multiplier: int, increment: int, bits: int
) -> Iterator[np.ndarray]:
    """The states from `state` on, BLOCK at a time, uint64.

    t steps are one: s_t = M_t s_0 + C_t, with the M and C of a block made once.
    """
    mask = np.uint64(2**bits - 1)
    factors, terms = np.ones(1, np.uint64), np.zeros(1, np.uint64)
    jump, shift = np.uint64(multiplier), np.uint64(increment)  # of as many steps as are there
    while factors.size < BLOCK:
        factors = np.concatenate([factors, jump * factors & mask])
        terms = np.concatenate([terms, (jump * terms + shift) & mask])
        jump, shift = jump * jump & mask, (jump * shift + shift) & mask
    while True:
        # below 2**32 each, so a product and a term stay below 2**64
        yield (factors * state + terms) & mask
        state = (jump * state + shift) & mask


def _check_full_period(multiplier: int, increment: int, bits: int) -> None:
    check_int("multiplier", multiplier, 1, 2**bits - 1)
    check_int("increment", increment, 1, 2**bits - 1)
    if multiplier % 4 != 1:
        raise UserError(f"multiplier is {multiplier}; 1 more than a multiple of 4 fits")
    if increment % 2 != 1:
        raise UserError(f"increment is {increment}; an odd number fits")
