"""A file of bytes as symbols of 8, 4, 2 or 1 bits, read in pieces."""

import numpy as np
import pytest
import torch

from pyseq.analysis import byte_symbols
from pyseq.analysis.byte_symbols import BytesAsSymbols
from pyseq.errors import UserError


def bits_of(data, width):
    """High bits first, by text."""
    text = "".join(f"{byte:08b}" for byte in data)
    return [int(text[i : i + width], 2) for i in range(0, len(text), width)]


@pytest.fixture
def opened(tmp_path):
    """Opens files of these bytes, and closes them."""
    found = []

    def make(data, width):
        path = tmp_path / f"{len(found)}.bin"
        path.write_bytes(bytes(data))
        found.append(BytesAsSymbols(path, width))
        return found[-1]

    yield make
    for symbols in found:
        symbols.close()


DATA = np.random.Generator(np.random.PCG64(0)).integers(256, size=1_001).tolist()
DATA[7] = 255  # too large for one symbol of fewer than 8 bits


@pytest.mark.parametrize("width", [8, 4, 2, 1])
def test_packed_bytes_are_cut_high_bits_first(opened, width):
    symbols = opened(DATA, width)
    assert symbols.packed == (width < 8)
    assert len(symbols) == 1_001 * 8 // width
    whole = symbols[:]
    assert whole.dtype == torch.uint16
    assert whole.tolist() == bits_of(DATA, width)
    if width < 8:
        assert symbols.words == f"{8 // width} symbols of {width} bits from each byte, high first"


@pytest.mark.parametrize("width", [8, 4, 2, 1])
def test_bytes_that_are_small_enough_are_a_symbol_each(opened, width):
    data = [byte % 2**width for byte in DATA]
    symbols = opened(data, width)
    assert not symbols.packed
    assert symbols[:].tolist() == data
    assert len(symbols) == 1_001
    assert symbols.words == f"one symbol of {width} bits from each byte"


def test_one_large_byte_makes_a_file_packed_wherever_it_is(opened, monkeypatch):
    """The whole file is looked at, piece by piece."""
    monkeypatch.setattr(byte_symbols, "_CHUNK", 10)
    symbols = opened([0, 1] * 50 + [2], 1)
    assert symbols.packed
    assert symbols[:].tolist() == bits_of([0, 1] * 50 + [2], 1)
    # What is read of it keeps that layout, though no byte of the piece needs it.
    assert symbols[0:16].tolist() == bits_of([0, 1], 1)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("width", [8, 4, 2, 1])
def test_slices_equal_those_of_the_whole(opened, width, packed):
    symbols = opened(DATA if packed else [byte % 2**width for byte in DATA], width)
    whole, total = symbols[:].tolist(), len(symbols)
    edges = [0, 1, 2, 3, 5, 7, 8, 9, 13, 64, 101, total - 9, total - 1, total, total + 5]
    for start in edges:
        for stop in edges:
            assert symbols[start:stop].tolist() == whole[start:stop], (start, stop)
    assert symbols[-3:].tolist() == whole[-3:]
    assert symbols[:-5].tolist() == whole[:-5]


def test_a_step_is_refused(opened):
    with pytest.raises(ValueError, match="a step of 2; 1 fits"):
        opened(DATA, 4)[0:10:2]


def test_what_is_read_is_a_copy(opened):
    symbols = opened(DATA, 8)
    symbols[0:5].fill_(0)
    assert symbols[0:5].tolist() == DATA[:5]


@pytest.mark.parametrize("width", [8, 1])
def test_files_that_cannot_be_read_or_are_empty(tmp_path, width):
    with pytest.raises(UserError, match=r"nowhere\.bin cannot be read: No such file or directory"):
        BytesAsSymbols(tmp_path / "nowhere.bin", width)
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        BytesAsSymbols(tmp_path, width)
    (tmp_path / "empty.bin").touch()
    with pytest.raises(UserError, match=r"empty\.bin is empty; 1 byte or more fits"):
        BytesAsSymbols(tmp_path / "empty.bin", width)
