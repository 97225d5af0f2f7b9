import itertools
import math

import numpy as np
import pytest
from scipy import stats

from pyseq.data.streams import BLOCK, HiddenMarkov
from pyseq.data.streams.filtering import Bounds
from pyseq.errors import UserError
from tests.data.stream_samples import SIGMAS, sample

SLOW = HiddenMarkov(4, (0.005, 0.008), 1.0, 1)  # states are remembered for hundreds of symbols
CHAINS = [
    HiddenMarkov(),
    HiddenMarkov(2, (0.3, 0.4), 1.0, 1),
    HiddenMarkov(3, (0.9, 0.6), 2.0, 2),
    HiddenMarkov(2, (0.995, 0.995), 2.0, 1),  # the likeliest sequence alternates
    HiddenMarkov(64, (0.02, 0.2), 3.0, 3),
    SLOW,
]


def words(stream, length):
    """Exact P(x_1..x_n, s_(n+1) | s_1) of all words (k**n, 2, 2)."""
    steps = [
        np.diag(stream.emission[:, symbol]) @ stream.transition for symbol in range(stream.alphabet)
    ]
    products = [np.eye(2)]
    for _ in range(length):
        products = [product @ step for product in products for step in steps]
    return np.array(products)


def entropy(joint):
    """H(last axis | the others) of joint probabilities, bits."""
    given = joint.sum(axis=-1, keepdims=True)
    return float(-(joint * np.log2(joint / given)).sum())


@pytest.mark.parametrize(("index", "length"), [(1, 10), (2, 9), (0, 7)])
def test_bounds_against_every_word(index, length):
    """Cover and Thomas, theorem 4.5.1, by plain enumeration."""
    stream = CHAINS[index]
    ahead = words(stream, length) @ stream.emission  # (words, s_1, next symbol)
    joint = stream.stationary[:, None] * ahead
    low, high = entropy(joint), entropy(joint.sum(axis=1))
    assert low < high
    assert low < stream.entropy_bounds.upper
    assert stream.entropy_bounds.lower < high
    poorer, better = joint.sum(axis=1).max(axis=-1).sum(), joint.max(axis=-1).sum()
    assert -math.log2(better) < stream.average_min_entropy_bounds.upper + 1e-12
    assert stream.average_min_entropy_bounds.lower < -math.log2(poorer) + 1e-12
    if index:  # those two chains forget within so many symbols
        assert high - low < 2e-3
        # conditioning on fewer symbols costs far less than knowing the state gains
        assert high == pytest.approx(stream.entropy_rate, abs=3e-4)
        assert -math.log2(poorer) == pytest.approx(stream.average_min_entropy, abs=3e-4)


@pytest.mark.parametrize("stream", CHAINS)
def test_bounds_are_as_narrow_as_promised(stream):
    ceiling = math.log2(stream.alphabet)
    for bounds in (
        stream.entropy_bounds,
        stream.average_min_entropy_bounds,
        stream.min_entropy_bounds,
    ):
        # what rounding does to bounds that meet
        assert -1e-12 < bounds.width <= 1e-4
        assert 0 < bounds.middle < ceiling
    assert stream.min_entropy < stream.entropy_rate
    assert stream.average_min_entropy < stream.entropy_rate


@pytest.mark.parametrize("stream", CHAINS)
def test_sample_agrees_with_the_bounds(stream):
    """The forward filter over independent paths, which knows of no bounds and no grid."""
    paths, burn_in, length = 60, 1500, BLOCK
    symbols = np.stack([sample(stream, length, seed) for seed in range(paths)]).astype(np.int64)
    law = np.tile(stream.stationary, (paths, 1))  # of the state, (paths, 2)
    bits, hits = np.zeros(paths), np.zeros(paths)
    everyone = np.arange(paths)
    for t in range(length):
        chances = law @ stream.emission
        observed = chances[everyone, symbols[:, t]]
        if t >= burn_in:
            bits -= np.log2(observed)
            hits += chances.argmax(axis=1) == symbols[:, t]
        law = law * stream.emission[:, symbols[:, t]].T / observed[:, None] @ stream.transition
    counted = length - burn_in
    for scores, truth in (
        (bits / counted, stream.entropy_rate),
        (hits / counted, 2**-stream.average_min_entropy),
    ):
        error = scores.std(ddof=1) / math.sqrt(paths)
        assert error < 0.004
        assert abs(scores.mean() - truth) < SIGMAS * error + 1e-4


@pytest.mark.parametrize("stream", CHAINS[1:3])
def test_min_entropy_against_every_word(stream):
    lengths = (7, 13) if stream.alphabet == 2 else (5, 11)
    best = [(stream.stationary @ words(stream, length).sum(axis=2).T).max() for length in lengths]
    # the best word repeats after 1, 2, 3 or 6 symbols here, so six more multiply P by its growth
    growth = math.log2(best[1] / best[0]) / 6
    assert -growth == pytest.approx(stream.min_entropy, abs=2e-3)


@pytest.mark.parametrize("stream", CHAINS)
def test_no_short_repetition_beats_the_min_entropy(stream):
    steps = [
        np.diag(stream.emission[:, symbol]) @ stream.transition for symbol in range(stream.alphabet)
    ]
    length = {2: 10, 3: 7, 4: 6, 64: 2}[stream.alphabet]
    for size in range(1, length + 1):
        for word in itertools.product(steps, repeat=size):
            product = word[0] if size == 1 else np.linalg.multi_dot(word)
            trace, determinant = np.trace(product), np.linalg.det(product)
            radius = trace / 2 + math.sqrt(max(trace**2 / 4 - determinant, 0))
            assert -math.log2(radius) / size >= stream.min_entropy_bounds.lower - 1e-9


def test_without_sharpness_symbols_are_uniform():
    stream = HiddenMarkov(8, (0.05, 0.4), 0.0)
    assert stream.entropy_rate == pytest.approx(3, abs=1e-9)
    assert stream.min_entropy == pytest.approx(3, abs=1e-9)
    assert stream.average_min_entropy == pytest.approx(3, abs=1e-9)


def test_states_that_are_forgotten_at_once_leave_independent_symbols():
    stream = HiddenMarkov(5, (0.5, 0.5), 2.0, 4)  # the next state is a fair coin
    marginal = stream.emission.mean(axis=0)
    assert stream.entropy_rate == pytest.approx(stats.entropy(marginal, base=2), abs=1e-9)
    assert stream.min_entropy == pytest.approx(-math.log2(marginal.max()), abs=5e-5)


def test_first_symbols_are_stationary():
    stream = HiddenMarkov()
    firsts = [int(sample(stream, 1, seed)[0]) for seed in range(300)]
    marginal = stream.stationary @ stream.emission
    assert stats.chisquare(np.bincount(firsts, minlength=4), 300 * marginal).pvalue > 1e-6


def test_pairs_have_their_law():
    stream = HiddenMarkov(4, (0.3, 0.6), 2.0, 5)
    symbols = sample(stream, 2_000_000, seed=2).astype(np.int64)
    law = np.einsum(
        "s,sx,st,ty->xy", stream.stationary, stream.emission, stream.transition, stream.emission
    )
    for x, y in itertools.product(range(4), repeat=2):
        pairs = (symbols[:-1] == x) & (symbols[1:] == y)
        means = pairs[: len(pairs) // 1000 * 1000].reshape(1000, -1).mean(axis=1)
        error = means.std(ddof=1) / math.sqrt(1000)
        assert abs(means.mean() - law[x, y]) < SIGMAS * error


@pytest.mark.parametrize(
    "parameters",
    [
        {"alphabet": 1},
        {"alphabet": 65},
        {"leave": (0.1,)},
        {"leave": [0.1, 0.1]},
        {"leave": (0.1, 0.001)},
        {"leave": (0.996, 0.1)},
        {"sharpness": 4.5},
        {"matrix_seed": -1},
    ],
)
def test_parameters_out_of_range(parameters):
    with pytest.raises(UserError, match=f"{next(iter(parameters))} is .* fits?"):
        HiddenMarkov(**parameters)


def test_middle_and_width():
    assert Bounds(1.0, 1.5).middle == 1.25
    assert Bounds(1.0, 1.5).width == 0.5
