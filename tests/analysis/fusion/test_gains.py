import math

import numpy as np
import pytest
from scipy import stats

from pyseq.analysis.fusion.gains import (
    NO_DIFFERENCE,
    gain_of,
    mean_interval,
    paired_gain,
    verdict,
)
from pyseq.analysis.intervals import Interval

RUNS = 500


def misses(draw, **options):
    """How often the interval lies above zero, and how often below it."""
    above = below = 0
    for _ in range(RUNS):
        found = mean_interval(draw(), **options)
        above, below = above + (found.low > 0), below + (found.high < 0)
    return above, below


def likely(count, share=0.025):
    """Whether so many of RUNS are no surprise if each happens with at most this chance."""
    return stats.binom.sf(count - 1, RUNS, share) > 0.001


# Deviations of seeds, of objects and of the rest: every part in turn is the one that matters.
@pytest.mark.parametrize("parts", [(0, 1, 1), (0.3, 0, 1), (0.1, 1, 1), (1, 1, 1)])
def test_it_holds_what_other_seeds_and_objects_would_show(parts):
    random = np.random.default_rng(7)
    seed, item, rest = parts

    def draw():
        return (
            seed * random.normal(size=(5, 1))
            + item * random.normal(size=40)
            + rest * random.normal(size=(5, 40))
        )

    above, below = misses(draw)
    assert likely(above)
    assert likely(below)
    # Nor is it wider than it must be.
    assert stats.binom.cdf(above + below, RUNS, 0.05) > 0.0005


def test_objects_alone_would_be_fooled_by_five_seeds():
    random = np.random.default_rng(8)
    naive = 0
    for _ in range(RUNS):
        values = 0.3 * random.normal(size=(5, 1)) + random.normal(size=(5, 40))
        test = stats.ttest_1samp(values.mean(0), 0)
        naive += test.pvalue < 0.05
    assert naive > 0.2 * RUNS


@pytest.mark.parametrize("seeds", [1, 5])
def test_folds_are_models_of_their_own(seeds):
    random = np.random.default_rng(9)
    fold = np.arange(50) % 5

    def draw():
        model = 0.5 * random.normal(size=(seeds, 5))
        return model[:, fold] + random.normal(size=50) + random.normal(size=(seeds, 50))

    above, below = misses(draw, fold=fold)
    assert likely(above)
    assert likely(below)


def test_groups_count_once():
    random = np.random.default_rng(10)
    group = np.arange(60) // 3

    def draw():
        return random.normal(size=20)[group] + 0.3 * random.normal(size=(5, 60))

    above, below = misses(draw, group=group)
    assert likely(above)
    assert likely(below)
    above, below = misses(draw)
    assert not likely(above + below, 0.05)  # without the groups it is fooled


def test_a_gain_of_nothing_is_said_to_help_in_one_of_forty_at_the_most():
    """Of accuracy, whose differences are rare and of two kinds only."""
    random = np.random.default_rng(11)
    label = np.ones(150, int)
    kinds = {"helps": 0, "hurts": 0, NO_DIFFERENCE: 0}
    for _ in range(RUNS):
        ease = 2 + 2 * random.normal(size=150)

        def arm(ease=ease):
            """One way of training: its luck with seeds, and its own idea of each object."""
            logit = ease + 0.2 * random.normal(size=(5, 1)) + 0.5 * random.normal(size=150)
            p = 1 / (1 + np.exp(-logit - 0.5 * random.normal(size=(5, 150))))
            return np.stack([1 - p, p], -1)

        kinds[paired_gain(arm(), arm(), label).verdict] += 1
    assert likely(kinds["helps"])
    assert likely(kinds["hurts"])
    assert kinds["helps"] + kinds["hurts"] > 0.01 * RUNS


def test_a_gain_is_found_and_has_its_size():
    label = np.zeros(200, int)
    random = np.random.default_rng(12)
    p = random.uniform(0.3, 0.8, size=(5, 200))
    worse = np.stack([p, 1 - p], -1)
    better = np.stack([np.sqrt(p), 1 - np.sqrt(p)], -1)
    found = paired_gain(better, worse, label, metric="nll")
    assert found.interval.value == pytest.approx(-0.5 * np.log(p).mean())
    assert (found.verdict, found.seeds, found.objects) == ("helps", 5, 200)
    assert paired_gain(worse, better, label, metric="nll").verdict == "hurts"
    assert paired_gain(better, worse, label, metric="brier").verdict == "helps"
    hits = (p**0.5 >= 0.5).mean() - (p >= 0.5).mean()
    assert paired_gain(better, worse, label).interval.value == pytest.approx(hits)


def test_the_same_predictions_are_no_proof_of_equality():
    same = np.full((5, 100, 2), 0.5)
    found = paired_gain(same, same, np.zeros(100, int))
    assert found.verdict == NO_DIFFERENCE
    # Of 100 objects about 1.96 / 100 may still differ.
    assert found.interval.high == pytest.approx(0.0196, rel=0.02)
    assert paired_gain(same, same, np.zeros(100, int), metric="nll").interval.high == 0


def test_two_objects_that_got_better_prove_nothing():
    difference = np.zeros((5, 300))
    difference[:, :2] = 1
    assert gain_of(difference, "accuracy").verdict == NO_DIFFERENCE
    difference[:, :9] = 1
    assert gain_of(difference, "accuracy").verdict == "helps"


def test_what_the_interval_is_over_is_said():
    values = np.random.default_rng(13).normal(size=(5, 12))
    assert gain_of(values, "nll").over == "seeds and objects"
    assert gain_of(values[:1], "nll").over == "objects"
    group = np.arange(12) // 2
    found = gain_of(values, "nll", group=group, fold=np.arange(12) % 3)
    assert found.over == "seeds and folds and groups"


def test_one_seed_and_one_object_bound_nothing():
    assert mean_interval([[0.5]]) == Interval(0.5, -math.inf, math.inf)
    assert mean_interval([[0.5], [0.7]]).low == -math.inf  # one object of two seeds
    assert mean_interval([[0.5, 0.25]], fold=[0, 0]).low == -math.inf  # one model
    assert verdict(Interval(0.5, -math.inf, math.inf)) == NO_DIFFERENCE


def test_seeds_in_another_order_or_groups_of_other_names_change_nothing():
    values = np.random.default_rng(14).normal(size=(4, 30))
    group = np.arange(30) // 3
    first = mean_interval(values, group=group)
    second = mean_interval(values[::-1], group=100 - group)
    assert (first.low, first.high) == pytest.approx((second.low, second.high))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"group": [0, 1]}, r"group \(2,\); \(3,\) fits"),
        ({"fold": [0, 1]}, r"fold \(2,\) for 2 seeds of 3 objects"),
        ({"level": 1.0}, "level 1.0"),
    ],
)
def test_what_does_not_fit_is_refused(options, why):
    with pytest.raises(ValueError, match=why):
        mean_interval(np.zeros((2, 3)), **options)


def test_what_cannot_be_compared_is_refused():
    one, two = np.full((2, 3, 2), 0.5), np.full((3, 3, 2), 0.5)
    with pytest.raises(ValueError, match=r"with \(2, 3, 2\), without \(3, 3, 2\)"):
        paired_gain(one, two, [0, 1, 0])
    with pytest.raises(ValueError, match="known are accuracy, nll, brier"):
        paired_gain(one, one, [0, 1, 0], metric="ece")
    with pytest.raises(ValueError, match="finite"):
        mean_interval([[math.nan]])
