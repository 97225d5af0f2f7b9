import math

import numpy as np
import pytest
from scipy import signal, stats

from pyseq.analysis.intervals import (
    Interval,
    _resampled_means,
    binomial_interval,
    block_bootstrap,
)


def _ar1(rng, count, coefficient, mean):
    """A stationary AR(1) series with unit innovations around `mean`."""
    noise = rng.normal(size=count + 200)
    return mean + signal.lfilter([1.0], [1.0, -coefficient], noise)[200:]


def test_covers_the_mean_of_correlated_data_at_about_the_level_asked_for():
    rng = np.random.default_rng(0)
    covered = {64: 0, 1: 0}
    for simulation in range(300):
        series = _ar1(rng, 2000, 0.8, mean=3.0)
        for block in covered:
            interval = block_bootstrap(series, block=block, resamples=500, seed=simulation)
            covered[block] += interval.low <= 3.0 <= interval.high
    # 300 simulations at 95 %: 285 expected, standard deviation 3.8; blocks of finite length leave
    # out a little of the dependence, so the band reaches further down than up.
    assert 270 <= covered[64] <= 297
    # Blocks of one symbol ignore the dependence, and the same check must see that.
    assert covered[1] < 210


def test_covers_with_few_blocks():
    rng = np.random.default_rng(1)
    covered = 0
    for simulation in range(1000):
        interval = block_bootstrap(rng.normal(size=8), block=1, resamples=500, seed=simulation)
        covered += interval.low <= 0 <= interval.high
    # Standard deviation 7; without the stretch the plain percentiles cover about 880 times.
    assert 925 <= covered <= 980


def test_blocks_of_one_agree_with_the_textbook_interval():
    values = np.random.default_rng(2).normal(5.0, 2.0, size=3000)
    interval = block_bootstrap(values, block=1, resamples=4000)
    half = stats.norm.ppf(0.975) * values.std(ddof=1) / math.sqrt(values.size)
    assert interval.value == pytest.approx(values.mean())
    assert interval.half_width == pytest.approx(half, rel=0.05)


def test_the_last_block_is_cut_to_fit():
    values = np.random.default_rng(6).normal(size=23)
    values -= values.mean()
    means = _resampled_means(values, 5, 200_000, np.random.default_rng(7))
    circle = np.concatenate([values, values])
    sums = {n: np.array([circle[s : s + n].sum() for s in range(23)]) for n in (5, 3)}
    variance = (4 * sums[5].var() + sums[3].var()) / 23**2  # 23 = 4 blocks of 5 and one of 3
    assert means.var() == pytest.approx(variance, rel=0.02)
    assert means.mean() == pytest.approx(0, abs=4 * math.sqrt(variance / means.size))


def test_level_widens():
    values = np.random.default_rng(3).normal(size=1000)
    narrow = block_bootstrap(values, block=10, level=0.5)
    wide = block_bootstrap(values, block=10, level=0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


@pytest.mark.parametrize("count", [2, 3, 7, 9, 100, 103, 4097, 10_000])
@pytest.mark.parametrize("block", [1, 10, 1000])
def test_any_length_and_block(count, block):
    values = np.random.default_rng(count).normal(size=count)
    interval = block_bootstrap(values, block=block, resamples=200)
    assert interval.value == pytest.approx(values.mean())
    assert interval.low < interval.value < interval.high
    assert interval == block_bootstrap(values, block=block, resamples=200)


def test_shift_and_scale_carry_over():
    values = np.random.default_rng(4).normal(size=777)
    plain = block_bootstrap(values, block=50)
    moved = block_bootstrap(1e6 + 2 * values, block=50)
    assert moved.low == pytest.approx(1e6 + 2 * plain.low, abs=1e-6)
    assert moved.high == pytest.approx(1e6 + 2 * plain.high, abs=1e-6)


def test_many_observations():
    values = np.random.default_rng(5).normal(size=3_000_000)
    interval = block_bootstrap(values, block=1, resamples=400)
    assert interval.half_width == pytest.approx(1.96 / math.sqrt(values.size), rel=0.15)


def test_extremes():
    assert block_bootstrap([2.5], block=8) == Interval(2.5, -math.inf, math.inf)
    assert block_bootstrap(np.full(100, 1.5), block=8) == Interval(1.5, 1.5, 1.5)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([], {"block": 1}),
        ([[1.0, 2.0]], {"block": 1}),
        ([1.0, math.nan], {"block": 1}),
        ([1.0, math.inf], {"block": 1}),
        ([1.0, 2.0], {"block": 0}),
        ([1.0, 2.0], {"block": 1, "level": 1.0}),
        ([1.0, 2.0], {"block": 1, "resamples": 5}),
    ],
)
def test_refuses(values, options):
    with pytest.raises(ValueError, match="block_bootstrap"):
        block_bootstrap(values, **options)


def test_clopper_pearson_meets_its_definition():
    interval = binomial_interval(7, 50)
    assert interval.value == 0.14
    assert stats.binom.sf(6, 50, interval.low) == pytest.approx(0.025, rel=1e-6)
    assert stats.binom.cdf(7, 50, interval.high) == pytest.approx(0.025, rel=1e-6)
    none = binomial_interval(0, 100)
    assert none.low == 0.0
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 100))
    with pytest.raises(ValueError, match="5 successes in 4 trials"):
        binomial_interval(5, 4)


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(2.69660, 2.68011, 2.71312), "2.697 [2.680, 2.713]"),
        (Interval(2.6966, 2.3, 3.1), "2.70 [2.30, 3.10]"),
        (Interval(1234.56, 1200.0, 1270.0), "1235 [1200, 1270]"),
        (Interval(0.001, 0.00093, 0.00107), "0.00100 [0.00093, 0.00107]"),
        (Interval(1.5, 1.5, 1.5), "1.500 [1.500, 1.500]"),
        (Interval(0.0, 0.0, 0.0), "0.0000 [0.0000, 0.0000]"),
        (Interval(-0.0, -0.0, -0.0), "0.0000 [0.0000, 0.0000]"),
        (Interval(0.1, -0.001, 0.2), "0.10 [0.00, 0.20]"),
        (Interval(9.99412527, 9.99412452, 9.99412602), "9.99413 [9.99412, 9.99413]"),
        (Interval(4.2e-6, 2.1e-6, 6.3e-6), "4.2e-06 [2.1e-06, 6.3e-06]"),
        (Interval(2.5, -math.inf, math.inf), "2.500 [-inf, inf]"),
    ],
)
def test_prints_the_digits_that_the_interval_supports(interval, text):
    assert str(interval) == text
