import hashlib
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pyseq.data.streams import (
    BLOCK,
    STREAMS,
    Biased,
    HmacRolls,
    Markov1,
    Uniform,
    hmac_roll,
    make,
    max_cycle_mean,
)
from pyseq.errors import UserError

SIGMAS = 5.0  # seeds are fixed; another generator would fail by chance once in 1.7 million


def sample(stream, count, seed=0):
    return stream.generate(count, seed).numpy()


def batch_error(scores, batches=100):
    """Mean of a stationary sequence and its standard error, by the means of long batches."""
    means = scores[: len(scores) // batches * batches].reshape(batches, -1).mean(axis=1)
    return means.mean(), means.std(ddof=1) / math.sqrt(batches)


# what every stream of the registry promises


@pytest.mark.parametrize("name", STREAMS)
def test_the_symbols_do_not_depend_on_the_chunks(name):
    stream, count = make(name), BLOCK + 1234
    whole = sample(stream, count, seed=3)
    for chunk in (1000, BLOCK, count, 2**20):
        pieces = list(stream.chunks(count, 3, chunk))
        assert [len(piece) for piece in pieces[:-1]] == [chunk] * (len(pieces) - 1)
        assert 1 <= len(pieces[-1]) <= chunk
        assert all(piece.dtype == np.uint16 for piece in pieces)
        np.testing.assert_array_equal(np.concatenate(pieces), whole)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(0, 40), chunk=st.integers(1, 50), seed=st.integers(0, 2**70))
def test_any_chunk_any_count_any_seed(count, chunk, seed):
    stream = Biased()
    pieces = list(stream.chunks(count, seed, chunk))
    assert [symbol for piece in pieces for symbol in piece.tolist()] == sample(stream, 40, seed)[
        :count
    ].tolist()


@pytest.mark.parametrize("name", STREAMS)
def test_a_shorter_stream_begins_a_longer_one(name):
    np.testing.assert_array_equal(sample(make(name), 5000, 1), sample(make(name), 20_000, 1)[:5000])


@pytest.mark.parametrize("name", STREAMS)
def test_seeds_differ(name):
    assert not np.array_equal(sample(make(name), 1000, 0), sample(make(name), 1000, 1))


@pytest.mark.parametrize("name", STREAMS)
def test_a_chunk_belongs_to_the_caller(name):
    whole = sample(make(name), 3000)
    pieces = make(name).chunks(3000, 0, 1000)
    for start in (0, 1000, 2000):
        piece = next(pieces)
        np.testing.assert_array_equal(piece, whole[start : start + 1000])
        piece[:] = 0


@pytest.mark.parametrize("name", STREAMS)
def test_symbols_and_entropies_stay_in_their_range(name):
    stream = make(name)
    symbols = stream.generate(20_000, 5)
    assert symbols.dtype == torch.uint16
    assert symbols.shape == (20_000,)
    assert int(symbols.numpy().max()) < stream.alphabet
    ceiling = math.log2(stream.alphabet) + 1e-9
    assert 0 <= stream.min_entropy <= stream.entropy_rate + 1e-9 <= ceiling + 1e-9
    assert 0 <= stream.average_min_entropy <= stream.entropy_rate + 1e-9
    assert stream.name == name
    assert stream.kind in ("values", "tokens")


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("numbers", [(-1, 0, 1), (1, -1, 1), (1, 0, 0), (1.5, 0, 1), (1, True, 1)])
def test_numbers_out_of_range_are_refused_at_once(name, numbers):
    with pytest.raises(UserError, match=r"a whole number >= [01] fits"):
        make(name).chunks(*numbers)


def test_generate_nothing():
    assert Uniform(4).generate(0, 0).shape == (0,)


def test_make_knows_names_and_parameters():
    assert make("biased", alphabet=3, bias=1.0) == Biased(3, 1.0)
    with pytest.raises(UserError, match="biased, hmac_rolls, markov1, uniform"):
        make("coin")
    with pytest.raises(UserError, match="has no faces; it has alphabet, bias"):
        make("biased", faces=3)


def test_describe_names_every_parameter_and_the_seed():
    assert Biased().describe(7) == "synthetic biased (alphabet 6, bias 0.5), seed 7"


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (Uniform, {"alphabet": 0}),
        (Uniform, {"alphabet": 65_537}),
        (Uniform, {"alphabet": 2.0}),
        (Biased, {"alphabet": 1}),
        (Biased, {"bias": -1.01}),
        (Biased, {"bias": 5.01}),
        (Biased, {"bias": float("nan")}),
        (Markov1, {"alphabet": 1}),
        (Markov1, {"alphabet": 1025}),
        (Markov1, {"sharpness": 16.5}),
        (Markov1, {"matrix_seed": -1}),
    ],
)
def test_parameters_out_of_range(kind, parameters):
    with pytest.raises(UserError, match=f"{next(iter(parameters))} is .* fits"):
        kind(**parameters)


# uniform and biased


@pytest.mark.parametrize("alphabet", [2, 6, 1000, 65_536])
def test_uniform_counts(alphabet):
    counts = np.bincount(sample(Uniform(alphabet), 1_000_000), minlength=alphabet)
    assert len(counts) == alphabet
    assert 1e-6 < stats.chisquare(counts).pvalue < 1 - 1e-6


def test_uniform_of_one_symbol():
    assert not sample(Uniform(1), 100).any()
    assert Uniform(1).entropy_rate == Uniform(1).min_entropy == 0.0


@pytest.mark.parametrize(("alphabet", "bias"), [(6, 0.5), (2, -0.9), (300, 40.0), (65_536, 3e4)])
def test_biased_counts_and_entropy(alphabet, bias):
    stream, count = Biased(alphabet, bias), 1_000_000
    symbols = sample(stream, count)
    p = (1 + bias) / alphabet
    probability = np.full(alphabet, (1 - p) / (alphabet - 1))
    probability[0] = p
    counts = np.bincount(symbols, minlength=alphabet)
    assert 1e-6 < stats.chisquare(counts, count * probability).pvalue < 1 - 1e-6
    assert stream.entropy_rate == pytest.approx(stats.entropy(probability, base=2), abs=1e-12)
    assert stream.min_entropy == pytest.approx(-math.log2(probability.max()), abs=1e-12)
    scores = -np.log2(probability[symbols])
    error = scores.std() / math.sqrt(count)
    assert abs(scores.mean() - stream.entropy_rate) < SIGMAS * error


def test_biased_at_both_ends():
    assert not sample(Biased(6, 5), 1000).any()
    assert Biased(6, 5).entropy_rate == Biased(6, 5).min_entropy == 0.0
    assert sample(Biased(6, -1), 20_000).min() == 1
    assert Biased(6, -1).entropy_rate == pytest.approx(math.log2(5))
    assert Biased(6, 0).entropy_rate == pytest.approx(math.log2(6))


@pytest.mark.parametrize("stream", [Uniform(10), Biased(6, 1.0), HmacRolls()])
def test_streams_of_two_seeds_are_independent(stream):
    count = 100_000
    one, other = sample(stream, count, 0), sample(stream, count, 1)
    frequencies = np.bincount(np.concatenate([one, other])) / (2 * count)
    chance = (frequencies**2).sum()
    agreements = (one == other).sum()
    assert abs(agreements - count * chance) < SIGMAS * math.sqrt(count * chance)


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


# hmac_rolls


def hmac_by_hand(key, message):
    """RFC 2104 with SHA-256, for keys of at most one block."""
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner)


def test_rolls_against_a_plain_computation():
    server_seed = hashlib.sha256(b"42").hexdigest()
    rolls = []
    for nonce in range(3000):
        digest = hmac_by_hand(server_seed.encode(), f"pyseq:{nonce}:0".encode()).digest()
        rolls.append(math.floor(int.from_bytes(digest[:4], "big") / 2**32 * 10_001))
    assert sample(HmacRolls(), 3000, seed=42).tolist() == rolls


def test_rolls_against_openssl():
    # key: printf 0 | openssl dgst -sha256
    # mac: printf pyseq:1:0 | openssl dgst -sha256 -mac HMAC -macopt key:5feceb66... (all of it)
    key = "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"
    mac = "8584329ba395215ee65f7e5c4a80495800f82651314c62d65e0469b5cfc61625"
    assert hmac_by_hand(key.encode(), b"pyseq:1:0").hexdigest() == mac
    assert 0x8584329B * 10_001 // 2**32 == 5216
    assert hmac_roll(key, "pyseq", range(1, 2)).tolist() == [5216]
    assert sample(HmacRolls(), 2, seed=0)[1] == 5216


def test_client_seed_changes_the_rolls():
    assert not np.array_equal(sample(HmacRolls("a"), 100), sample(HmacRolls("b"), 100))


def test_roll_probabilities_are_exact():
    stream = HmacRolls()
    counts = stream.probabilities * 2**32
    assert counts.sum() == 2**32
    assert set(counts.tolist()) == {429_453.0, 429_454.0}
    edges = np.concatenate([[0], np.cumsum(counts)]).astype(int).tolist()
    for roll in (0, 1, 777, 5000, 9999, 10_000):
        assert edges[roll] * 10_001 // 2**32 == roll
        assert (edges[roll + 1] - 1) * 10_001 // 2**32 == roll
    assert stream.entropy_rate == pytest.approx(stats.entropy(stream.probabilities, base=2))
    assert 0 < math.log2(10_001) - stream.entropy_rate < 1e-9
    assert stream.min_entropy == pytest.approx(32 - math.log2(429_454), abs=1e-12)


def test_rolls_look_uniform():
    counts = np.bincount(sample(HmacRolls(), 300_000), minlength=10_001)
    expected = 300_000 * HmacRolls().probabilities
    assert 1e-6 < stats.chisquare(counts, expected).pvalue < 1 - 1e-6
