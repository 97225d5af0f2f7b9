"""What several tests of the analysis are given."""

import numpy as np
import pytest

from pyseq.data import U16Stream


@pytest.fixture
def stream_of(tmp_path):
    """Makes streams of symbols, and closes them."""
    opened = []

    def make(symbols) -> U16Stream:
        path = tmp_path / f"{len(opened)}.u16"
        np.asarray(symbols).astype("<u2").tofile(path)
        opened.append(U16Stream(path))
        return opened[-1]

    yield make
    for stream in opened:
        stream.close()
