"""Sizes under general compressors, beside those of the same symbols in random order."""

import sys

import numpy as np

from pyseq.analysis.randomness.compression import compressed_sizes


def test_order_is_what_compressors_find():
    ordered = np.tile(np.arange(200), 100).astype(np.uint16)
    for found in compressed_sizes(ordered, 200, seed=0):
        assert found.symbols == 20_000
        assert found.bits < 0.5
        assert 7.6 < found.shuffled_bits < 8.3  # log2(200) = 7.64


def test_wide_symbols_take_two_bytes():
    noise = np.random.Generator(np.random.PCG64(0)).integers(65_536, size=20_000).astype(np.uint16)
    for found in compressed_sizes(noise, 65_536, seed=0):
        assert 16 <= found.bits < 16.2


def test_without_its_package_there_is_no_zstd(monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    names = [found.name for found in compressed_sizes(np.zeros(100, np.uint16), 2, seed=0)]
    assert names == ["xz -9e"]
