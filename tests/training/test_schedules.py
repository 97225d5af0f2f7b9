"""Schedules: end points, continuity, and a clock that can take over."""

import numpy as np
import pytest

from pyseq.training.schedules import SCHEDULES, Progress, rate_factor


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
def test_no_jumps_and_no_nonsense(schedule, warmup):
    factors = np.array([rate_factor(schedule, p, warmup) for p in np.linspace(0, 1, 2001)])
    assert np.isfinite(factors).all()
    assert (factors >= 0).all()
    assert np.abs(np.diff(factors)).max() < 0.08  # one-cycle's steepest: 9 * pi / 2 / 200


def test_cosine_rises_then_falls_to_a_tenth():
    at = [rate_factor("cosine", p, 0.2) for p in (0, 0.1, 0.2, 0.6, 1.0)]
    assert at == pytest.approx([0, 0.5, 1, 0.55, 0.1])


def test_onecycle_peaks_at_ten_times():
    at = [rate_factor("onecycle", p, 0.3) for p in (0, 0.15, 0.3, 0.65, 1.0)]
    assert at == pytest.approx([1, 5.5, 10, 5.05, 0.1])


def test_constant_stays():
    assert [rate_factor("constant", p, 0.1) for p in (0.05, 0.1, 0.9)] == pytest.approx([0.5, 1, 1])


def test_progress_is_of_steps_or_of_the_clock():
    now = [0.0]
    by_steps = Progress(10, None, clock=lambda: now[0])
    assert [by_steps(step) for step in (0, 4, 9, 20)] == [0.1, 0.5, 1.0, 1.0]
    by_clock = Progress(1000, 60.0, clock=lambda: now[0])
    assert by_clock(0) == pytest.approx(0.001)
    now[0] = 30.0
    assert by_clock(1) == 0.5
    now[0] = 61.0
    assert by_clock(2) == 1.0
    assert by_clock.elapsed == 61.0


def test_a_resumed_clock_goes_on():
    now = [100.0]
    progress = Progress(1000, 60.0, clock=lambda: now[0])
    assert progress.elapsed == 0.0
    progress.resume(45.0)
    assert progress(0) == pytest.approx(0.75)
