import math

import numpy as np
import pytest

from pyseq.analysis.ceilings import ceiling, format_percent
from pyseq.analysis.intervals import Interval

_ROLLS = 10_001


def _rolls(count, seed=0):
    symbols = np.random.default_rng(seed).integers(0, _ROLLS, count)
    return np.bincount(symbols, minlength=_ROLLS)


# Exact limits of 10,001 equally likely values in equally wide bins.
@pytest.mark.parametrize(
    ("bins", "top1", "top5", "nats"),
    [
        (256, "0.400 %", "2.00 %", 5.54516),
        (1024, "0.100 %", "0.500 %", 6.93052),
        (4096, "0.0300 %", "0.150 %", 8.29727),
        (10_001, "0.0100 %", "0.0500 %", 9.21044),
    ],
)
def test_rolls_have_the_exact_ceiling(bins, top1, top5, nats):
    found = ceiling(_rolls(500_000), np.arange(_ROLLS) * bins // _ROLLS)
    assert found.law == "uniform"
    assert format_percent(found.top1) == top1
    assert format_percent(found.top5) == top5
    assert found.nats == pytest.approx(nats, abs=5e-6)
    assert found.uniform_bits == math.log2(bins)


def test_rolls_in_1024_bins_by_counting():
    found = ceiling(_rolls(500_000), np.arange(_ROLLS) * 1024 // _ROLLS)
    assert found.top1 == 10 / 10_001
    assert found.top3 == pytest.approx(30 / 10_001)
    assert found.top5 == pytest.approx(50 / 10_001)
    assert found.bits == pytest.approx(9.99863, abs=1e-5)  # bits per symbol
    big, small = 10 / 10_001, 9 / 10_001  # 785 bins of ten values and 239 of nine
    assert found.bits == pytest.approx(
        -785 * big * math.log2(big) - 239 * small * math.log2(small), abs=1e-12
    )


@pytest.mark.parametrize("count", [3000, 10_000, 40_000, 200_000])
def test_uniform_symbols_are_seldom_rejected(count):
    laws = [ceiling(_rolls(count, seed)).law for seed in range(200)]
    # One in a thousand is rejected: three or more in 200 has probability 0.001.
    assert laws.count("uniform") >= 198


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("only even values", lambda rng, n: 2 * rng.integers(0, _ROLLS // 2, n)),
        ("a slope", lambda rng, n: (np.sqrt(rng.random(n)) * _ROLLS).astype(int)),
        ("one value more often", lambda rng, n: np.where(rng.random(n) < 0.01, 77, rng.integers(0, _ROLLS, n))),  # noqa: E501
        ("half of the range", lambda rng, n: rng.integers(0, _ROLLS // 2, n)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("count", [8000, 200_000])
def test_other_laws_are_rejected_with_few_and_many_symbols(name, draw, count):
    counts = np.bincount(draw(np.random.default_rng(1), count), minlength=_ROLLS)
    found = ceiling(counts)
    assert found.law == "marginal", name
    assert "not uniform" in found.reason


def test_too_few_symbols_prove_nothing():
    found = ceiling(_rolls(1000))
    assert found.law == "marginal"
    assert "too few" in found.reason
    assert ceiling([1, 0, 0]).law == "marginal"


def test_marginal_figures_are_those_of_the_counts():
    counts = np.array([500, 250, 125, 75, 30, 20])
    found = ceiling(counts)
    shares = counts / 1000
    plug_in = -np.sum(shares * np.log2(shares))
    assert found.bits == pytest.approx(plug_in + 5 / (2000 * math.log(2)))
    assert (found.top1, found.top3, found.top5) == (0.5, 0.875, 0.98)
    assert found.uniform_bits == math.log2(6)


def test_miller_and_madow_come_nearer_than_the_plug_in():
    law = np.random.default_rng(2).dirichlet(np.ones(200))
    truth = -float(np.sum(law * np.log2(law)))
    errors, plain = [], []
    for seed in range(50):
        counts = np.random.default_rng(seed).multinomial(4000, law)
        shares = counts[counts > 0] / 4000
        errors.append(ceiling(counts).bits - truth)
        plain.append(-np.sum(shares * np.log2(shares)) - truth)
    assert abs(np.mean(errors)) < 0.2 * abs(np.mean(plain))


def test_bins_merge_the_marginal_and_may_be_empty():
    counts = np.array([400, 100, 300, 200])
    found = ceiling(counts, [0, 0, 1, 1], bins=4)
    assert found.top1 == 0.5
    assert found.top3 == 1.0
    assert found.bits == pytest.approx(1.0 + 1 / (2000 * math.log(2)))
    assert found.uniform_bits == 2.0


def test_an_estimated_law_allows_only_about_as_many_bits():
    assert ceiling(np.full(16, 100)).allowance == "independent symbols allow"
    assert ceiling(np.array([50, 100, 900])).allowance == "independent symbols allow about"


def test_a_single_symbol_and_a_constant_stream():
    assert ceiling([17]).bits == 0.0
    assert ceiling([17]).top1 == 1.0
    constant = ceiling([0, 5000, 0])
    assert (constant.law, constant.bits, constant.top1) == ("marginal", 0.0, 1.0)


@pytest.mark.parametrize(
    ("counts", "options"),
    [
        ([], {}),
        ([0, 0], {}),
        ([3, -1], {}),
        ([3, 1], {"bin_of_symbol": [0]}),
        ([3, 1], {"bin_of_symbol": [0, -1]}),
        ([3, 1], {"bin_of_symbol": [0, 4], "bins": 4}),
    ],
)
def test_refuses(counts, options):
    with pytest.raises(ValueError, match="ceiling"):
        ceiling(counts, **options)


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0.001, "0.100 %"),
        (10 / 10_001, "0.100 %"),
        (50 / 10_001, "0.500 %"),
        (0.0, "0.000 %"),
        (0.009999, "1.00 %"),
        (0.0583, "5.83 %"),
        (0.0999949, "10.0 %"),
        (0.412, "41.2 %"),
        (1.0, "100.0 %"),
        (1.5259e-5, "0.00153 %"),
        (-0.02, "-2.00 %"),
        (math.inf, "inf %"),
        (Interval(0.0583, 0.0541, 0.0627), "5.83 % [5.41 %, 6.27 %]"),
    ],
)
def test_percentages(fraction, text):
    assert format_percent(fraction) == text
