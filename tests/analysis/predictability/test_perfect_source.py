"""What is said of perfect sources, against known figures and against perfect sources."""

import math

import numpy as np
import pytest

from pyseq.analysis.predictability.perfect_source import expected_of_perfect, expected_runs
from pyseq.analysis.predictability.sp800_90b import (
    global_bound,
    most_common_value,
    predict_all,
)
from pyseq.ops import backends

NAMES = ("MultiMCW", "Lag", "MultiMMC", "LZ78Y")


@pytest.mark.parametrize(
    ("count", "predictors", "most_common", "slack"),
    [(10**6, 15.27, 14.32, 0.04), (10**9, 15.97, 15.92, 0.005)],
)
def test_figures_of_16_bits(count, predictors, most_common, slack):
    """The known figures are of the expected counts; the mean score is a little off at 1e6."""
    found = expected_of_perfect(count, 65_536)
    assert -math.log2(global_bound(count / 65_536, count)) == pytest.approx(predictors, abs=0.005)
    for name in NAMES:
        assert found[name].bits == pytest.approx(predictors, abs=slack)
        assert found[name].low < found[name].bits < found[name].high
    assert found["most_common_value"].bits == pytest.approx(most_common, abs=slack)


def test_the_longest_run_misjudges_a_perfect_source_one_time_in_five():
    runs = {run.longest_run: run for run in expected_runs(10**9, 65_536)}
    assert runs[2].bits == pytest.approx(12.18, abs=0.005)
    assert runs[2].chance == pytest.approx(1 / 5, abs=0.01)
    assert set(runs) == {1, 2}


def test_few_symbols_of_a_wide_alphabet_score_little():
    """With 5,000 symbols nearly always none is guessed: 1 - 0.01^(1 / 4999) is the bound."""
    found = expected_of_perfect(5000, 65_536)["Lag"]
    assert found.bits == pytest.approx(-math.log2(1 - 0.01 ** (1 / 4999)), abs=0.03)
    assert list(expected_of_perfect(100, 2)) == ["Lag", "MultiMMC", "LZ78Y", "most_common_value"]


@pytest.mark.skipif(backends.refuse_native() is not None, reason="no pyseq._core")
@pytest.mark.parametrize(("count", "alphabet", "seeds"), [(5000, 2, 100), (20_000, 300, 100)])
def test_perfect_sources_score_what_is_expected(count, alphabet, seeds):
    expected = expected_of_perfect(count, alphabet)
    scores = {name: [] for name in expected}
    for seed in range(seeds):
        x = np.random.default_rng(seed).integers(0, alphabet, count).astype(np.uint16)
        for prediction in predict_all(x, alphabet):
            scores[prediction.name].append(prediction.global_bits)
        scores["most_common_value"].append(most_common_value(x, alphabet).min_entropy)
    for name, listed in scores.items():
        values = np.array(listed)
        error = np.std(values) / math.sqrt(seeds)
        assert abs(np.mean(values) - expected[name].bits) < 4 * error, name
        inside = (values >= expected[name].low) & (values <= expected[name].high)
        assert inside.mean() > 0.85, name  # 0.95 is expected; 100 have .85 with chance .0001


@pytest.mark.parametrize(("count", "alphabet"), [(2, 10), (100, 1), (100, 65_537)])
def test_what_does_not_fit_is_told(count, alphabet):
    with pytest.raises(ValueError, match=f"{count} symbols, alphabet {alphabet}"):
        expected_of_perfect(count, alphabet)
    with pytest.raises(ValueError, match=f"{count} symbols, alphabet {alphabet}"):
        expected_runs(count, alphabet)
