"""Chances of runs against the exact ones, by the chain of states "the run is so long now"."""

import math

import numpy as np
import pytest

from pyseq.analysis.predictability.runs import chance_of_run, likeliest_p, log_chance_of_no_run


def exact_chance_of_run(p: float, length: int, trials: int) -> float:
    states = np.zeros(length)
    states[0] = 1.0
    found = 0.0
    for _ in range(trials):
        found += p * states[-1]
        states[1:], states[0] = p * states[:-1], (1 - p) * states.sum()
    return found


@pytest.mark.parametrize(
    ("p", "length", "trials"),
    [
        (0.5, 12, 3000),
        (0.5, 20, 3000),
        (0.1, 3, 1000),
        (1 / 257, 2, 5000),
        (1 / 65536, 1, 5000),
        (1 / 65536, 2, 5000),
        (0.9, 60, 2000),
        (0.3, 1, 10),
    ],
)
def test_the_approximation_is_close(p, length, trials):
    exact = exact_chance_of_run(p, length, trials)
    assert chance_of_run(p, length, trials) == pytest.approx(exact, rel=1e-6)


def test_the_ends():
    assert chance_of_run(0.1, 0, 5) == 1
    assert chance_of_run(0.1, 6, 5) == 0
    assert chance_of_run(1.0, 5, 5) == 1
    assert chance_of_run(0.999, 2, 10**6) == 1


@pytest.mark.parametrize(("length", "trials"), [(1, 100), (3, 10**9), (24, 8 * 10**6), (84, 10**6)])
def test_the_likeliest_p_has_the_confidence_asked_for(length, trials):
    p = likeliest_p(length, trials, 0.99)
    assert math.exp(log_chance_of_no_run(p, length, trials)) == pytest.approx(0.99, abs=1e-9)
