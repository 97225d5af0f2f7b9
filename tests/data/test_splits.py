"""Splits: contiguous, apart by a window, none too short."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyseq.data.splits import split_stream
from pyseq.errors import UserError


@given(symbols=st.integers(1000, 10**10), window=st.integers(2, 40))
def test_no_window_overlaps_two_splits(symbols, window):
    splits = split_stream(symbols, window)
    assert splits.train[0] == 0
    assert splits.test[1] == symbols
    assert splits.validation[0] - splits.train[1] == window
    assert splits.test[0] - splits.validation[1] == window
    assert all(stop - start >= window for start, stop in vars(splits).values())


def test_too_short_names_the_range():
    with pytest.raises(UserError, match=r"leaves 0 for validation, less than one window of 257"):
        split_stream(2000, 257)


@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.2), (1.0, 0.0, 0.0), (0.6, 0.6, -0.2)])
def test_fractions_must_make_sense(fractions):
    with pytest.raises(UserError, match="split fractions"):
        split_stream(10_000, 10, fractions)
