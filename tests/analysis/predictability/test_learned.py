"""A model's scores on unseen symbols, and its probabilities as evidence."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from pyseq.analysis.baselines import hindsight_bits
from pyseq.analysis.predictability.evidence import (
    evidence_against_independence,
    evidence_against_law,
)
from pyseq.analysis.predictability.learned import average_min_entropy, score_model
from pyseq.analysis.scoring import score
from pyseq.data.binning import Binning
from pyseq.data.streams import make


@dataclass(frozen=True)
class Look:
    name: str
    table: np.ndarray
    classes: int


class OrderOne:
    """Predicts by a matrix (classes, classes) of what follows what."""

    def __init__(self, matrix, binning):
        self.logp = torch.from_numpy(np.log(matrix)).float()
        self.binning = binning

    def distribution(self, window):
        return self.logp[self.binning.apply(window)]

    def classes_of(self, symbols):
        return self.binning.apply(symbols)


def some_matrix(k, sharpness=2.0):
    weights = -np.log(np.random.default_rng(k).random((k, k)))
    weights **= sharpness
    return weights / weights.sum(1, keepdims=True)


def views(alphabet):
    """High part, low part, one rare class, and each symbol alone."""
    symbols = np.arange(alphabet)
    return [
        Look("high", (symbols // 4).astype(np.uint16), -(-alphabet // 4)),
        Look("low", (symbols % 3).astype(np.uint16), 5),  # two of which stay empty
        Look("rare", (symbols == 7).astype(np.uint16), 2),
        Look("own", symbols.astype(np.uint16), alphabet),
    ]


@pytest.mark.parametrize(
    "binning", [Binning(22), Binning.uniform(22, 6), Binning(22, (0, 1, 5, 6, 20))]
)
def test_views_are_sums_of_the_models_law(stream_of, binning):
    symbols = np.random.default_rng(0).integers(0, 22, 500)
    predictor = OrderOne(some_matrix(binning.classes), binning)
    found = score_model(
        predictor, stream_of(symbols), 40, 400, binning=binning, seq_len=16, views=views(22)
    )
    table = binning.table()
    law = predictor.logp.double().exp().numpy()[table[symbols[40:399]]]  # (359, bins)
    law /= law.sum(1, keepdims=True)
    spread = law[:, table] / np.bincount(table)[table]  # (359, 22): of each symbol
    came = symbols[41:400]
    rows = np.arange(359)
    assert found.first == 41
    assert found.number_of_classes == binning.classes
    assert np.array_equal(found.classes, table[came])
    assert np.allclose(found.bits, -np.log2(law[rows, table[came]]), atol=1e-6)
    assert np.allclose(found.symbol_bits, -np.log2(spread[rows, came]), atol=1e-6)
    assert np.array_equal(found.hits, law.argmax(1) == table[came])
    for view in views(22):
        mask = view.table[None, :] == view.table[came][:, None]
        expected = np.log((spread * mask).sum(1))
        assert np.allclose(found.log_q[view.name], expected, atol=1e-6), view.name
        assert np.array_equal(found.view_classes[view.name], view.table[came])


def test_the_laws_of_views_sum_to_one_in_float64(stream_of):
    """Every symbol is asked for in the same place; float32 alone would be off by 1e-8."""
    k, binning = 40, Binning(40)
    predictor = OrderOne(some_matrix(k), binning)
    totals = {view.name: {} for view in views(k)}
    for symbol in range(k):
        found = score_model(
            predictor, stream_of([3, symbol]), 0, 2, binning=binning, seq_len=1, views=views(k)
        )
        for name in totals:
            class_ = int(found.view_classes[name][0])
            totals[name][class_] = math.exp(found.log_q[name][0])
    for name, of_classes in totals.items():
        assert abs(sum(of_classes.values()) - 1) < 1e-14, name


def test_bits_and_hits_are_those_of_scoring(stream_of):
    source = make("markov1", alphabet=16)
    stream = stream_of(source.generate(3000, 1).numpy())
    predictor = OrderOne(source.transition, Binning(16))
    found = score_model(predictor, stream, 10, 3000, binning=Binning(16), seq_len=32)
    expected = score(predictor, stream, 10, 3000, seq_len=32)
    assert found.first == expected.first
    assert np.array_equal(found.classes, expected.classes)
    assert np.allclose(found.bits, expected.bits, atol=1e-5)
    assert np.array_equal(found.hits, expected.hits[:, 0])


def test_the_true_source_scores_its_entropies_and_is_evidence(stream_of):
    source = make("markov1", alphabet=16)
    symbols = source.generate(40_000, 2).numpy()
    look = Look("own", np.arange(16, dtype=np.uint16), 16)
    found = score_model(
        OrderOne(source.transition, Binning(16)), stream_of(symbols), 0, 40_000,
        binning=Binning(16), seq_len=64, views=[look],
    )  # fmt: skip
    assert found.cross_entropy.low < source.entropy_rate < found.cross_entropy.high
    guess = found.average_min_entropy
    assert guess.low < source.average_min_entropy < guess.high
    assert guess.half_width < 0.05
    uniform, marginal = found.saved_against_uniform, found.saved_against_marginal
    assert uniform.value == pytest.approx(4 - found.bits.mean())
    hindsight = hindsight_bits(symbols[1:], 16).mean()
    assert marginal.value == pytest.approx(hindsight - found.bits.mean())
    assert marginal.low > 0.5
    log_q, came = found.log_q["own"], found.view_classes["own"]
    against = evidence_against_independence(log_q, came, 16, block=64)
    assert against.log_e == pytest.approx(marginal.value * 39_999 * math.log(2), rel=1e-6)
    assert against.p_value < 1e-100


def test_a_wrong_model_of_independent_symbols_is_no_evidence(stream_of):
    symbols = np.random.default_rng(5).integers(0, 8, 20_000)
    look = Look("own", np.arange(8, dtype=np.uint16), 8)
    found = score_model(
        OrderOne(some_matrix(8, 0.3), Binning(8)), stream_of(symbols), 0, 20_000,
        binning=Binning(8), seq_len=64, views=[look],
    )  # fmt: skip
    log_q, came = found.log_q["own"], found.view_classes["own"]
    assert found.saved_against_uniform.high < 0
    assert evidence_against_law(log_q, came, 8).log_e < -100
    assert evidence_against_law(log_q, came, 8).p_value > 0.01


def test_what_a_model_held_to_be_impossible_keeps_a_probability(stream_of):
    """Its logits may lie thousands apart; the e-process must be able to go on."""
    predictor = OrderOne(np.full((2, 2), 0.5), Binning(2))
    predictor.logp = torch.tensor([[0.0, -5000.0], [0.0, -5000.0]])
    look = Look("own", np.arange(2, dtype=np.uint16), 2)
    found = score_model(
        predictor, stream_of([0, 1, 0, 1]), 0, 4, binning=Binning(2), seq_len=4, views=[look]
    )
    assert np.isfinite(found.log_q["own"]).all()
    assert found.log_q["own"][0] == pytest.approx(-80, abs=1e-4)
    assert found.bits[1] == 0
    assert not np.signbit(found.bits).any()


def test_a_view_of_a_larger_alphabet_serves_and_others_are_refused(stream_of):
    binning, stream = Binning(8), stream_of([1, 2, 3, 4])
    predictor = OrderOne(some_matrix(8), binning)

    def scored(*looks):
        return score_model(predictor, stream, 0, 4, binning=binning, seq_len=4, views=looks)

    wide = scored(Look("wide", np.arange(100) // 2, 50))
    narrow = scored(Look("narrow", np.arange(8) // 2, 4))
    assert np.array_equal(wide.log_q["wide"], narrow.log_q["narrow"])
    with pytest.raises(ValueError, match="one whole number for each of the model's 8 symbols"):
        scored(Look("short", np.arange(7), 7))
    with pytest.raises(ValueError, match=r"classes 0 to 7; 0 to 6 fit"):
        scored(Look("beyond", np.arange(8), 7))
    with pytest.raises(ValueError, match="every name must differ"):
        scored(Look("same", np.arange(8), 8), Look("same", np.arange(8), 8))
    with pytest.raises(ValueError, match="holds 1 symbols"):
        score_model(predictor, stream, 3, 4, binning=binning, seq_len=4)


def test_average_min_entropy():
    hits = np.random.default_rng(0).random(10_000) < 0.25
    found = average_min_entropy(hits, block=10)
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(-math.log2(hits.mean()))
    assert found.low < 2 < found.high
    never = average_min_entropy(np.zeros(1000, bool), block=10)
    assert math.isinf(never.value)
    assert math.isinf(never.high)
    assert never.low == pytest.approx(-math.log2(1 - 0.025 ** (1 / 1000)))
    always = average_min_entropy(np.ones(1000, bool), block=10)
    assert (always.value, always.low) == (0, 0)
    assert not math.copysign(1, always.value) < 0
