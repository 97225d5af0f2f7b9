"""Laws of drawing against trees of choices; entropies against sums, known digits and samples."""

import math

import numpy as np
import pytest
from scipy import stats

from pyseq.data.grammars import GRAMMARS, find_grammar
from pyseq.errors import UserError
from tests.data.grammars.definitions import NAMES, law, strings

SAMPLED = [name for name in NAMES if not GRAMMARS[name].enumerated]


@pytest.mark.parametrize("max_length", [3, 6, 7])
@pytest.mark.parametrize("name", NAMES)
def test_probabilities_are_those_of_the_choices(name, max_length):
    grammar = GRAMMARS[name]
    exact = law(grammar, max_length)
    assert set(exact) <= set(grammar.words(max_length))
    for text in strings(grammar.symbols, max_length + 1 if len(grammar.symbols) < 4 else 6):
        expected = math.log(exact[text]) if text in exact else -math.inf
        assert grammar.log_probability(text, max_length) == pytest.approx(expected, abs=1e-12)
    for word, probability in exact.items():
        found = grammar.log_probability(word, max_length)
        assert found == pytest.approx(math.log(probability), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_sum_to_one(name):
    grammar = GRAMMARS[name]
    total = math.fsum(math.exp(grammar.log_probability(word, 10)) for word in grammar.words(10))
    assert total == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("max_length", [6, 7])
@pytest.mark.parametrize("name", NAMES)
def test_samples_follow_the_law(name, max_length):
    grammar, count = GRAMMARS[name], 40_000
    exact = law(grammar, max_length)
    words = grammar.sample(count, max_length, np.random.default_rng(11))
    assert len(words) == count
    index = {word: i for i, word in enumerate(exact)}  # a word outside the law is a KeyError
    counts = np.bincount([index[word] for word in words], minlength=len(exact))
    expected = count * np.array([float(p) for p in exact.values()])
    assert expected.min() > 5
    assert stats.chisquare(counts, expected).pvalue > 1e-5


@pytest.mark.parametrize("max_length", [3, 6, 7])
@pytest.mark.parametrize("name", NAMES)
def test_entropy_is_that_of_the_law(name, max_length):
    probabilities = [float(p) for p in law(GRAMMARS[name], max_length).values()]
    entropy = -math.fsum(p * math.log(p) for p in probabilities)
    assert GRAMMARS[name].entropy(max_length) == pytest.approx(entropy, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "max_length", "digits"),
    [
        ("aNbN", 256, "0.01888"),
        ("aNbNcN", 256, "0.01729"),
        ("baN", 256, "0.2734"),
        ("bbaN", 256, "0.03667"),
        ("aNbN", 32, "0.0840"),
    ],
)
def test_loss_floors_have_the_known_digits(name, max_length, digits):
    floor = GRAMMARS[name].loss_floor(max_length)
    assert floor.exact
    assert f"{floor.nats_per_target:.{len(digits) - 2}f}" == digits


# known from sampling only, with a standard error of .007
@pytest.mark.parametrize(("name", "sampled"), [("Dyck", 0.227), ("CS-Dyck", 0.620)])
def test_loss_floors_of_brackets_agree_with_earlier_samples(name, sampled):
    assert abs(find_grammar(name).loss_floor(256).nats_per_target - sampled) < 2 * 0.007


@pytest.mark.parametrize("name", SAMPLED)
def test_loss_floors_agree_with_the_likelihood_of_samples(name):
    grammar, count = GRAMMARS[name], 10_000
    words = grammar.sample(count, 256, np.random.default_rng(5))
    nats = np.array([-grammar.log_probability(word, 256) for word in words]) / 257
    error = nats.std() / math.sqrt(count)
    assert error < 0.004
    assert abs(nats.mean() - grammar.loss_floor(256).nats_per_target) < 4 * error


@pytest.mark.parametrize("name", SAMPLED)
def test_long_samples_are_words_of_the_language(name):
    grammar = GRAMMARS[name]
    words = grammar.data(15_000, 256, seed=1)
    assert len(words) == 15_000
    assert all(grammar.contains(word) for word in words[:2_000])
    lengths = [len(word) for word in words]
    assert min(lengths) == grammar.shortest
    assert 250 <= max(lengths) <= 256
    assert math.isfinite(sum(grammar.log_probability(word, 256) for word in words[:500]))


def test_lengths_of_dyck_words():
    words = find_grammar("Dyck").data(15_000, 256, seed=0)
    lengths = np.array([len(word) for word in words])
    # of n = 2 all, of longer n the third that closes at once, have two symbols
    assert abs((lengths == 2).mean() - (1 + 127 / 3) / 128) < 0.02
    assert abs(lengths.mean() - 69) < 4


@pytest.mark.parametrize("name", SAMPLED)
def test_data_depends_on_seed_and_part_alone(name):
    grammar = GRAMMARS[name]
    train = grammar.data(50, 64, seed=7)
    assert grammar.data(50, 64, seed=7, part="train") == train
    assert grammar.data(50, 64, seed=8) != train
    assert grammar.data(50, 64, seed=7, part="validation") != train


@pytest.mark.parametrize("name", NAMES)
def test_few_words_and_the_smallest_length(name):
    grammar, random = GRAMMARS[name], np.random.default_rng(0)
    assert grammar.sample(0, 20, random) == []
    words = grammar.sample(5, grammar.shortest, random)
    assert len(words) == 5
    assert set(words) <= set(grammar.words(grammar.shortest))
    with pytest.raises(UserError, match="-1 words"):
        grammar.sample(-1, 20, random)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_never_drawn_has_no_probability(name):
    grammar = GRAMMARS[name]
    word = next(word for word in grammar.words(8)[::-1] if word in law(grammar, 8))
    assert grammar.log_probability(word, len(word)) > -math.inf
    assert grammar.log_probability(word, len(word) - 1) == -math.inf
    assert grammar.log_probability("^" + word, 20) == -math.inf
    assert grammar.log_probability("", 20) == -math.inf


def test_dyck_draws_no_words_of_several_parts():
    dyck = find_grammar("Dyck")
    assert dyck.contains("()[]")
    assert dyck.log_probability("()[]", 20) == -math.inf
    assert dyck.log_probability("(())", 20) > -math.inf
