"""Above 256 symbols the predictors do what the standard says, with no dictionary ever full."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from pyseq.analysis.predictability.sp800_90b import predict_all
from pyseq.ops import backends

pytestmark = pytest.mark.skipif(backends.refuse_native() is not None, reason="no pyseq._core")
COUNT = 5000
ALPHABETS = (2, 10, 257, 10_001, 65_536)


class Score:
    """Correct guesses, and the longest run of them."""

    def __init__(self):
        self.correct = self.run = self.longest = 0

    def count(self, right):
        self.run = self.run + 1 if right else 0
        self.correct += right
        self.longest = max(self.longest, self.run)


def best(followers):
    """The symbol that followed most often, the largest of equals, and how often."""
    count = max(followers.values())
    return max(symbol for symbol, often in followers.items() if often == count), count


def multi_mcw(x):
    score, right, winner = Score(), [0] * 4, 0
    for i in range(63, len(x)):
        guesses = []
        for width in (63, 255, 1023, 4095):
            if i < width:
                guesses.append(None)
                continue
            counts = Counter(x[i - width : i])
            most = max(counts.values())
            guesses.append(next(s for s in reversed(x[i - width : i]) if counts[s] == most))
        score.count(guesses[winner] == x[i])
        for j, guess in enumerate(guesses):
            if guess == x[i]:
                right[j] += 1
                if right[j] >= right[winner]:
                    winner = j
    return score


def lag(x):
    score, right, winner = Score(), [0] * 129, 1
    for i in range(1, len(x)):
        score.count(x[i - winner] == x[i])
        for d in range(1, min(128, i) + 1):
            if x[i - d] == x[i]:
                right[d] += 1
                if right[d] >= right[winner]:
                    winner = d
    return score


def multi_mmc(x):
    score, right, winner = Score(), [0] * 17, 1
    models = defaultdict(Counter)
    for i in range(2, len(x)):
        for d in range(1, min(16, i - 1) + 1):  # what the last step brought
            models[tuple(x[i - 1 - d : i - 1])][x[i - 1]] += 1
        heard = winner
        for d in range(1, min(16, i) + 1):
            followers = models.get(tuple(x[i - d : i]))
            if followers is None:
                continue
            correct = best(followers)[0] == x[i]
            if d == heard:
                score.count(correct)
            if correct:
                right[d] += 1
                if right[d] >= right[winner]:
                    winner = d
    return score


def lz78y(x):
    score = Score()
    dictionary = defaultdict(Counter)
    for i in range(17, len(x)):
        for j in range(16, 0, -1):
            dictionary[tuple(x[i - 1 - j : i - 1])][x[i - 1]] += 1
        guess, most = None, 0
        for j in range(16, 0, -1):
            followers = dictionary.get(tuple(x[i - j : i]))
            if followers is not None and best(followers)[1] > most:
                guess, most = best(followers)
        score.count(guess == x[i])
    return score


ORACLES = {"MultiMCW": multi_mcw, "Lag": lag, "MultiMMC": multi_mmc, "LZ78Y": lz78y}


def uniform(rng, alphabet):
    return rng.integers(0, alphabet, COUNT)


def skewed(rng, alphabet):
    """Few symbols often and many rarely."""
    return np.minimum((rng.pareto(0.7, COUNT) * alphabet / 500).astype(np.int64), alphabet - 1)


def repeated(rng, alphabet):
    """Pieces of 5 to 60 symbols that come back, and noise between them."""
    pieces = [rng.integers(0, alphabet, rng.integers(5, 60)) for _ in range(12)]
    parts = []
    while sum(map(len, parts)) < COUNT:
        parts += [pieces[rng.integers(12)], rng.integers(0, alphabet, rng.integers(0, 4))]
    return np.concatenate(parts)[:COUNT]


def noisy_period(rng, alphabet):
    period = np.resize(rng.integers(0, alphabet, 37), COUNT)
    return np.where(rng.random(COUNT) < 0.1, rng.integers(0, alphabet, COUNT), period)


def markov(rng, alphabet):
    """Each symbol leads to one of three others."""
    ways, x = rng.integers(0, alphabet, (alphabet, 3)), [0]
    for way in rng.integers(0, 3, COUNT - 1):
        x.append(int(ways[x[-1], way]))
    return np.array(x)


@pytest.mark.parametrize("alphabet", ALPHABETS)
@pytest.mark.parametrize("make", [uniform, skewed, repeated, noisy_period, markov])
def test_scores_are_those_of_the_plain_definition(make, alphabet):
    x = make(np.random.default_rng([alphabet, len(make.__name__)]), alphabet).astype(np.uint16)
    expected = {name: oracle(x.tolist()) for name, oracle in ORACLES.items()}
    # The standard's dictionaries hold all that a stream so short has; wide ones are asked of all.
    for asked in {alphabet, 65_536}:
        for prediction in predict_all(x, asked):
            if asked <= 256 and prediction.name == "LZ78Y":
                continue  # holds 65,536 contexts only, and these streams have up to 80,000
            score = expected[prediction.name]
            found = (prediction.correct, prediction.longest_run, prediction.full_at)
            assert found == (score.correct, score.longest, None), prediction.name


@pytest.mark.parametrize("position", [4094, 4095, 4500])
def test_windows_forget_what_leaves_them(position):
    """A stream of one symbol, then of others that tie: the mode must be searched at each step."""
    x = np.r_[np.zeros(position, np.int64), np.resize(np.arange(1, 1000), 2500)].astype(np.uint16)
    expected = multi_mcw(x.tolist())
    found = predict_all(x, 1000)[0]
    assert (found.correct, found.longest_run) == (expected.correct, expected.longest)


def test_a_wide_alphabet_is_no_blindfold():
    """A Markov chain of 20,000 states that lead to 2 each: one bit per symbol."""
    rng = np.random.default_rng(0)
    ways, x = rng.integers(0, 20_000, (20_000, 2)), [0]
    for way in rng.integers(0, 2, 400_000):
        x.append(int(ways[x[-1], way]))
    found = {p.name: p for p in predict_all(np.array(x, np.uint16), 20_000)}
    assert 1.0 < found["MultiMMC"].global_bits < 1.2
    assert 1.0 < found["LZ78Y"].global_bits < 1.2
    assert found["Lag"].global_bits > 10


def test_full_memory_is_told_and_what_was_learnt_stays():
    """1 MiB is full amid the noise; a period learnt before is known after."""
    rng = np.random.default_rng(1)
    period = rng.integers(0, 60_000, 500)
    x = np.r_[np.resize(period, 5000), rng.integers(0, 60_000, 200_000), np.resize(period, 5000)]
    small = {p.name: p for p in predict_all(x.astype(np.uint16), 65_536, memory=1 << 20)}
    large = {p.name: p for p in predict_all(x.astype(np.uint16), 65_536)}
    for name in ("MultiMMC", "LZ78Y"):
        assert 5000 < small[name].full_at < 100_000
        assert large[name].full_at is None
        assert small[name].correct >= 9000
        assert large[name].correct >= 9000
    for name in ("MultiMCW", "Lag"):
        assert small[name] == large[name]
