"""Evidence: the running maximum, validity under optional stopping, power, and the wrong way."""

import decimal
import math

import numpy as np
import pytest
from scipy import stats

from pyseq.analysis.baselines import hindsight_bits
from pyseq.analysis.predictability import evidence
from pyseq.analysis.predictability.evidence import (
    MOST_POINTS,
    average,
    conclude,
    evidence_against_independence,
    evidence_against_law,
    log_e_against_independence,
    log_e_against_law,
    running_maximum_likelihood,
)

STREAMS, LENGTH = 2000, 600
TWENTY = math.log(20)


def draws(law, shape, seed):
    """Independent symbols of a law, of this shape."""
    edges = np.cumsum(law)[:-1]
    return np.searchsorted(edges, np.random.default_rng(seed).random(shape), side="right")


def biased(k):
    weights = np.arange(1, k + 1) ** 1.5
    return weights / weights.sum()


def order_one(symbols, k):
    """Log-probabilities (S, N) of streams (S, N) by one online add-1/2 count model each."""
    rows = np.arange(len(symbols))
    counts = np.full((len(symbols), k, k), 0.5)
    log_q = np.empty(symbols.shape)
    before = np.zeros(len(symbols), int)
    for t in range(symbols.shape[1]):
        here = counts[rows, before]
        came = symbols[:, t]
        log_q[:, t] = np.log(here[rows, came] / here.sum(1))
        counts[rows, before, came] += 1
        before = came
    return log_q


def counting(symbols, counts):
    """Log-probabilities (S, N) of streams (S, N) by counts (S, k) that go on counting."""
    rows, counts = np.arange(len(symbols)), counts.copy()
    log_q = np.empty(symbols.shape)
    for t, came in enumerate(symbols.T):
        log_q[:, t] = np.log(counts[rows, came] / counts.sum(1))
        counts[rows, came] += 1
    return log_q


def crossings(paths):
    return sum(float(path.max()) >= TWENTY for path in paths)


def assert_valid(crossed):
    """No sign that more than 5 % cross: a valid e-process fails this once in 10,000 times."""
    assert stats.binomtest(crossed, STREAMS, 0.05, alternative="greater").pvalue > 1e-4, crossed


@pytest.mark.parametrize("k", [1, 2, 7, 256])
def test_the_running_maximum_is_the_maximum_over_laws(k, monkeypatch):
    monkeypatch.setattr(evidence, "_CHUNK", 97)  # so that counts are carried over
    monkeypatch.setattr(evidence, "_ROW", 41)
    came = draws(biased(k), 700, k)
    expected = [-math.log(2) * hindsight_bits(came[:t], k).sum() for t in range(1, 701)]
    assert np.allclose(running_maximum_likelihood(came, k), expected, atol=1e-9, rtol=0)


def test_the_running_maximum_stays_exact_over_ten_million_symbols():
    k, repeats = 256, 39_063
    came = np.tile(np.arange(k, dtype=np.uint8), repeats)
    path = running_maximum_likelihood(came, k)
    for periods in (1, 1000, repeats):  # after whole periods every class came equally often
        t = periods * k
        assert path[t - 1] == pytest.approx(-t * math.log(k), abs=1e-6, rel=0)
    # Two uneven classes: n ln n + m ln m - (n + m) ln(n + m), by numbers of 50 digits.
    with decimal.localcontext(prec=50):
        n, m = decimal.Decimal(9_999_999), decimal.Decimal(17)
        exact = float(n * n.ln() + m * m.ln() - (n + m) * (n + m).ln())
    came = np.zeros(10_000_016, np.uint8)
    came[588_236::588_236] = 1
    assert (came == 1).sum() == 17
    assert running_maximum_likelihood(came, 2)[-1] == pytest.approx(exact, abs=1e-6, rel=0)


@pytest.mark.parametrize("law", ["uniform", "biased"])
@pytest.mark.parametrize("k", [2, 6, 16])
def test_few_independent_streams_ever_cross(k, law):
    p = np.full(k, 1 / k) if law == "uniform" else biased(k)
    symbols = draws(p, (STREAMS, LENGTH), k)
    log_q = order_one(symbols, k)
    assert_valid(crossings(map(lambda q, x: log_e_against_law(q, x, p), log_q, symbols)))
    assert_valid(crossings(map(lambda q, x: log_e_against_independence(q, x, k), log_q, symbols)))


def test_the_bound_is_nearly_reached_and_not_passed():
    """A predictor that bets on another law: the share comes near 5 %, so the bound has teeth."""
    symbols = draws([0.5, 0.5], (STREAMS, 3000), 1)
    log_q = np.log([0.55, 0.45])[symbols]
    crossed = crossings(log_e_against_law(q, x, 2) for q, x in zip(log_q, symbols, strict=True))
    assert_valid(crossed)
    assert crossed > 0.035 * STREAMS
    # The same bets, were the probabilities to sum to 1.01.
    log_q = np.minimum(log_q + math.log(1.01), 0)
    with pytest.raises(AssertionError):
        assert_valid(
            crossings(log_e_against_law(q, x, 2) for q, x in zip(log_q, symbols, strict=True))
        )


def test_a_law_fitted_on_training_symbols_is_no_null():
    """What the module's docstring says, with its numbers."""
    k, streams = 64, 300
    symbols = draws(biased(k), (streams, 11_000), 3)
    train, rest = symbols[:, :1000], symbols[:, 1000:]
    counts = np.stack([np.bincount(row, minlength=k) for row in train]) + 0.5
    log_q = counting(rest, counts)
    fitted = counts / counts.sum(1, keepdims=True)
    wrong = crossings(map(log_e_against_law, log_q, rest, fitted))
    right = crossings(log_e_against_independence(q, x, k) for q, x in zip(log_q, rest, strict=True))
    assert (wrong, right) == (300, 0)


def test_a_markov_chain_is_found():
    k = 6
    random = np.random.default_rng(0)
    steps = random.random((1, 4000)) < 0.4  # stays, or is drawn anew
    fresh = random.integers(k, size=(1, 4000))
    last = np.maximum.accumulate(np.where(steps, 0, np.arange(4000)), axis=1)
    symbols = np.take_along_axis(fresh, last, axis=1)
    log_q = order_one(symbols, k)[0]
    came = symbols[0]
    stay, move = 0.4 + 0.6 / k, 0.6 / k
    rate = -stay * math.log2(stay) - (k - 1) * move * math.log2(move)
    for found in (
        evidence_against_law(log_q, came, k),
        evidence_against_independence(log_q, came, k),
    ):
        assert found.log_e > 500
        assert found.p_value < 1e-200
        assert found.first_exceeds is not None
        assert found.first_exceeds < 400
        assert found.saved_bits.value == pytest.approx(math.log2(k) - rate, abs=0.05)
        assert found.saved_bits.low > 0.2


def test_what_is_concluded():
    path = np.log([0.5, 3.0, 120.0, 90.0, 101.0, 2.0])
    found = conclude(path, "a null", level=0.01, block=1)
    assert (found.null, found.symbols, found.level) == ("a null", 6, 0.01)
    assert found.log_e == pytest.approx(math.log(2))
    assert found.log_e_max == pytest.approx(math.log(120))
    assert found.p_value == pytest.approx(1 / 120)
    assert found.first_exceeds == 3
    assert found.path[0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert np.allclose(found.path[1], np.append(0, path) / math.log(10))
    assert found.saved_bits.value == pytest.approx(1 / 6)


def test_without_growth_there_is_no_evidence():
    found = conclude(-np.arange(1.0, 50.0), "a null")
    assert (found.log_e_max, found.p_value, found.first_exceeds) == (0.0, 1.0, None)


def test_a_long_path_is_thinned_and_keeps_its_maximum():
    path = np.random.default_rng(0).normal(-1, 0.1, 100_003)
    path[54_321] = 9.0
    seen, shown = conclude(path, "a null").path
    assert len(seen) == len(shown) <= MOST_POINTS
    assert (np.diff(seen) > 0).all()
    assert (seen[0], seen[-1], shown[0]) == (0, 100_003, 0.0)
    assert seen[shown.argmax()] == 54_322
    assert shown.max() == pytest.approx(9 / math.log(10))


def test_the_gain_in_bits_is_the_last_e_value():
    came = draws(biased(5), 999, 4)
    log_q = counting(came[None], np.ones((1, 5)))[0]
    for found in (
        evidence_against_law(log_q, came, biased(5)),
        evidence_against_independence(log_q, came, 5),
    ):
        assert found.saved_bits.value * 999 * math.log(2) == pytest.approx(found.log_e, abs=1e-8)


def test_the_mean_of_e_processes():
    paths = np.random.default_rng(0).normal(0, 3, (3, 50))
    weights = [1, 2, 5]
    expected = np.log(np.average(np.exp(paths), axis=0, weights=weights))
    assert np.allclose(average(list(paths), weights), expected)
    assert np.allclose(average(list(paths)), np.log(np.exp(paths).mean(0)))
    huge = average([np.array([2000.0]), np.array([-2000.0])])
    assert huge[0] == pytest.approx(2000 - math.log(2))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: log_e_against_independence([-1.0], [0], 257), "257 classes; 1 to 256 fit"),
        (lambda: log_e_against_independence([-1.0], [3], 3), "classes 3 to 3; 0 to 2 fit"),
        (lambda: log_e_against_independence([-1.0], [-1], 3), "classes -1 to -1"),
        (lambda: log_e_against_independence([-1.0], [0.5], 3), "float64; integers fit"),
        (lambda: log_e_against_independence([], np.empty(0, int), 3), "N >= 1"),
        (lambda: log_e_against_independence([-1.0], [0, 1], 3), "shape"),
        (lambda: log_e_against_law([-np.inf], [0], 3), "can never recover"),
        (lambda: log_e_against_law([np.nan], [0], 3), "finite"),
        (lambda: log_e_against_law([0.1], [0], 3), "up to 0 fit"),
        (lambda: log_e_against_law([-1.0], [0], [0.5, 0.4]), "sums to 0.9"),
        (lambda: log_e_against_law([-1.0], [0], [1.5, -0.5]), "non-negative"),
        (lambda: log_e_against_law([-1.0] * 2, [0, 1], [1.0, 0.0]), "class 1 came after 1 symbols"),
        (lambda: log_e_against_law([-1.0], [0], 0), "at least 1 fits"),
        (lambda: average([]), "0 paths"),
        (lambda: average([[1.0], [1.0, 2.0]]), "one shape"),
        (lambda: average([[1.0], [2.0]], [1.0, 0.0]), "positive weight"),
        (lambda: conclude([1.0], "a null", level=1.0), "level"),
        (lambda: conclude([np.nan], "a null"), "finite"),
    ],
)
def test_what_does_not_fit_is_told(call, words):
    with pytest.raises(ValueError, match=words):
        call()
