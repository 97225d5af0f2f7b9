"""Periodic patterns, random walks and binary autoregressions."""

import math

import numpy as np
import pytest
from scipy import stats

from pyseq.data.streams import BLOCK, GbAr, Periodic, RandomWalk
from pyseq.errors import UserError
from tests.data.stream_samples import SIGMAS, batch_error, block_entropy, likeliest_growth, sample


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (Periodic, {"alphabet": 1}),
        (Periodic, {"period": 0}),
        (Periodic, {"period": 2**20 + 1}),
        (Periodic, {"noise": 1.01}),
        (Periodic, {"pattern_seed": -1}),
        (RandomWalk, {"alphabet": 65_537}),
        (RandomWalk, {"deviation": 0.0}),
        (RandomWalk, {"deviation": float("nan")}),
        (GbAr, {"weights": ()}),
        (GbAr, {"weights": (0.05,) * 11}),
        (GbAr, {"weights": [0.5]}),
        (GbAr, {"weights": (0.5, "a")}),
        (GbAr, {"weights": (0.5, -0.5)}),
        (GbAr, {"weights": (float("nan"),)}),
        (GbAr, {"fresh_ones": 0.0}),
    ],
)
def test_parameters_out_of_range(kind, parameters):
    with pytest.raises(UserError, match=f"{next(iter(parameters))} is .* fits?"):
        kind(**parameters)


# periodic


@pytest.mark.parametrize("period", [1, 7, 100, 5 * BLOCK + 3])
def test_without_noise_the_pattern_comes_round(period):
    stream = Periodic(1000, period, noise=0.0, pattern_seed=3)
    symbols = sample(stream, 3 * period + 2 * BLOCK, seed=1)
    np.testing.assert_array_equal(symbols[period:], symbols[:-period])
    turns = np.flatnonzero(np.resize(stream.pattern, 2 * period) == symbols[0])
    assert any(np.array_equal(np.roll(stream.pattern, -t), symbols[:period]) for t in turns)
    assert stream.entropy_rate == stream.min_entropy == 0.0


def test_phases_are_uniform():
    stream = Periodic(65_536, 8, noise=0.0)
    place = {symbol: phase for phase, symbol in enumerate(stream.pattern.tolist())}
    assert len(place) == 8
    phases = [place[int(sample(stream, 1, seed)[0])] for seed in range(400)]
    assert stats.chisquare(np.bincount(phases, minlength=8)).pvalue > 1e-6


@pytest.mark.parametrize(("alphabet", "noise"), [(256, 0.5), (2, 0.3), (10, 1.0)])
def test_noise_takes_its_share(alphabet, noise):
    stream, count = Periodic(alphabet, 100, noise), 1_000_000
    symbols = sample(stream, count, seed=2)
    clean = sample(Periodic(alphabet, 100, 0.0), count, seed=2)  # the same phase
    difference = (symbols.astype(np.int64) - clean) % alphabet
    probability = np.full(alphabet, noise / alphabet)
    probability[0] += 1 - noise
    counts = np.bincount(difference, minlength=alphabet)
    assert 1e-6 < stats.chisquare(counts, count * probability).pvalue < 1 - 1e-6
    assert stream.entropy_rate == pytest.approx(stats.entropy(probability, base=2), abs=1e-12)
    assert stream.min_entropy == pytest.approx(-math.log2(probability.max()), abs=1e-12)
    assert stream.average_min_entropy == stream.min_entropy
    hits = (difference[1:] == 0) & (difference[:-1] == 0)  # neighbours are lost independently
    assert abs(hits.mean() - probability[0] ** 2) < SIGMAS / math.sqrt(count)


# random walk


@pytest.mark.parametrize(
    ("alphabet", "deviation"), [(4096, 10.0), (5, 0.4), (16, 30.0), (2, 0.01), (65_536, 20_000.0)]
)
def test_steps_have_their_law(alphabet, deviation):
    stream, count = RandomWalk(alphabet, deviation), 1_000_000
    symbols = sample(stream, count, seed=1).astype(np.int64)
    counts = np.bincount(np.diff(symbols) % alphabet, minlength=alphabet)
    steps = np.arange(-12 * math.ceil(deviation), 12 * math.ceil(deviation) + 1)
    mass = stats.norm.cdf(steps + 0.5, 0, deviation) - stats.norm.cdf(steps - 0.5, 0, deviation)
    probability = np.bincount(steps % alphabet, mass, alphabet)
    np.testing.assert_allclose(stream.steps, probability, atol=1e-14)
    assert stream.entropy_rate == pytest.approx(stats.entropy(probability, base=2), abs=1e-9)
    assert stream.min_entropy == pytest.approx(-math.log2(probability.max()), abs=1e-9)
    often = (count - 1) * probability > 10  # the others are one cell
    observed = np.append(counts[often], counts[~often].sum())
    expected = (count - 1) * np.append(probability[often], probability[~often].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert expected.size == 1 or 1e-6 < stats.chi2.sf(statistic, expected.size - 1) < 1 - 1e-6


def test_steps_do_not_know_each_other():
    steps = np.diff(sample(RandomWalk(65_536, 10.0), 1_000_000).astype(np.int64))
    steps = (steps + 2**15) % 2**16 - 2**15
    for lag in (1, 2, BLOCK):
        assert abs(np.corrcoef(steps[:-lag], steps[lag:])[0, 1]) < SIGMAS / 1000


def test_the_first_value_is_uniform():
    firsts = [int(sample(RandomWalk(4, 1.0), 1, seed)[0]) for seed in range(400)]
    assert stats.chisquare(np.bincount(firsts, minlength=4)).pvalue > 1e-6


# binary autoregression

AUTOREGRESSIONS = [
    GbAr(),
    GbAr((0.5,), 0.2),
    GbAr((-0.9,), 0.5),
    GbAr((0.0, 0.0, -0.4, 0.3), 0.7),
    GbAr((0.2, -0.1, 0.1, 0.0, 0.05, 0.1, -0.2, 0.0, 0.0, 0.2), 0.4),
]


def chance_of_one(stream, past):
    """P(1 | past) as the definition has it; past (p, n), the newest first."""
    copies = [
        abs(weight) * (bit if weight > 0 else 1 - bit)
        for weight, bit in zip(stream.weights, past, strict=True)
    ]
    fresh = 1 - sum(abs(weight) for weight in stream.weights)
    return fresh * stream.fresh_ones + sum(copies)


@pytest.mark.parametrize("stream", AUTOREGRESSIONS)
def test_autoregression_follows_its_law(stream):
    order, count = len(stream.weights), 1_000_000
    bits = sample(stream, count, seed=3).astype(np.int64)
    past = np.stack([bits[order - lag : count - lag] for lag in range(1, order + 1)])
    now = bits[order:]
    chance = chance_of_one(stream, past)
    words = sum(past[i] << i for i in range(order))
    np.testing.assert_allclose(stream.transition[words, 1], chance, atol=1e-12)
    # after each word the ones are a binomial
    after = np.bincount(words, minlength=2**order)
    ones = np.bincount(words, now, 2**order)
    variance = after * stream.transition[:, 0] * stream.transition[:, 1]
    seen = variance > 5
    excess = (ones - after * stream.transition[:, 1])[seen] / np.sqrt(variance[seen])
    assert 1e-6 < stats.chi2.sf((excess**2).sum(), seen.sum()) < 1 - 1e-6
    mean, error = batch_error(-np.log2(np.where(now, chance, 1 - chance)))
    assert abs(mean - stream.entropy_rate) < SIGMAS * error
    mean, error = batch_error(((chance > 0.5) == now).astype(float))
    if (chance != 0.5).all():
        assert abs(mean - 2**-stream.average_min_entropy) < SIGMAS * error


@pytest.mark.parametrize("stream", AUTOREGRESSIONS)
def test_autoregression_entropy_by_enumeration(stream):
    """H(X_n | X_1..X_(n-1)) of exact block probabilities, n beyond the order."""
    order = len(stream.weights)
    probability = stream.stationary  # of words, oldest bit highest

    def entropy(law):
        return -(law * np.log2(law)).sum()

    longer = (probability[:, None] * stream.transition).ravel()
    assert stream.entropy_rate == pytest.approx(entropy(longer) - entropy(probability), abs=1e-10)
    # stationary: the oldest bit summed out leaves the same words
    np.testing.assert_allclose(longer.reshape(2, 2**order).sum(axis=0), probability, atol=1e-14)


def test_autoregression_entropy_is_that_of_blocks():
    symbols = sample(GbAr(), 1_000_000)
    conditional = block_entropy(symbols, 6, 2) - block_entropy(symbols, 5, 2)
    assert conditional == pytest.approx(GbAr().entropy_rate, abs=0.003)


@pytest.mark.parametrize("stream", AUTOREGRESSIONS)
def test_autoregression_min_entropy_is_the_limit_of_the_likeliest_sequence(stream):
    weight = np.log2(stream.transition)
    count = len(weight)
    targets = [(2 * np.arange(count) + bit) % count for bit in (0, 1)]

    def extend(best):
        longer = np.full(count, -np.inf)
        for bit in (0, 1):
            np.maximum.at(longer, targets[bit], best + weight[:, bit])
        return longer

    growth = likeliest_growth(np.log2(stream.stationary), extend, 2520)
    assert -growth == pytest.approx(stream.min_entropy, abs=1e-3)


def test_autoregression_of_one_lag_by_hand():
    stream = GbAr((-0.9,), 0.5)  # 1 after 0 with .95, 0 after 1 with .95
    assert stream.entropy_rate == pytest.approx(stats.entropy([0.95, 0.05], base=2))
    assert stream.min_entropy == pytest.approx(-math.log2(0.95))
    np.testing.assert_allclose(stream.stationary, 0.5)


def test_autoregression_starts_with_stationary_words():
    stream = GbAr((0.6, -0.2), 0.3)
    starts = np.array([sample(stream, 2, seed) for seed in range(300)], np.int64)
    counts = np.bincount(2 * starts[:, 0] + starts[:, 1], minlength=4)
    assert stats.chisquare(counts, 300 * stream.stationary).pvalue > 1e-6
