"""Temperatures and weights find what made the predictions."""

import numpy as np
import pytest

from pyseq.training.fusion.calibration import (
    fit_temperature,
    fit_weights,
    mixture,
    tempered,
)


def drawn(count: int, seed: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels that follow them."""
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.full(classes, 0.5), count)
    label = (random.random(count)[:, None] > p.cumsum(1)).sum(1).clip(max=classes - 1)
    return p, label


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_spoiled_the_probabilities_is_found(temperature):
    p, label = drawn(20_000, 0)
    spoiled = tempered(p, 1 / temperature)
    assert fit_temperature(spoiled, label) == pytest.approx(temperature, rel=0.04)
    np.testing.assert_allclose(tempered(spoiled, temperature), p, atol=1e-12)


def test_a_few_objects_that_are_all_recognised_ask_for_no_certainty():
    few = np.full((9, 3), 0.1) + 0.7 * np.eye(3)[[0, 1, 2] * 3]
    label = np.array([0, 1, 2] * 3)
    # Each object counts as of an unknown class by a tenth, a third of which is the right one.
    fitted = tempered(few, fit_temperature(few, label))
    assert fitted.max() == pytest.approx(1 - 0.1 * 2 / 3, abs=1e-3)


def test_no_objects_leave_the_temperature_at_one():
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, np.int64)) == 1.0


def test_probabilities_that_are_zero_stay_finite():
    sharp = tempered(np.array([[1.0, 0.0, 0.0]]), 0.5)
    assert np.isfinite(sharp).all()
    assert sharp.sum() == pytest.approx(1.0)


def test_the_mixture_is_over_those_who_may_speak():
    nan = np.full(2, np.nan)
    first, second = np.array([[1.0, 0.0], nan, nan]), np.array([[0.0, 1.0], [0.3, 0.7], nan])
    found = mixture([first, second], [3.0, 1.0])
    np.testing.assert_allclose(found[:2], [[0.75, 0.25], [0.3, 0.7]])
    assert np.isnan(found[2]).all()


def test_weights_go_to_the_predictor_that_knows():
    p, label = drawn(4000, 1)
    ignorant = np.random.default_rng(5).dirichlet(np.full(4, 0.5), 4000)
    weights = fit_weights([ignorant, p, ignorant[::-1]], label)
    assert sum(weights) == pytest.approx(1.0)
    assert weights[1] > 0.95


def test_weights_of_halves_that_see_different_things_are_found():
    # The best mixture of two experts whose mixture made the labels is that mixture.
    random = np.random.default_rng(2)
    first, second = (
        random.dirichlet(np.full(3, 0.3), 20_000),
        random.dirichlet(np.full(3, 0.3), 20_000),
    )
    truth = 0.7 * first + 0.3 * second
    label = (random.random(len(truth))[:, None] > truth.cumsum(1)).sum(1).clip(max=2)
    assert fit_weights([first, second], label)[0] == pytest.approx(0.7, abs=0.03)


def test_rows_that_were_trained_on_do_not_count():
    p, label = drawn(3000, 3)
    known = np.eye(4)[label]  # what a model says of what it has learned by heart
    blind = np.full_like(p, 0.25)
    cheat = np.where(np.arange(3000)[:, None] < 2000, np.nan, blind)
    weights = fit_weights([p, cheat], label)
    assert weights[0] > 0.95
    assert fit_weights([p, np.where(np.isnan(cheat), known, cheat)], label)[1] > 0.5
    with pytest.raises(ValueError, match="object 0 has no out-of-fold prediction"):
        fit_weights([cheat], label)
