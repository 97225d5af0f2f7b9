"""Uniform bins: exact edges, over the alphabet and not over 0..65535."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyseq.data.binning import Binning
from pyseq.errors import UserError


@given(data=st.data(), alphabet=st.integers(2, 65_536))
def test_uniform_bins_are_the_formula(data, alphabet):
    bins = data.draw(st.integers(2, alphabet))
    binning = Binning.uniform(alphabet, bins)
    table = binning.table()
    assert np.array_equal(table, np.arange(alphabet) * bins // alphabet)
    sizes = np.bincount(table, minlength=bins)
    assert len(sizes) == binning.classes == bins
    assert sizes.max() - sizes.min() <= 1
    assert sizes.min() >= 1


def test_the_rolls():
    """10001 values in 1024 bins: 785 of 10 values and 239 of 9, and none is empty."""
    sizes = np.bincount(Binning.uniform(10_001, 1024).table())
    assert (sizes == 10).sum() == 785
    assert (sizes == 9).sum() == 239


def test_apply_keeps_the_shape():
    symbols = torch.tensor([[0, 9], [10_000, 10]], dtype=torch.int32).to(torch.uint16)
    classes = Binning.uniform(10_001, 1024).apply(symbols)
    assert classes.tolist() == [[0, 0], [1023, 1]]
    assert classes.dtype == torch.int64
    assert Binning(10_001).apply(symbols).tolist() == [[0, 9], [10_000, 10]]


@pytest.mark.parametrize("bins", [0, 1, 300])
def test_bins_that_do_not_fit(bins):
    with pytest.raises(UserError, match="2 to 256 or none fits"):
        Binning.uniform(256, bins)
