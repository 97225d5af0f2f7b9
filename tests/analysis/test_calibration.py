import numpy as np
import pytest

from pyseq.analysis.calibration import (
    calibration_error,
    chance_calibration_error,
    prediction_groups,
    reliability_table,
)
from tests.analysis.evaluations import scores


def _by_hand(confidence, correct, bins):
    """Expected calibration error as its definition reads."""
    group = np.minimum((confidence * bins).astype(int), bins - 1)
    total = 0.0
    for k in range(bins):
        inside = group == k
        if inside.any():
            total += inside.sum() * abs(correct[inside].mean() - confidence[inside].mean())
    return total / confidence.size


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_error_agrees_with_its_definition(bins):
    rng = np.random.default_rng(0)
    confidence = np.concatenate([rng.random(5000), [0.0, 1.0, 1.0]])
    correct = rng.random(confidence.size) < confidence**2
    assert calibration_error(confidence, correct, bins=bins) == pytest.approx(
        _by_hand(confidence, correct, bins), abs=1e-12
    )


def test_certain_predictions_share_the_last_group():
    confidence, correct = [1.0] * 10 + [0.95] * 10, [1] * 8 + [0] * 2 + [1] * 10
    assert calibration_error(confidence, correct) == pytest.approx(0.975 - 0.9)


def test_calibrated_predictions_lie_on_the_diagonal_and_overconfident_ones_below():
    rng = np.random.default_rng(2)
    confidence = rng.random(50_000)
    calibrated = reliability_table(confidence, rng.random(50_000) < confidence, bins=10)
    spread = np.sqrt(calibrated.confidence * (1 - calibrated.confidence) / calibrated.count)
    assert np.all(np.abs(calibrated.accuracy - calibrated.confidence) < 4 * spread)
    over = reliability_table(confidence, rng.random(50_000) < 0.8 * confidence, bins=10)
    assert np.all(over.accuracy < over.confidence)


def test_every_prediction_is_in_one_group():
    rng = np.random.default_rng(3)
    confidence = rng.normal(0.001, 0.0001, 2000).clip(0, 1)
    correct = rng.random(2000) < 0.001
    table = reliability_table(confidence, correct, bins=8)
    assert table.count.sum() == 2000
    assert np.sum(table.accuracy * table.count) == pytest.approx(correct.sum())
    assert np.sum(table.confidence * table.count) == pytest.approx(confidence.sum())
    assert table.count.size == 8


def test_equal_mass_groups_are_equal_and_keep_ties_together():
    table = reliability_table(np.linspace(0, 1, 1000), np.ones(1000), bins=10)
    assert table.count.min() >= 99
    assert table.count.max() <= 101
    tied = reliability_table([0.2] * 90 + [0.7] * 10, [1] * 100, bins=5)
    assert tied.count.tolist() == [90, 10]
    np.testing.assert_allclose(tied.confidence, [0.2, 0.7])


def test_float32_softmax_may_exceed_one_by_a_rounding():
    assert calibration_error([np.float32(1.0000001)], [True]) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("confidence", "correct"),
    [
        ([], []),
        ([0.5], [1, 0]),
        ([1.5], [1]),
        ([-0.1], [1]),
        ([np.nan], [1]),
        ([0.5], [2]),
    ],
)
def test_refuses(confidence, correct):
    with pytest.raises(ValueError, match="calibration"):
        reliability_table(confidence, correct)
    with pytest.raises(ValueError, match="calibration"):
        calibration_error(confidence, correct)


@pytest.mark.parametrize("most", [1.0, 0.01])
def test_a_calibrated_predictor_stays_below_the_yardstick(most):
    """In 95 of 100 samples, also where confidences are as low as on a thousand classes."""
    rng = np.random.default_rng(1)
    confidence = most * rng.random(4000)
    yardstick = chance_calibration_error(confidence)
    below = [
        calibration_error(confidence, rng.random(4000) < confidence) < yardstick for _ in range(400)
    ]
    assert 0.91 < np.mean(below) < 0.98
    assert calibration_error(confidence, rng.random(4000) < 3 * confidence) > yardstick


def test_the_yardstick_shrinks_with_the_sample():
    confidence = np.random.default_rng(2).random(1000)
    large = chance_calibration_error(np.tile(confidence, 100))
    assert large == pytest.approx(chance_calibration_error(confidence) / 10, rel=1e-6)
    assert chance_calibration_error([1.0, 1.0]) == 0


@pytest.mark.parametrize("by", ["confidence", "entropy"])
def test_groups_cover_all_predictions_in_order(by):
    found = scores(1003)
    groups = prediction_groups(found, by, groups=10)
    assert [group.count for group in groups] == [101] * 3 + [100] * 7
    levels = [getattr(group, by) for group in groups]
    assert levels == sorted(levels)
    order = np.argsort(getattr(found, by))[:101]
    assert groups[0].bits.value == pytest.approx(found.bits[order].mean())
    assert groups[0].accuracy.value == pytest.approx(found.hits[order, 0].mean())
    assert groups[0].bits.low < groups[0].bits.value < groups[0].bits.high
    assert len(prediction_groups(scores(3), by)) == 3
