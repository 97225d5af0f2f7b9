"""Every benchmark, run through the harness and shown in pytest-benchmark's tables.

``pytest benchmarks`` takes small inputs and few rounds: it shows that every contestant is right and
that the benchmark runs. ``pytest benchmarks --full`` measures. A case is timed once, with its
contestants interleaved; pytest-benchmark is then handed the rounds of one contestant at a time, by
a timer that replays them.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from benchmarks import registry, table
from benchmarks.harness import Case, Measurement, Settings, measure


def pytest_generate_tests(metafunc):
    quick = not metafunc.config.getoption("--full")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pairs, names = [], []
    for op in registry.known():
        for case in registry.cases(op, quick=quick, device=device):
            for contestant in case.contestants:
                pairs.append((case, contestant.name))
                names.append(f"{op}-{case.shape}-{case.dtype}-{contestant.name}".replace(" ", "_"))
    metafunc.parametrize(("case", "name"), pairs, ids=names)


@cache
def measured(case: Case, quick: bool) -> Measurement:
    return measure(case, Settings.quick() if quick else Settings.on(case.device))


def test_contestant(request, case: Case, name: str):
    measurement = measured(case, quick=not request.config.getoption("--full"))
    timing = next(timing for timing in measurement.timings if timing.name == name)
    assert np.all(timing.seconds > 0)
    group = table.title(measurement)
    request.node.add_marker(pytest.mark.benchmark(timer=replay(timing.seconds), group=group))
    benchmark = request.getfixturevalue("benchmark")
    share, ratio = measurement.ceiling_share(timing), measurement.ratio(timing)
    benchmark.extra_info.update(
        unit=measurement.case.unit,
        unit_value=measurement.unit_value(timing),
        ceiling_share=share,
        ratio_p20_p50_p80=ratio,
        peak_bytes=timing.peak_bytes,
    )
    benchmark.pedantic(lambda: None, rounds=len(timing.seconds))


def replay(seconds: np.ndarray) -> Callable[[], float]:
    """A timer whose successive pairs of readings lie the given times apart."""
    readings = iter(np.stack([np.zeros_like(seconds), seconds], axis=1).ravel().tolist())
    return lambda: next(readings)
