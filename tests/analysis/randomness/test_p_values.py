"""p-values of independent draws are no smaller than they may be, whatever the marginal."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from pyseq.analysis.randomness.test_result import holm
from tests.analysis.randomness.batteries import battery, marginals

RUNS = 50


@pytest.mark.parametrize(("name", "count"), [(n, 3_000) for n in marginals()] + [("uniform", 300)])
def test_small_p_values_are_as_rare_as_they_say(name, count):
    """A test that errs twice as often as it says at 1 % fails here about 1 time in 3 or so; one
    that errs always fails for sure. The bound is passed by a valid test but once in 20,000."""
    alphabet, draw = marginals()[name]
    below, times = Counter(), Counter()
    for seed in range(RUNS if count > 1_024 else RUNS // 4):  # shuffles take their time
        random = np.random.Generator(np.random.PCG64([seed, count]))
        for test in battery(draw(random, count), alphabet, seed=seed):
            if test.question == "marginal" and name in {"rare ones", "a biased die"}:
                continue  # these are not uniform
            if test.question == "marginal" and name in {"few frequent symbols", "huge gaps"}:
                continue
            assert 0 <= test.p_value <= 1, test
            group = test.name.split(", one of")[0]
            times[group] += 1
            below[group, 0.01] += test.p_value <= 0.01
            below[group, 0.1] += test.p_value <= 0.1
    assert times
    for (group, level), found in below.items():
        most = stats.binom.isf(5e-5, times[group], level)
        assert found <= most, (group, level, found, times[group])


@pytest.mark.parametrize(
    ("count", "rare"),
    [(3, 1), (4, 1), (10, 1), (1_000, 3), (20_000, 4), (100_000, 8), (100_000, 30)],
)
def test_rare_symbols_at_random_places_are_no_structure(count, rare):
    """Two rare symbols that happen to lie at a lag from each other are a coincidence. At 1 % for
    all tests together 6 of 60 false verdicts have a chance of 3e-5."""
    wrong = []
    for seed in range(60):
        random = np.random.Generator(np.random.PCG64([seed, count, rare]))
        x = np.zeros(count, np.uint16)
        x[random.choice(count, rare, replace=False)] = 1
        tests = [test for test in battery(x, 2, seed=seed) if test.question == "dependence"]
        fired = [
            t for t, p in zip(tests, holm([t.p_value for t in tests]), strict=True) if p <= 0.01
        ]
        wrong += fired[:1]
    assert len(wrong) < 6, wrong


def test_holm_errs_on_no_more_families_than_its_level():
    """With 20 true nulls of uniform p-values."""
    random = np.random.Generator(np.random.PCG64(0))
    wrong = sum(holm(random.random(20)).min() <= 0.05 for _ in range(4_000))
    assert 150 <= wrong <= 245  # 4,000 x (1 - .95^20 of Bonferroni) = 195 expected


def test_holm_equals_its_definition():
    assert np.allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    assert np.allclose(holm([0.9, 0.8]), [1.0, 1.0])
    assert holm([]).size == 0
