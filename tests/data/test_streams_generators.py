"""Generators whose symbols follow from their state, against plain loops."""

import numpy as np
import pytest

from pyseq.data.streams import (
    BLOCK,
    Lcg16,
    Lfsr16,
    Pcg16,
    TruncatedLcg,
    Xorshift32,
    pcg_xsh_rr,
    xorshift32,
)
from pyseq.errors import UserError
from tests.data.stream_samples import sample

COUNT = 2 * BLOCK + 77
DETERMINISTIC = [Lcg16(), TruncatedLcg(), TruncatedLcg(20), Lfsr16(), Xorshift32(), Pcg16()]


@pytest.mark.parametrize("stream", DETERMINISTIC)
def test_the_past_tells_all(stream):
    assert stream.entropy_rate == stream.min_entropy == stream.average_min_entropy == 0.0


@pytest.mark.parametrize("parameters", [{}, {"multiplier": 5, "increment": 1}])
def test_lcg16_against_a_loop(parameters):
    stream = Lcg16(**parameters)
    symbols = sample(stream, COUNT, seed=3).tolist()
    state = symbols[0]
    for symbol in symbols:
        assert symbol == state
        state = (stream.multiplier * state + stream.increment) % 65_536


@pytest.mark.parametrize("parameters", [{}, {"multiplier": 5, "increment": 1}])
def test_lcg16_has_its_full_period(parameters):
    symbols = sample(Lcg16(**parameters), 2**17)
    np.testing.assert_array_equal(symbols[: 2**16], symbols[2**16 :])
    np.testing.assert_array_equal(np.sort(symbols[: 2**16]), np.arange(2**16))


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (Lcg16, {"multiplier": 3}),
        (Lcg16, {"multiplier": 65_537}),
        (Lcg16, {"increment": 2}),
        (Lcg16, {"increment": -1}),
        (TruncatedLcg, {"state_bits": 16}),
        (TruncatedLcg, {"state_bits": 33}),
    ],
)
def test_parameters_out_of_range(kind, parameters):
    with pytest.raises(UserError, match=f"{next(iter(parameters))} is .* fits"):
        kind(**parameters)


def first_state(bits, seed):
    """The documented seeding: the first whole number below 2**bits of NumPy's PCG64."""
    return int(np.random.Generator(np.random.PCG64(seed)).integers(2**bits, dtype=np.uint64))


@pytest.mark.parametrize("bits", [17, 24, 32])
def test_truncated_lcg_against_a_loop(bits):
    state, expected = first_state(bits, 9), []
    for _ in range(COUNT):
        expected.append(state >> (bits - 16))
        state = (1_664_525 * state + 1_013_904_223) % 2**bits
    assert sample(TruncatedLcg(bits), COUNT, seed=9).tolist() == expected


def test_low_bit_of_the_truncated_lcg_turns_round_after_half_its_period():
    low = sample(TruncatedLcg(32), 400_000) & 1
    half = 2**16
    np.testing.assert_array_equal(low[half:], 1 - low[:-half])
    shorter = sample(TruncatedLcg(20), 10_000) & 1
    np.testing.assert_array_equal(shorter[16:], 1 - shorter[:-16])


def test_truncated_lcg_of_17_bits_has_its_full_period():
    symbols = sample(TruncatedLcg(17), 2**18)
    np.testing.assert_array_equal(symbols[: 2**17], symbols[2**17 :])
    assert (np.bincount(symbols[: 2**17], minlength=2**16) == 2).all()
    assert not np.array_equal(symbols[: 2**16], symbols[2**16 : 2**17])


def rank_over_gf2(rows):
    """Rank of rows of bits, each a Python integer."""
    pivots = {}
    for row in rows:
        while row and row.bit_length() in pivots:
            row ^= pivots[row.bit_length()]
        if row:
            pivots[row.bit_length()] = row
    return len(pivots)


def linear_complexity(bits):
    """Of a sequence whose complexity is at most half of its length: the rank of its windows."""
    size = len(bits) // 2
    return rank_over_gf2(
        int("".join(map(str, bits[start : start + size].tolist())), 2) for start in range(size)
    )


@pytest.mark.parametrize(("stream", "complexity"), [(Lfsr16(), 16), (Xorshift32(), 32)])
def test_bit_planes_have_the_linear_complexity_of_the_state(stream, complexity):
    symbols = sample(stream, 200, seed=4)
    for plane in range(16):
        assert linear_complexity(symbols >> plane & 1) == complexity
    assert linear_complexity(np.unpackbits(sample(Pcg16(), 40).astype(np.uint8))) > 100


def test_lfsr_bits_obey_its_recurrence():
    symbols = sample(Lfsr16(), 70_000, seed=2)
    bits = np.unpackbits(symbols.astype(">u2").view(np.uint8))
    now = np.arange(16, bits.size)
    expected = bits[now - 11] ^ bits[now - 13] ^ bits[now - 14] ^ bits[now - 16]
    np.testing.assert_array_equal(bits[16:], expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_lfsr_has_its_full_period(seed):
    symbols = sample(Lfsr16(), 2 * 65_535, seed)
    np.testing.assert_array_equal(symbols[:65_535], symbols[65_535:])
    np.testing.assert_array_equal(np.sort(symbols[:65_535]), np.arange(1, 65_536))


def test_xorshift_against_a_loop():
    state = int(np.random.Generator(np.random.PCG64(6)).integers(1, 2**32, dtype=np.uint32))
    expected = []
    for _ in range(COUNT):
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
        expected.append(state & 0xFFFF)
    assert sample(Xorshift32(), COUNT, seed=6).tolist() == expected


def test_xorshift_from_marsaglias_seed():
    # the first output from his default state 2463534242
    assert xorshift32(np.array([2_463_534_242], np.uint32)).tolist() == [723_471_715]


def test_pcg_against_the_outputs_of_the_c_library():
    # its own check of oneseq 16 XSH RR 8, seed 42, rounds 1 (14 bytes)
    expected = [0x51, 0xB3, 0xA8, 0xCB, 0x37, 0xDF, 0x72, 0xC7, 0x84, 0x09, 0x5C, 0x35, 0xF2, 0xF8]

    def step(state):
        return (12_829 * state + 47_989) % 65_536

    state, states = step(step(0) + 42), []
    for _ in expected:
        states.append(state)
        state = step(state)
    assert pcg_xsh_rr(np.array(states, np.uint16)).tolist() == expected


def test_pcg_against_a_loop():
    state, expected = first_state(16, 8), []
    for _ in range(COUNT):
        byte = ((state >> 5 ^ state) >> 5) & 0xFF
        for _ in range(state >> 13):
            byte = byte >> 1 | (byte & 1) << 7
        expected.append(byte)
        state = (12_829 * state + 47_989) % 65_536
    assert sample(Pcg16(), COUNT, seed=8).tolist() == expected


def test_pcg_has_its_full_period():
    symbols = sample(Pcg16(), 2**17)
    np.testing.assert_array_equal(symbols[: 2**16], symbols[2**16 :])
    assert (np.bincount(symbols[: 2**16]) == 256).all()
    assert not np.array_equal(symbols[: 2**15], symbols[2**15 : 2**16])
