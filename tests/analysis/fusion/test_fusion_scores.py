import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, brier_score_loss, confusion_matrix, f1_score, log_loss

from pyseq.analysis.fusion.fusion_scores import macro_f1, scores

CLASSES = 4


def predictions(count, seed, sharpness=2.0):
    """Classes 0 to 3 and probabilities that know something about them."""
    random = np.random.default_rng(seed)
    label = random.integers(CLASSES, size=count)
    logits = random.normal(size=(count, CLASSES)) + sharpness * np.eye(CLASSES)[label]
    odds = np.exp(logits)
    return odds / odds.sum(-1, keepdims=True), label


def test_the_scores_are_scikit_learns():
    given, label = predictions(150, 0)
    found = scores(given, label)
    top = given.argmax(-1)
    assert found.accuracy.value == accuracy_score(label, top)
    assert found.macro_f1.value == pytest.approx(f1_score(label, top, average="macro"))
    assert found.nll.value == pytest.approx(log_loss(label, given))
    raw = brier_score_loss(label, given, scale_by_half=False)
    assert found.brier.value == pytest.approx(raw)
    np.testing.assert_array_equal(found.confusion, confusion_matrix(label, top))
    for each in (found.accuracy, found.macro_f1, found.nll, found.brier):
        assert each.low < each.value < each.high


def test_the_bootstrap_finds_the_standard_error_of_a_mean():
    given, label = predictions(400, 1)
    found = scores(given, label)
    cost = -np.log(given[np.arange(400), label])
    expected = 1.96 * cost.std(ddof=1) / 20
    assert found.nll.half_width == pytest.approx(expected, rel=0.1)


def test_copies_in_groups_are_no_evidence_of_their_own():
    given, label = predictions(100, 2)
    alone = scores(given, label)
    copies = np.repeat(given, 9, axis=0), np.repeat(label, 9)
    grouped = scores(*copies, group=np.repeat(np.arange(100), 9))
    fooled = scores(*copies)
    assert grouped.groups == 100
    for name in ("nll", "brier", "macro_f1", "accuracy"):
        width = getattr(alone, name).half_width
        assert getattr(grouped, name).half_width == pytest.approx(width, rel=0.15)
        assert getattr(fooled, name).half_width < 0.5 * width


def test_the_interval_of_f1_holds_the_f1_of_all_such_data():
    everything, label = predictions(100_000, 3)
    truth = scores(everything, label, resamples=100).macro_f1.value
    held = 0
    for k in range(120):
        few = slice(300 * k, 300 * (k + 1))
        found = scores(everything[few], label[few], resamples=200).macro_f1
        held += found.low <= truth <= found.high
    assert 107 <= held <= 119  # of 120; .95 gives fewer than 107 or all 120 about 5 times in 1000


def test_a_class_that_is_nowhere_does_not_count_in_f1():
    counts = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert macro_f1(counts) == pytest.approx((6 / 7 + 8 / 9) / 2)


def test_calibration_is_judged_against_chance():
    random = np.random.default_rng(4)
    given = random.dirichlet(np.ones(CLASSES), size=3000)
    label = (random.random((3000, 1)) > given.cumsum(-1)).sum(-1)
    honest = scores(given, label, resamples=100)
    assert honest.ece < honest.ece_by_chance
    sharper = given**3 / (given**3).sum(-1, keepdims=True)
    sure = scores(sharper, label, resamples=100)
    assert sure.ece > 2 * sure.ece_by_chance
    assert sure.accuracy == honest.accuracy


def test_very_many_objects_are_resampled_in_bundles():
    given, label = predictions(20_000, 5)
    found = scores(given, label, resamples=1000)
    cost = -np.log(given[np.arange(20_000), label])
    assert found.nll.half_width == pytest.approx(1.96 * cost.std() / 20_000**0.5, rel=0.1)
    assert found.confusion.sum() == 20_000


def test_certainty_that_fails_costs_much_but_not_everything():
    found = scores([[1.0, 0.0], [1.0, 0.0]], [0, 1])
    assert found.nll.value == pytest.approx(-math.log(2.0**-52) / 2)


def test_all_right_in_few_groups_is_no_certainty():
    found = scores([[1.0, 0.0]] * 20, [0] * 20, group=[0] * 10 + [1] * 10)
    assert found.accuracy.value == found.accuracy.high == 1
    assert found.accuracy.low < 0.2  # of two groups


def test_a_single_object_bounds_nothing():
    found = scores([[0.75, 0.25]], [0])
    assert found.nll.low == -math.inf


@pytest.mark.parametrize(
    ("probabilities", "label", "why"),
    [
        ([[0.5, 0.5]], [0, 1], r"probabilities \(1, 2\), label \(2,\)"),
        ([[2.0, -1.0]], [0], "logits"),
        ([[0.5, 0.6]], [0], "sums from 1.1"),
        ([[0.5, 0.5]], [2], "labels from 2 to 2 for 2 classes"),
        ([[0.5, 0.5]], [0.0], "float64"),
        ([[[0.5, 0.5]]], [0], r"\(N, classes\)"),
        (np.zeros((0, 2)), np.zeros(0, int), "N >= 1"),
        ([[math.nan, 0.5]], [0], "no distributions"),
    ],
)
def test_what_is_no_prediction_is_refused(probabilities, label, why):
    with pytest.raises(ValueError, match=why):
        scores(probabilities, label)
