"""The order of windows: a permutation for any size, uniform, and the same wherever it is asked."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pyseq.data.order import TABLE_SIZE, WindowOrder
from pyseq.ops import backends

needs_core = pytest.mark.skipif(backends.refuse_native() is not None, reason="no pyseq._core")
seeds = st.integers(-(2**63), 2**63 - 1)


@settings(deadline=None, max_examples=60)
@given(windows=st.integers(1, 3000), seed=seeds, epoch=st.integers(0, 2**40))
def test_small_orders_are_permutations(windows, seed, epoch):
    order = WindowOrder(windows, seed, epoch)(0, windows)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(windows))


@pytest.mark.parametrize(
    "windows", [TABLE_SIZE - 1, TABLE_SIZE, TABLE_SIZE + 1, 2**17, 2**17 + 1, 100_003, 300_000]
)
def test_large_orders_are_permutations(windows):
    order = WindowOrder(windows, 7, 3)(0, windows)
    assert np.array_equal(np.sort(order), np.arange(windows))


@settings(deadline=None, max_examples=60)
@given(windows=st.sampled_from([10, 1000, 70_000, 2**33 + 7, 2**40]), data=st.data(), seed=seeds)
def test_any_part_can_be_had_alone(windows, data, seed):
    start = data.draw(st.integers(0, windows - 5))
    order = WindowOrder(windows, seed, 2)
    together = order(start, 5)
    apart = [int(order(start + i, 1)[0]) for i in range(5)]
    assert together.tolist() == apart
    assert len(set(apart)) == 5
    assert 0 <= min(apart) <= max(apart) < windows


@needs_core
@settings(deadline=None, max_examples=100)
@given(
    windows=st.sampled_from([1, 2, 3, 10, TABLE_SIZE, TABLE_SIZE + 1, 2**20, 2**33 + 7, 2**62]),
    data=st.data(), seed=seeds, epoch=st.integers(0, 2**40), shuffle=st.booleans(),
)  # fmt: skip
def test_native_code_gives_the_same_order(windows, data, seed, epoch, shuffle):
    order = WindowOrder(windows, seed, epoch, shuffle=shuffle)
    start = data.draw(st.integers(0, windows - 1))
    count = min(windows - start, 100)
    native = np.empty(count, np.int64)
    order.native.windows(start, native)
    assert native.tolist() == order.reference(start, count).tolist()
    for wrong in (-1, windows - count + 1):
        if shuffle or wrong < 0:
            with pytest.raises(IndexError, match="places beyond the epoch"):
                order.native.windows(wrong, native)
    again = pickle.loads(pickle.dumps(order))
    assert again(start, count).tolist() == native.tolist()


@pytest.mark.parametrize("windows", [6, 1000, 100_000, 2**33])
def test_seed_and_epoch_change_the_order(windows):
    count = min(windows, 1000)
    orders = {
        WindowOrder(windows, seed, epoch)(0, count).tobytes()
        for seed in (0, 1, 2**32, 2**63 - 1)
        for epoch in range(5)
    }
    # Of 720 orders of 6 windows some of 20 may well coincide.
    assert len(orders) == 20 if windows > 6 else len(orders) > 12
    again = WindowOrder(windows, 1, 3)(0, count)
    assert np.array_equal(again, WindowOrder(windows, 1, 3)(0, count))


@pytest.mark.parametrize(
    ("windows", "bins"), [(3, 3), (5, 5), (64, 64), (70_001, 100), (2**34, 64)]
)
def test_no_place_favours_any_window(windows, bins):
    """Over many epochs, what comes first (and last) is uniform: chi-square, fixed seeds."""
    epochs = 3000
    for position in (0, windows - 1):
        seen = [int(WindowOrder(windows, 11, e)(position, 1)[0]) for e in range(epochs)]
        counts = np.bincount(np.array(seen) * bins // windows, minlength=bins)
        assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize(("windows", "bins"), [(3, 3), (64, 64), (70_001, 100), (2**34, 64)])
def test_no_seed_favours_any_window(windows, bins):
    """The same over seeds, one after the other as people choose them, in epochs of any number."""
    for epoch in (0, 7):
        seen = [int(WindowOrder(windows, seed, epoch)(windows // 2, 1)[0]) for seed in range(3000)]
        counts = np.bincount(np.array(seen) * bins // windows, minlength=bins)
        assert stats.chisquare(counts).pvalue > 1e-4


def test_all_six_orders_of_three_windows_are_equally_likely():
    epochs = 6000
    orders = [tuple(WindowOrder(3, 5, e)(0, 3)) for e in range(epochs)]
    counts = [orders.count(order) for order in sorted(set(orders))]
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-4


def test_neighbours_are_not_related():
    """Steps between consecutive windows of a large order look like those of random draws."""
    order = WindowOrder(2**33, 1, 0)(0, 20_000).astype(np.float64)
    correlation = np.corrcoef(order[:-1], order[1:])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(20_000)


def test_without_shuffling_it_counts():
    order = WindowOrder(2**40, 3, 9, shuffle=False)
    assert order(2**39, 3).tolist() == [2**39, 2**39 + 1, 2**39 + 2]


def test_no_windows_is_an_error():
    with pytest.raises(ValueError, match="0 windows"):
        WindowOrder(0, 0, 0)
