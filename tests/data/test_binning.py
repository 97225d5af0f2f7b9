"""Bins: uniform ones over the alphabet and not over 0..65535, adaptive ones as even as can be."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyseq.data.binning import Binning
from pyseq.data.streams import make
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
    for make_bins in (
        lambda: Binning.uniform(256, bins),
        lambda: Binning.adaptive(np.ones(256, np.int64), bins),
    ):
        with pytest.raises(UserError, match="2 to 256 or none fits"):
            make_bins()


# Many zeros and ties, and symbols far more frequent than a bin's share.
FREQUENCIES = st.lists(st.sampled_from([0, 0, 1, 1, 2, 3, 7, 40, 1000]), min_size=2, max_size=60)


@st.composite
def counts_and_bins(draw, most=60):
    counts = draw(FREQUENCIES.filter(lambda c: np.count_nonzero(c) >= 2).map(lambda c: c[:most]))
    counts += [1] * (2 - np.count_nonzero(counts))
    return np.array(counts), draw(st.integers(2, len(counts)))


@given(case=counts_and_bins())
def test_adaptive_bins_divide_the_alphabet(case):
    counts, bins = case
    binning = Binning.adaptive(counts, bins)
    seen = np.count_nonzero(counts)
    assert binning.classes == min(bins, seen)
    assert binning.edges[0] == 0
    assert (np.diff(binning.edges) > 0).all()
    assert binning.edges[-1] < len(counts)
    table = binning.table()
    assert np.array_equal(np.unique(table), np.arange(binning.classes))
    assert (np.diff(table) >= 0).all()
    assert np.bincount(table, weights=counts).min() >= 1
    assert binning.apply(torch.arange(len(counts))).tolist() == table.tolist()
    starts = [int(np.flatnonzero(table == bin_)[0]) for bin_ in range(binning.classes)]
    assert starts == list(binning.edges)
    if bins >= seen:  # a class for each
        assert len(set(table[counts > 0])) == seen


def least_bound(counts: list[int], bins: int) -> int:
    """By trying every partition: the least size that parts of several counts must have."""
    inner = range(1, len(counts))
    return min(
        max(
            sum(counts[a:b]) if b - a > 1 else 0
            for a, b in zip((0, *cuts), (*cuts, len(counts)), strict=True)
        )
        for cuts in combinations(inner, bins - 1)
    )


@given(case=counts_and_bins(most=9))
def test_no_bins_could_be_smaller(case):
    counts, bins = case
    binning = Binning.adaptive(counts, bins)
    bound = least_bound(counts[counts > 0].tolist(), binning.classes)
    sizes = np.bincount(binning.table(), weights=counts)
    different = np.bincount(binning.table()[counts > 0])
    assert (sizes[different > 1] <= bound).all()
    for symbol in np.flatnonzero(counts > bound):  # heavy: nothing else that was counted beside it
        assert different[binning.table()[symbol]] == 1


def test_adaptive_bins_of_the_rolls_are_even():
    rolls = make("hmac_rolls").generate(300_000, 0).numpy().astype(np.int64)
    counts = np.bincount(rolls, minlength=10_001)
    sizes = np.bincount(Binning.adaptive(counts, 1024).table(), weights=counts)
    share = sizes / sizes.sum()
    assert -(share * np.log2(share)).sum() > 10 - 0.005
    assert sizes.max() < 1.2 * sizes.mean()
    assert sizes.min() > 0.8 * sizes.mean()


def test_a_symbol_more_frequent_than_a_bin_is_alone_and_the_rest_shares_the_rest():
    counts = np.full(1000, 10)
    counts[[100, 101, 700]] = 50_000
    binning = Binning.adaptive(counts, 64)
    sizes = np.bincount(binning.table(), weights=counts).astype(int)
    assert sorted(sizes)[-3:] == [50_000] * 3
    assert {100, 101, 102, 700, 701} <= set(binning.edges)
    light = sizes[sizes < 50_000]
    assert len(light) == 61
    assert light.max() - light.min() <= 40  # 9970 over 61 bins of tens: 163 on average


def test_small_symbols_do_not_use_up_what_others_need():
    """Even shares alone would join 1 and 9 twice, and leave four bins."""
    counts = np.array([1, 9, 10, 1, 9, 10])
    assert Binning.adaptive(counts, 5).edges == (0, 2, 3, 4, 5)


def test_symbols_that_were_not_counted_go_with_the_next_lower_one():
    counts = np.array([0, 5, 0, 0, 5, 5, 0])
    assert Binning.adaptive(counts, 3).table().tolist() == [0, 0, 0, 0, 1, 2, 2]


@pytest.mark.parametrize("counts", [[0, 9, 0], [0, 0]])
def test_adaptive_bins_need_two_different_symbols(counts):
    with pytest.raises(UserError, match=r"the training range holds [01] different symbols"):
        Binning.adaptive(np.array(counts), 2)


def test_bins_know_the_counts_they_were_made_on():
    rng = np.random.default_rng(0)
    counts, others = rng.poisson(20, (2, 500))
    bins = Binning.adaptive(counts, 40)
    assert bins.is_even_on(counts)
    assert not bins.is_even_on(others)
    assert not bins.is_even_on(np.zeros(500, np.int64))
    assert not Binning.uniform(500, 40).is_even_on(counts)
    assert not Binning(500).is_even_on(counts)
