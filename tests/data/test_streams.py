import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pyseq.data.streams import (
    BLOCK,
    NEGATIVE_CONTROLS,
    POSITIVE_CONTROLS,
    STREAMS,
    Biased,
    DiscretisedNormal,
    HmacRolls,
    Markov1,
    Uniform,
    make,
)
from pyseq.errors import UserError
from tests.data.stream_samples import SIGMAS, sample

REPRODUCIBLE = [name for name, stream in STREAMS.items() if stream.reproducible]

# what every stream of the registry promises


@pytest.mark.parametrize("name", REPRODUCIBLE)
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


@pytest.mark.parametrize("name", REPRODUCIBLE)
def test_a_shorter_stream_begins_a_longer_one(name):
    np.testing.assert_array_equal(sample(make(name), 5000, 1), sample(make(name), 20_000, 1)[:5000])


@pytest.mark.parametrize("name", REPRODUCIBLE)
def test_seeds_differ(name):
    assert not np.array_equal(sample(make(name), 1000, 0), sample(make(name), 1000, 1))


@pytest.mark.parametrize("name", REPRODUCIBLE)
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
    with pytest.raises(UserError, match=r"known are aes_ctr, biased, .*, xorshift32$"):
        make("coin")
    with pytest.raises(UserError, match="has no faces; it has alphabet, bias"):
        make("biased", faces=3)
    with pytest.raises(UserError, match="has no faces; it has no parameters"):
        make("pcg64", faces=3)


def test_describe_names_every_parameter_and_the_seed():
    assert Biased().describe(7) == "synthetic biased (alphabet 6, bias 0.5), seed 7"
    assert make("pcg64").describe(7) == "synthetic pcg64, seed 7"


def test_every_stream_but_uniform_is_a_control():
    assert not set(POSITIVE_CONTROLS) & set(NEGATIVE_CONTROLS)
    assert {*POSITIVE_CONTROLS, *NEGATIVE_CONTROLS, "uniform"} == set(STREAMS)
    for name, stream in (POSITIVE_CONTROLS | NEGATIVE_CONTROLS).items():
        assert type(stream) is STREAMS[name]
    assert all(stream.independent for stream in NEGATIVE_CONTROLS.values())
    positive = {name for name, stream in POSITIVE_CONTROLS.items() if stream.independent}
    assert positive == {"biased", "discretised_normal"}


@pytest.mark.parametrize("name", POSITIVE_CONTROLS)
def test_positive_controls_hold_less_than_their_alphabet(name):
    stream = POSITIVE_CONTROLS[name]
    assert stream.entropy_rate < math.log2(stream.alphabet) - 0.02


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
        (DiscretisedNormal, {"alphabet": 1}),
        (DiscretisedNormal, {"deviation": 0.0}),
        (DiscretisedNormal, {"deviation": float("inf")}),
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


# discretised normal


@pytest.mark.parametrize(
    ("alphabet", "deviation"), [(4096, 300.0), (7, 2.0), (2, 0.01), (256, 500.0), (65_536, 9e3)]
)
def test_discretised_normal_counts_and_entropy(alphabet, deviation):
    stream, count = DiscretisedNormal(alphabet, deviation), 1_000_000
    edges = np.append(np.arange(alphabet) - 0.5, np.inf)
    edges[0] = -np.inf
    probability = np.diff(stats.norm.cdf(edges, (alphabet - 1) / 2, deviation))
    np.testing.assert_allclose(stream.probabilities, probability, atol=1e-15)
    assert stream.entropy_rate == pytest.approx(stats.entropy(probability, base=2), abs=1e-9)
    assert stream.min_entropy == pytest.approx(-math.log2(probability.max()), abs=1e-9)
    counts = np.bincount(sample(stream, count), minlength=alphabet)
    often = count * probability > 10  # the others are one cell
    observed = np.append(counts[often], counts[~often].sum())
    expected = np.append(count * probability[often], count * probability[~often].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert 1e-6 < stats.chi2.sf(statistic, expected.size - 1) < 1 - 1e-6


def test_masses_of_far_tails_keep_their_digits():
    probabilities = DiscretisedNormal(41, 1.0).probabilities
    assert probabilities[0] == pytest.approx(stats.norm.sf(19.5), rel=1e-9)
    np.testing.assert_allclose(probabilities, probabilities[::-1], rtol=1e-12)
