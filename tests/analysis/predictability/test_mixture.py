"""The online mixture: exact probabilities, no leak, and known entropy rates."""

import math
import sysconfig
import threading
from pathlib import Path

import numpy as np
import pytest

from pyseq.analysis.baselines import markov_bits
from pyseq.analysis.predictability.mixture import Mixture, MixtureScores, mixture_scores
from pyseq.data import streams
from pyseq.errors import BackendUnavailable
from pyseq.ops import backends

pytestmark = pytest.mark.skipif(backends.refuse_native() is not None, reason="needs pyseq._core")


def _entropy(probabilities):
    p = np.asarray(probabilities, dtype=np.float64)
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


def _noisy(symbols, alphabet, noise, rng):
    """Symbols of which some are replaced by uniform ones, and the entropy of that choice."""
    replaced = rng.random(symbols.size) < noise
    mixed = np.where(replaced, rng.integers(0, alphabet, symbols.size), symbols)
    right = 1 - noise + noise / alphabet
    return mixed.astype(np.uint16), _entropy([right] + [noise / alphabet] * (alphabet - 1))


def _order2(count, alphabet, rng):
    rows = rng.dirichlet(np.full(alphabet, 0.3), (alphabet, alphabet))
    edges, draws = rows.cumsum(-1), rng.random(count)
    symbols = np.zeros(count, dtype=np.uint16)
    for t in range(2, count):
        row = edges[symbols[t - 2], symbols[t - 1]]
        symbols[t] = min(int(np.searchsorted(row, draws[t], side="right")), alphabet - 1)
    used = rows[symbols[:-2], symbols[1:-1]]
    surprise = -(used * np.log2(np.maximum(used, 1e-300))).sum(-1)
    return symbols, float(surprise[count // 2 :].mean())


def _autoregressive_bits(count, rng):
    weights, draws = (1.2, -0.8, 0.6, 0.5, -1.0), rng.random(count)
    bits, rate = [0] * 5, 0.0
    for t in range(5, count):
        drive = sum(w * (2 * bits[t - 1 - i] - 1) for i, w in enumerate(weights))
        p = 1 / (1 + math.exp(-drive))
        bits.append(int(draws[t] < p))
        rate += _entropy([p, 1 - p]) if t >= count // 2 else 0
    return np.array(bits, dtype=np.uint16), rate / (count - count // 2)


def _hidden_markov(count, rng):
    """Two states, four symbols; the entropy rate by the forward algorithm on the stream itself."""
    move = np.array([[0.95, 0.05], [0.1, 0.9]])
    emit = np.array([[0.7, 0.2, 0.05, 0.05], [0.05, 0.05, 0.3, 0.6]])
    moves, draws, edges = rng.random(count), rng.random(count), emit.cumsum(1)
    symbols = np.zeros(count, dtype=np.uint16)
    state, belief, bits = 0, np.array([2 / 3, 1 / 3]), np.zeros(count)
    for t in range(count):
        state = 1 - state if moves[t] > move[state, state] else state
        symbols[t] = min(int(np.searchsorted(edges[state], draws[t], side="right")), 3)
        joint = belief @ move * emit[:, symbols[t]]
        bits[t] = -math.log2(joint.sum())
        belief = joint / joint.sum()
    return symbols, float(bits[count // 2 :].mean())


def _walk(count, rng):
    steps = np.rint(rng.normal(0, 10, count)).astype(np.int64)
    edges = [0.5 * (1 + math.erf((i + 0.5) / 10 / math.sqrt(2))) for i in range(-80, 81)]
    return (np.cumsum(steps) % 4096).astype(np.uint16), _entropy(np.diff(edges))


def _lcg(count):
    symbols = np.empty(count, dtype=np.uint16)
    state = 1
    for t in range(count):
        state = (state * 25173 + 13849) & 0xFFFF
        symbols[t] = state
    return symbols


_STREAMS = {
    "constant": lambda rng, k: np.full(700, k - 1),
    "uniform": lambda rng, k: rng.integers(0, k, 700),
    "biased": lambda rng, k: rng.binomial(k - 1, 0.2, 700) if k > 1 else np.zeros(700, int),
    "period": lambda rng, k: _noisy(np.tile(rng.integers(0, k, 9), 78)[:700], k, 0.1, rng)[0],
    "walk": lambda rng, k: np.cumsum(rng.integers(-1, 2, 700)) % k,
}


# Tables (1..16 symbols), strings and pairs (17..256), differences and successors (beyond).
@pytest.mark.parametrize("alphabet", [1, 2, 3, 4, 5, 16, 17, 100, 256, 257, 1000])
@pytest.mark.parametrize("name", _STREAMS)
def test_probabilities_sum_to_one_and_are_those_that_are_charged(name, alphabet):
    rng = np.random.default_rng(alphabet)
    symbols = _STREAMS[name](rng, alphabet).astype(np.uint16)
    mixture = Mixture(alphabet)
    stops = sorted({1, 2, 3, *rng.integers(4, 698, 8).tolist()})
    done = 0
    for stop in stops:
        mixture.score(symbols[done:stop])
        said = mixture.probabilities()
        assert said.min() > 0
        assert abs(said.sum() - 1) < 1e-9
        charged, _ = mixture.score(symbols[stop : stop + 1])
        assert charged[0] == -np.log2(min(said[symbols[stop]], 1.0))
        done = stop + 1


def test_probabilities_sum_to_one_in_a_long_stream_of_bytes():
    text = Path(sysconfig.get_paths()["stdlib"], "argparse.py").read_bytes()
    mixture = Mixture(256)
    for first in range(0, 60_000, 6_000):  # the table of strings grows in between
        mixture.score(np.frombuffer(text[first : first + 6_000], np.uint8))
        said = mixture.probabilities()
        assert said.min() > 0
        assert abs(said.sum() - 1) < 1e-9


@pytest.mark.parametrize("alphabet", [2, 16, 200, 65536])
def test_a_prefix_costs_what_it_costs_alone(alphabet):
    rng = np.random.default_rng(3)
    symbols = _noisy(np.tile(rng.integers(0, alphabet, 50), 400), alphabet, 0.3, rng)[0]
    whole = mixture_scores(symbols, alphabet)
    other = symbols.copy()
    other[7_001:] = rng.integers(0, alphabet, other.size - 7_001)  # another future
    for future in (symbols[:7_001], other):
        cut = mixture_scores(future, alphabet)
        np.testing.assert_array_equal(whole.bits[:7_001], cut.bits[:7_001])
        np.testing.assert_array_equal(whole.hits[:7_001], cut.hits[:7_001])


@pytest.mark.parametrize("alphabet", [2, 16, 200, 65536])
def test_pieces_cost_what_the_whole_does(alphabet):
    rng = np.random.default_rng(4)
    symbols = _noisy(np.tile(rng.integers(0, alphabet, 50), 400), alphabet, 0.3, rng)[0]
    whole = mixture_scores(symbols, alphabet)
    mixture = Mixture(alphabet)
    pieces = [mixture.score(piece) for piece in np.split(symbols, [0, 1, 2, 777, 778, 15_000])]
    np.testing.assert_array_equal(whole.bits, np.concatenate([bits for bits, _ in pieces]))
    np.testing.assert_array_equal(whole.hits, np.concatenate([hits for _, hits in pieces]))


def test_a_guess_is_right_no_more_often_than_its_symbol_is_likely():
    symbols = np.random.default_rng(5).integers(0, 16, 100_000).astype(np.uint16)
    hits = mixture_scores(symbols, 16).hits
    assert abs(hits.mean() - 1 / 16) < 5 * math.sqrt(1 / 16 * 15 / 16 / symbols.size)


@pytest.mark.parametrize("alphabet", [2, 4, 16, 256, 10001, 65536])
def test_uniform_symbols_cost_no_less_and_hardly_more(alphabet):
    # 2^-gain is a test martingale's value: above 2^20 once in a million streams.
    for seed in range(20):
        symbols = np.random.default_rng(seed).integers(0, alphabet, 5_000)
        excess = mixture_scores(symbols, alphabet).bits.sum() - 5_000 * math.log2(alphabet)
        assert -20 < excess < 1.01 + math.log2(1 + 5_000 / 64) / 8


def test_uniform_symbols_are_said_to_be_uniform():
    weights = mixture_scores(np.random.default_rng(0).integers(0, 64, 50_000), 64).weights
    assert weights["uniform"] > 0.8
    assert sum(weights.values()) == pytest.approx(1)


def test_independent_symbols_are_said_to_be_of_order_0():
    values = np.rint(np.random.default_rng(1).normal(2000, 300, 100_000)).clip(0, 4095)
    weights = mixture_scores(values.astype(np.uint16), 4096).weights
    assert weights["order 0"] > 0.8


# Half the symbols learn, the other half are compared with the entropy rate. 5 standard errors of
# the mean of the surprise, 0.05 bits at most, are allowed below it.
@pytest.mark.parametrize(
    ("make", "alphabet", "expert"),
    [
        pytest.param(lambda rng: _order2(200_000, 16, rng), 16, "order 2", id="order 2"),
        pytest.param(lambda rng: _walk(100_000, rng), 4096, "difference", id="walk"),
        pytest.param(lambda rng: _autoregressive_bits(100_000, rng), 2, "order 5", id="ar5"),
        pytest.param(lambda rng: _hidden_markov(100_000, rng), 4, None, id="hidden"),
        pytest.param(lambda rng: (_lcg(200_000), 0.0), 65536, None, id="lcg"),
        pytest.param(
            lambda rng: _noisy(np.tile(rng.integers(0, 256, 100), 1000), 256, 0.2, rng),
            256,
            None,
            id="period 100",
        ),
        pytest.param(
            lambda rng: _noisy(np.tile(rng.integers(0, 65536, 5_000), 40), 65536, 0.1, rng),
            65536,
            "long period",
            id="period 5000",
        ),
    ],
)
def test_code_length_comes_near_the_entropy_rate(make, alphabet, expert):
    symbols, rate = make(np.random.default_rng(11))
    scores = mixture_scores(symbols, alphabet)
    later = scores.bits[symbols.size // 2 :]
    below = max(5 * later.std() / math.sqrt(later.size), 1e-6)
    assert -below < later.mean() - rate < 0.05
    if expert is not None:
        assert max(scores.weights, key=scores.weights.get) == expert


@pytest.mark.parametrize("name", ["biased", "markov1"])
def test_code_length_comes_near_the_entropy_rate_of_a_generator(name):
    stream = streams.make(name, alphabet=16)
    symbols = stream.generate(200_000, 3).numpy()
    later = mixture_scores(symbols, 16).bits[100_000:]
    assert abs(later.mean() - stream.entropy_rate) < 0.02


def test_a_symbol_at_a_lag_is_found():
    rng = np.random.default_rng(2)
    symbols = rng.integers(0, 16, 50_000)
    copied = rng.random(symbols.size) < 0.5
    for t in range(12, symbols.size):
        if copied[t]:
            symbols[t] = (symbols[t - 12] * 5 + 3) % 16
    scores = mixture_scores(symbols, 16)
    assert max(scores.weights, key=scores.weights.get) == "lag 12"
    rate = _entropy([0.5 + 0.5 / 16] + [0.5 / 16] * 15)
    assert scores.bits[25_000:].mean() < rate + 0.05


def test_text_costs_less_than_order_2_fitted_on_its_first_half():
    # Lags say nothing of text: their stages must not lose hold of their weights' sum over it.
    folder = Path(sysconfig.get_paths()["stdlib"])
    text = b"".join(file.read_bytes() for file in sorted(folder.glob("a*.py")))[:400_000]
    symbols = np.frombuffer(text, np.uint8)
    half = symbols.size // 2
    fitted = markov_bits(symbols[:half], symbols[half:], 256, 2).mean()
    scores = mixture_scores(symbols, 256)
    assert scores.bits[half:].mean() < fitted - 0.5
    assert min(scores.weights.values()) > 0


def test_a_constant_costs_almost_nothing():
    for alphabet in (2, 256, 65536):
        assert mixture_scores(np.full(20_000, 1), alphabet).bits.sum() < 40
    scores = mixture_scores(np.zeros(1000, np.uint16), 1)
    assert scores.bits.sum() == 0
    assert scores.hits.all()


def test_no_symbols_and_one():
    scores = mixture_scores(np.empty(0, np.uint16), 256)
    assert scores.bits.shape == scores.hits.shape == (0,)
    assert sum(scores.weights.values()) == pytest.approx(1)
    one = mixture_scores(np.array([3]), 8)
    assert isinstance(one, MixtureScores)
    assert one.bits[0] == pytest.approx(3)
    assert sum(one.weights.values()) == pytest.approx(1)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"alphabet 0; it must lie in 1\.\.65536"):
        Mixture(0)
    with pytest.raises(ValueError, match="alphabet 65537"):
        mixture_scores(np.zeros(3, np.uint16), 65537)
    with pytest.raises(ValueError, match=r"hold 4; those of an alphabet of 4 lie in 0..3"):
        mixture_scores(np.array([0, 4]), 4)
    with pytest.raises(ValueError, match="hold -1"):
        mixture_scores(np.array([0, -1]), 4)
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        mixture_scores(np.zeros((1, 2), np.uint16), 4)
    with pytest.raises(TypeError, match="float64"):
        mixture_scores(np.zeros(2), 4)


def test_without_native_code_it_says_how_to_build_it(monkeypatch):
    monkeypatch.setattr(backends, "refuse_native", lambda: backends.NOT_BUILT)
    with pytest.raises(BackendUnavailable, match=r"pip install -e \."):
        Mixture(4)


def test_native_code_checks_what_it_is_given():
    core = backends.core()
    with pytest.raises(ValueError, match="alphabet 70000"):
        core.Mixture(70_000)
    mixture = core.Mixture(4)
    bits, hits = np.empty(3), np.empty(3, np.bool_)
    with pytest.raises(ValueError, match=r"symbol 4 at 2; .* 0..3"):
        mixture.score(np.array([0, 1, 4], np.uint16), bits, hits)
    with pytest.raises(ValueError, match=r"symbols \(2,\), bits \(3,\), hits \(3,\)"):
        mixture.score(np.array([0, 1], np.uint16), bits, hits)
    with pytest.raises(ValueError, match="out has 3 entries; there are 4 symbols"):
        mixture.probabilities(bits)
    # Nothing of what was refused was counted.
    np.testing.assert_array_equal(mixture.weight_sums(), 0)


def test_threads_that_share_a_mixture_take_turns():
    symbols = np.random.default_rng(0).integers(0, 4, 20_000).astype(np.uint16)
    mixture = Mixture(4)
    threads = [threading.Thread(target=mixture.score, args=(symbols,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(mixture.weight_sums().values()) == pytest.approx(4 * symbols.size)
