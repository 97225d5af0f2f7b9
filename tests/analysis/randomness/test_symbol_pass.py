"""The native pass against plain loops over the same symbols."""

import numpy as np
import pytest
import torch

from pyseq.analysis.randomness.symbol_pass import GAPS, LAGS, StreamPass, pieces
from pyseq.data import U16Stream


def counted(symbols, cuts=(), first_look=None):
    taken = StreamPass(symbols if first_look is None else first_look)
    for piece in np.split(symbols, cuts):
        taken.add(piece)
    return taken.counts()


def streams():
    random = np.random.Generator(np.random.PCG64(1))
    yield "uniform", random.integers(65_536, size=5_000).astype(np.uint16)
    yield "extremes", np.where(random.random(3_000) < 0.9, 0, 65_535).astype(np.uint16)
    yield "six", random.integers(6, size=5_000).astype(np.uint16)
    yield "constant", np.full(1_000, 7, np.uint16)
    yield "repeats", np.repeat(random.integers(300, size=400), 9).astype(np.uint16)
    yield "short", np.array([3, 3, 9], np.uint16)
    yield "one", np.array([65_535], np.uint16)


STREAMS = dict(streams())


@pytest.mark.parametrize("name", STREAMS)
def test_counts_equal_those_of_plain_loops(name):
    x = STREAMS[name].astype(np.int64)
    found = counted(STREAMS[name], cuts=[1, 2, 70, 71, 900])
    assert found.symbols == len(x)
    assert np.array_equal(found.histogram, np.bincount(x, minlength=65_536))
    bytes_of = {"high": x >> 8, "low": x & 255}
    for k, (a, b) in enumerate(
        [("high", "high"), ("low", "low"), ("high", "low"), ("low", "high")]
    ):
        table = np.zeros((256, 256), np.int64)
        np.add.at(table, (bytes_of[a][:-1], bytes_of[b][1:]), 1)
        assert np.array_equal(found.pairs[k], table)
    c = x - 32_768
    for lag in range(1, LAGS + 1):
        assert found.products[lag - 1] == (c[lag:] * c[:-lag]).sum()
        assert found.equals[lag - 1] == (x[lag:] == x[:-lag]).sum()
    assert np.array_equal(found.first, x[:LAGS])
    assert np.array_equal(found.last, x[-LAGS:])


@pytest.mark.parametrize("name", STREAMS)
def test_runs_and_gaps_equal_those_of_plain_loops(name):
    x = STREAMS[name]
    found = counted(x, cuts=[5, 64, 1_000])
    above = x > found.threshold
    starts = np.flatnonzero(np.diff(above, prepend=not above[0]))
    lengths = np.diff(np.append(starts, len(x)))
    assert (found.above, found.runs) == (above.sum(), len(starts))
    assert found.longest_above == max(lengths[above[starts]], default=0)
    assert found.longest_not_above == max(lengths[~above[starts]], default=0)
    equal = np.flatnonzero(np.diff(x.astype(int), prepend=-1))
    lengths = np.diff(np.append(equal, len(x)))
    assert found.longest_equal == lengths.max()
    assert found.longest_symbol == x[equal[lengths.argmax()]]
    gaps = np.zeros((16, GAPS), np.int64)
    for c in range(16):
        distances = np.diff(np.flatnonzero(found.class_of[x] == c))
        np.add.at(gaps[c], np.minimum(distances, GAPS) - 1, 1)
    assert np.array_equal(found.gaps, gaps)


def test_products_of_the_lowest_symbol_do_not_overflow():
    """Two products of -32768 by itself are 2^31, one more than a signed 32-bit lane holds."""
    x = np.zeros(10_000, np.uint16)
    found = counted(x)
    assert np.array_equal(found.products, (10_000 - np.arange(1, LAGS + 1)) * 2**30)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(threads):
    x = STREAMS["uniform"]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found, expected = counted(x, cuts=[777]), counted(x)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(found.products, expected.products)
    assert np.array_equal(found.pairs, expected.pairs)
    assert found.runs == expected.runs


def test_every_instruction_set_gives_the_same_sums(monkeypatch):
    from pyseq.ops import backends

    expected = counted(STREAMS["uniform"])
    for isa in backends.core().isas():
        monkeypatch.setenv("PYSEQ_ISA", isa)
        found = counted(STREAMS["uniform"])
        assert np.array_equal(found.products, expected.products), isa
        assert np.array_equal(found.equals, expected.equals), isa


def test_about_half_are_above_the_threshold_and_some_are_where_any_can_be():
    assert 2_300 < counted(STREAMS["uniform"]).above < 2_700
    assert counted(np.array([5] * 99 + [4], np.uint16)).above == 99
    assert counted(np.array([4] * 99 + [5], np.uint16)).above == 1
    assert counted(STREAMS["constant"]).above == 0


def test_pieces_cover_a_stream_and_end_at_powers_of_two(tmp_path):
    x = np.arange(300_000).astype(np.uint16)
    x.tofile(tmp_path / "x.u16")
    found = list(pieces(U16Stream(tmp_path / "x.u16"), len(x)))
    assert np.array_equal(np.concatenate(found), x)
    assert [len(piece) for piece in found] == [65_536, 65_536, 131_072, 37_856]


def test_refusals():
    from pyseq.ops import backends

    core = backends.core()
    with pytest.raises(ValueError, match="65536"):
        core.SymbolPass(0, np.zeros(5, np.uint8))
    with pytest.raises(ValueError, match=r"0\.\.15"):
        core.SymbolPass(0, np.full(65_536, 16, np.uint8))
