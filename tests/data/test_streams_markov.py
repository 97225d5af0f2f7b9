import itertools

import numpy as np
import pytest
from scipy import stats

from pyseq.data.streams import Markov1, Markov2, max_cycle_mean
from pyseq.errors import UserError
from tests.data.stream_samples import SIGMAS, batch_error, block_entropy, likeliest_growth, sample

# markov1


def test_markov_transitions_follow_the_matrix():
    stream, count = Markov1(alphabet=8, sharpness=1.0, matrix_seed=2), 1_000_000
    symbols = sample(stream, count).astype(np.int64)
    pairs = np.bincount(symbols[:-1] * 8 + symbols[1:], minlength=64).reshape(8, 8)
    expected = pairs.sum(axis=1, keepdims=True) * stream.transition
    assert expected.min() > 20
    statistic = ((pairs - expected) ** 2 / expected).sum()
    assert 1e-6 < stats.chi2.sf(statistic, 8 * 7) < 1 - 1e-6


@pytest.mark.parametrize("stream", [Markov1(), Markov1(alphabet=8, sharpness=1.0, matrix_seed=2)])
def test_markov_sample_agrees_with_its_closed_forms(stream):
    symbols = sample(stream, 1_000_000, seed=4)
    before, after = symbols[:-1], symbols[1:]
    mean, error = batch_error(-np.log2(stream.transition[before, after]))
    assert error < 0.01
    assert abs(mean - stream.entropy_rate) < SIGMAS * error
    mean, error = batch_error((stream.transition.argmax(axis=1)[before] == after).astype(float))
    assert abs(mean - 2**-stream.average_min_entropy) < SIGMAS * error
    for symbol in (0, 3):
        mean, error = batch_error((symbols == symbol).astype(float))
        assert abs(mean - stream.stationary[symbol]) < SIGMAS * error


def test_markov_first_symbol_is_stationary():
    stream = Markov1(alphabet=4, sharpness=4.0)
    firsts = [int(sample(stream, 1, seed)[0]) for seed in range(400)]
    counts = np.bincount(firsts, minlength=4)
    assert stats.chisquare(counts, 400 * stream.stationary).pvalue > 1e-6


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 3.0, 16.0])
@pytest.mark.parametrize("alphabet", [2, 64, 256])
def test_markov_matrix_is_a_positive_chain_with_its_stationary_law(alphabet, sharpness):
    stream = Markov1(alphabet, sharpness, matrix_seed=5)
    assert (stream.transition > 0).all()
    np.testing.assert_allclose(stream.transition.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(stream.stationary.sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(stream.stationary @ stream.transition, stream.stationary, atol=1e-12)
    assert stream.stationary.min() >= -1e-12


def test_markov_without_sharpness_is_uniform():
    stream = Markov1(16, 0.0)
    assert stream.entropy_rate == pytest.approx(4)
    assert stream.min_entropy == pytest.approx(4)


def test_matrix_seed_chooses_the_matrix_and_seed_the_path():
    assert not np.array_equal(Markov1(8).transition, Markov1(8, matrix_seed=1).transition)
    np.testing.assert_array_equal(Markov1(8).transition, Markov1(8).transition)


def test_a_path_does_not_reuse_the_random_numbers_of_its_matrix():
    ranks = Markov1(64, matrix_seed=0).transition.argsort(axis=1).argsort(axis=1)
    draws = np.random.Generator(np.random.PCG64(0)).random((64, 64))
    correlation = np.corrcoef(ranks.ravel(), draws.ravel())[0, 1]
    assert abs(correlation) < SIGMAS / 64


def test_min_entropy_is_the_limit_of_the_likeliest_sequence():
    stream, length = Markov1(alphabet=12, sharpness=1.5, matrix_seed=1), 20_000
    weight = np.log2(stream.transition)
    best = np.log2(stream.stationary)
    for _ in range(length - 1):
        best = (best[:, None] + weight).max(axis=0)
    # the likeliest path leaves the best cycle for at most k steps at each end
    slack = (2 * 12 * -weight.min() - np.log2(stream.stationary).min()) / length
    assert slack < 0.05
    assert abs(-best.max() / length - stream.min_entropy) < slack


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_max_cycle_mean_against_every_cycle(size):
    random = np.random.default_rng(size)
    for _ in range(20):
        weight = random.normal(size=(size, size))
        cycles = (
            cycle for n in range(1, size + 1) for cycle in itertools.permutations(range(size), n)
        )
        means = [
            np.mean([weight[a, b] for a, b in zip(c, (*c[1:], c[0]), strict=True)]) for c in cycles
        ]
        assert max_cycle_mean(weight) == pytest.approx(max(means), abs=1e-12)


# markov2


def test_order_2_transitions_follow_the_table():
    stream, count = Markov2(alphabet=4, sharpness=1.0, matrix_seed=2), 1_000_000
    symbols = sample(stream, count).astype(np.int64)
    codes = (symbols[:-2] * 4 + symbols[1:-1]) * 4 + symbols[2:]
    triples = np.bincount(codes, minlength=64).reshape(4, 4, 4)
    expected = triples.sum(axis=2, keepdims=True) * stream.transition
    assert expected.min() > 20
    statistic = ((triples - expected) ** 2 / expected).sum()
    assert 1e-6 < stats.chi2.sf(statistic, 16 * 3) < 1 - 1e-6


@pytest.mark.parametrize("stream", [Markov2(), Markov2(alphabet=3, sharpness=1.0, matrix_seed=2)])
def test_order_2_sample_agrees_with_its_closed_forms(stream):
    symbols = sample(stream, 1_000_000, seed=4)
    past = symbols[:-2], symbols[1:-1]
    mean, error = batch_error(-np.log2(stream.transition[(*past, symbols[2:])]))
    assert error < 0.01
    assert abs(mean - stream.entropy_rate) < SIGMAS * error
    mean, error = batch_error((stream.transition.argmax(axis=2)[past] == symbols[2:]).astype(float))
    assert abs(mean - 2**-stream.average_min_entropy) < SIGMAS * error


def test_order_2_entropy_is_that_of_blocks():
    stream = Markov2(alphabet=3, sharpness=1.0, matrix_seed=2)
    symbols = sample(stream, 1_000_000)
    conditional = block_entropy(symbols, 3, 3) - block_entropy(symbols, 2, 3)
    assert conditional == pytest.approx(stream.entropy_rate, abs=0.003)
    assert block_entropy(symbols, 2, 3) - block_entropy(symbols, 1, 3) > stream.entropy_rate + 0.02


@pytest.mark.parametrize("alphabet", [2, 5, 32])
@pytest.mark.parametrize("sharpness", [0.0, 3.0, 16.0])
def test_order_2_stationary_law(alphabet, sharpness):
    stream = Markov2(alphabet, sharpness, matrix_seed=5)
    np.testing.assert_allclose(stream.transition.sum(axis=2), 1, rtol=1e-12)
    following = np.einsum("hi,hij->ij", stream.stationary, stream.transition)
    np.testing.assert_allclose(following, stream.stationary, atol=1e-12)
    np.testing.assert_allclose(stream.stationary.sum(), 1, rtol=1e-12)


def test_order_2_without_sharpness_is_uniform():
    stream = Markov2(16, 0.0)
    assert stream.entropy_rate == pytest.approx(4)
    assert stream.min_entropy == pytest.approx(4)
    assert stream.average_min_entropy == pytest.approx(4)


def test_order_2_starts_with_stationary_pairs():
    stream = Markov2(alphabet=3, sharpness=2.0)
    starts = np.array([sample(stream, 2, seed) for seed in range(300)], np.int64)
    counts = np.bincount(starts[:, 0] * 3 + starts[:, 1], minlength=9)
    assert stats.chisquare(counts, 300 * stream.stationary.ravel()).pvalue > 1e-6


@pytest.mark.parametrize("matrix_seed", range(4))
def test_order_2_min_entropy_is_the_limit_of_the_likeliest_sequence(matrix_seed):
    stream = Markov2(alphabet=5, sharpness=1.5, matrix_seed=matrix_seed)
    weight = np.log2(stream.transition)

    def extend(best):
        return (best[:, :, None] + weight).max(axis=0)

    # every length up to 12 divides the steps, and so does that of the best cycle, or nearly
    growth = likeliest_growth(np.log2(stream.stationary), extend, 27_720)
    assert -growth == pytest.approx(stream.min_entropy, abs=1e-3)


@pytest.mark.parametrize(
    "parameters",
    [{"alphabet": 1}, {"alphabet": 33}, {"sharpness": -0.1}, {"matrix_seed": 1.5}],
)
def test_order_2_parameters_out_of_range(parameters):
    with pytest.raises(UserError, match=f"{next(iter(parameters))} is .* fits"):
        Markov2(**parameters)
