import itertools
import lzma

import numpy as np
import pytest

from pyseq.analysis.baselines import (
    baseline_table,
    hindsight_bits,
    marginal_bits,
    markov_bits,
    xz_bits,
)


def _markov_chain(rng, transition, count):
    """Symbols of a first-order chain with rows `transition`, started anywhere."""
    edges = np.cumsum(transition, axis=1)
    draws = rng.random(count)
    symbols = np.zeros(count, dtype=np.uint16)
    for t in range(1, count):
        row = edges[symbols[t - 1]]
        symbols[t] = min(np.searchsorted(row, draws[t], side="right"), len(row) - 1)
    return symbols


# Few symbols (nothing is fitted), many (all is fitted), none at all, and one symbol alone.
_TRAINING = {
    "none": lambda rng: np.empty(0, dtype=np.int64),
    "one": lambda rng: np.array([2]),
    "few": lambda rng: rng.integers(0, 4, 60),
    "many": lambda rng: rng.choice(4, 5000, p=[0.7, 0.2, 0.09, 0.01]),
    "constant": lambda rng: np.full(4000, 1),
}


@pytest.mark.parametrize("training", _TRAINING)
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_probabilities_sum_to_one_after_any_context(training, order):
    alphabet = 5  # symbol 4 never occurs in training, neither alone nor in a context
    train = _TRAINING[training](np.random.default_rng(0))
    symbols = np.arange(alphabet)
    if order == 0:
        bits = marginal_bits(train, symbols, alphabet)
    else:
        # Each context with each symbol after it, one after the other.
        told = np.array(list(itertools.product(range(alphabet), repeat=order + 1)))
        bits = markov_bits(train, told.ravel(), alphabet, order)[order :: order + 1]
        for i in (1, len(told) // 2, -1):
            alone = markov_bits(train, told[i, -1:], alphabet, order, context=told[i, :-1])
            assert alone == pytest.approx(bits[[i]], abs=1e-12)
    assert np.isfinite(bits).all()
    totals = (2.0**-bits).reshape(-1, alphabet).sum(1)
    np.testing.assert_allclose(totals, 1.0, atol=1e-12)


def test_wide_alphabet_sums_to_one_too():
    rng = np.random.default_rng(1)
    alphabet = 3000  # beyond the dense table at order 1
    train = rng.zipf(1.3, 20_000) % alphabet
    for before in (int(train[0]), int(train[1]), alphabet - 1):
        pairs = np.stack([np.full(alphabet, before), np.arange(alphabet)], axis=1).ravel()
        bits = markov_bits(train, pairs, alphabet, 1)[1::2]
        assert np.sum(2.0**-bits) == pytest.approx(1.0, abs=1e-9)


def test_add_half_where_nothing_is_fitted():
    bits = marginal_bits([0, 0, 1], [0, 1, 2], 3)
    np.testing.assert_allclose(2.0**-bits, np.array([2.5, 1.5, 0.5]) / 4.5)


def test_witten_bell_by_hand_where_nothing_is_fitted():
    # After 0: 1 twice and 2 once, so n = 3, T = 2; the marginal is add-1/2 over 0 1 0 1 0 2.
    bits = markov_bits([0, 1, 0, 1, 0, 2], [1, 2, 0], 3, 1, context=[0])
    marginal = np.array([3.5, 2.5, 1.5]) / 7.5
    after_0 = (2 + 2 * marginal[1]) / 5
    after_1 = (0 + 1 * marginal[2]) / 3
    after_2 = marginal[0]  # nothing ever followed 2
    np.testing.assert_allclose(2.0**-bits, [after_0, after_1, after_2])


def test_sparse_and_dense_tables_agree(monkeypatch):
    rng = np.random.default_rng(2)
    train, test = rng.integers(0, 20, 30_000) ** 2 // 40, rng.integers(0, 10, 5000)
    dense = markov_bits(train, test, 16, 2)
    monkeypatch.setattr("pyseq.analysis.baselines._DENSE_KEYS", 1)
    monkeypatch.setattr("pyseq.analysis.baselines._CHUNK", 37)
    np.testing.assert_array_equal(markov_bits(train, test, 16, 2), dense)


def test_uint16_extremes_keep_their_keys_apart():
    train = np.tile(np.array([65535, 65534, 0, 65535, 65535, 0, 1], dtype=np.uint16), 2000)
    bits = markov_bits(train, train[:700], 65536, 2)
    # 65535 is followed by 65534 after 1 and by 0 after itself: order 2 knows everything.
    assert bits[2:].max() < 0.1


def test_context_continues_the_sequence():
    rng = np.random.default_rng(3)
    train, test = rng.integers(0, 3, 4000), rng.integers(0, 3, 500)
    whole = markov_bits(train, test, 3, 2)
    np.testing.assert_array_equal(
        markov_bits(train, test[100:], 3, 2, context=test[:100]), whole[100:]
    )
    np.testing.assert_array_equal(
        markov_bits(train, test[100:], 3, 2, context=test[99:100])[1:], whole[101:]
    )
    # Without a context the first symbol has only the marginal, the second only order 1.
    assert whole[0] == marginal_bits(train, test, 3)[0]
    assert whole[1] == markov_bits(train, test, 3, 1)[1]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_short_tests(count):
    bits = markov_bits([0, 1] * 500, [0, 1][:count], 2, 2)
    assert bits.shape == (count,)
    assert np.isfinite(bits).all()


@pytest.mark.parametrize("count", [50, 4000])
@pytest.mark.parametrize("alphabet", [1, 5])
def test_a_constant_stream_costs_nothing_and_never_less(count, alphabet):
    train, test = np.full(count, alphabet - 1), np.full(500, alphabet - 1)
    table = baseline_table(train, test, alphabet, context=train[-2:])
    for bits in (table["marginal"], table["order-1"], table["order-2"], hindsight_bits(test, 5)):
        assert not np.signbit(bits).any()
    if alphabet == 1:
        assert np.array_equal(table["order-2"], np.zeros(500))


def test_reaches_the_entropy_rate_of_a_known_chain():
    transition = np.array([[0.8, 0.15, 0.05], [0.1, 0.1, 0.8], [0.3, 0.6, 0.1]])
    stationary = np.linalg.matrix_power(transition, 200)[0]
    rate = -float(stationary @ np.sum(transition * np.log2(transition), axis=1))
    symbols = _markov_chain(np.random.default_rng(4), transition, 120_000)
    train, test = symbols[:100_000], symbols[100_000:]
    table = baseline_table(train, test, 3)
    spread = 3 * float(np.std(table["order-1"])) / np.sqrt(test.size)
    assert np.mean(table["order-1"]) == pytest.approx(rate, abs=spread)
    assert np.mean(table["order-2"]) == pytest.approx(np.mean(table["order-1"]), abs=2e-3)
    assert np.mean(table["marginal"]) > rate + 0.2


@pytest.mark.parametrize(("alphabet", "count"), [(10_001, 100_000), (1024, 20_000), (256, 50_000)])
def test_contexts_that_say_nothing_cost_nothing(alphabet, count):
    # Witten and Bell's fixed weights cost up to one bit here, add-1/2 a few hundredths.
    symbols = np.random.default_rng(alphabet).integers(0, alphabet, count + 10_000)
    table = baseline_table(symbols[:count], symbols[count:], alphabet)
    for name in ("marginal", "order-1", "order-2"):
        assert np.mean(table[name]) == pytest.approx(np.log2(alphabet), abs=3e-3), name


def test_text_of_this_package_climbs_the_ladder():
    source = lzma.__file__
    with open(source, "rb") as file:
        text = np.frombuffer(file.read(), dtype=np.uint8)
    cut = text.size * 9 // 10
    table = baseline_table(text[:cut], text[cut:], 256, context=text[cut - 2 : cut])
    means = [float(np.mean(table[name])) for name in ("order-2", "order-1", "marginal")]
    assert means == sorted(means)
    assert means[0] < 3.5
    assert means[2] < 5.5


def test_hindsight_beats_every_memoryless_code():
    rng = np.random.default_rng(5)
    test = rng.choice(6, 500, p=[0.4, 0.3, 0.15, 0.1, 0.04, 0.01])
    best = hindsight_bits(test, 6).sum()
    for _ in range(200):
        law = rng.dirichlet(np.bincount(test, minlength=6) + 0.5)
        assert best <= -np.log2(law)[test].sum() + 1e-9


def test_xz_counts_bytes_or_words():
    rng = np.random.default_rng(6)
    narrow, wide = rng.integers(0, 256, 20_000), rng.integers(0, 65_536, 20_000)
    assert xz_bits(narrow, 256) == pytest.approx(8.0, abs=0.05)
    assert xz_bits(wide, 65_536) == pytest.approx(16.0, abs=0.05)
    packed = lzma.compress(narrow.astype("<u2").tobytes(), preset=9 | lzma.PRESET_EXTREME)
    assert xz_bits(narrow, 257) == 8 * len(packed) / narrow.size
    assert xz_bits(np.zeros(10_000, dtype=np.uint16), 4) < 0.2


def test_table_holds_each_baseline_once():
    rng = np.random.default_rng(7)
    train, test = rng.integers(0, 7, 3000), rng.integers(0, 7, 200)
    table = baseline_table(train, test, 7, context=train[-2:])
    assert list(table) == ["marginal", "order-1", "order-2", "xz"]
    np.testing.assert_array_equal(table["marginal"], marginal_bits(train, test, 7))
    for order in (1, 2):
        expected = markov_bits(train, test, 7, order, context=train[-2:])
        np.testing.assert_array_equal(table[f"order-{order}"], expected)
    assert table["xz"] == xz_bits(test, 7)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: marginal_bits([0, 5], [0], 5), ValueError, r"train holds 5; .* lie in 0\.\.4"),
        (lambda: marginal_bits([0], [-1], 5), ValueError, "test holds -1"),
        (lambda: marginal_bits([0], [[0]], 5), ValueError, r"test has shape \(1, 1\)"),
        (lambda: marginal_bits([0], [0.5], 5), TypeError, "symbols must be integers"),
        (lambda: marginal_bits([0], [0], 65_537), ValueError, "alphabet 65537"),
        (lambda: markov_bits([0], [0], 5, 4), ValueError, "order 4"),
        (lambda: xz_bits([], 5), ValueError, "holds no symbols"),
    ],
)
def test_refuses(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
