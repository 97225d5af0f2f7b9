"""Evidence by a trained model: which symbols it is asked for, and what of them counts."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pyseq.analysis.analyze_stream import Settings, analyze_stream
from pyseq.analysis.held_out import unseen_range
from pyseq.analysis.predictability.evidence import log_e_against_independence, log_e_against_law
from pyseq.analysis.predictability.learned_evidence import learned_evidence
from pyseq.analysis.predictability.online_evidence import evidence_views
from pyseq.data.binning import Binning
from pyseq.errors import UserError
from pyseq.models.checkpoint import ModelCard
from pyseq.ops import backends
from tests.analysis.small_models import small_predictor

K = 6


def random(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


def cycling(count, seed=0):
    """Each symbol is one more than the one before, but for 3 in 10, which are drawn anew."""
    draw, x = random(seed), np.empty(count, int)
    fresh, anew = draw.integers(K, size=count), draw.random(count) < 0.3
    x[0] = fresh[0]
    for t in range(1, count):
        x[t] = fresh[t] if anew[t] else (x[t - 1] + 1) % K
    return x


class Knowing:
    """Expects the next symbol to be one more than the last, and remembers what it was shown.

    In the place of a trained model, whose skill nobody can state exactly.
    """

    def __init__(self, card):
        self.card, self.device = card, torch.device("cpu")
        self.law = torch.full((K, K), 0.05).log()
        for symbol in range(K):
            self.law[symbol, (symbol + 1) % K] = math.log(0.75)

    def distribution(self, window):
        return self.law[window.long()]

    def classes_of(self, symbols):
        return torch.as_tensor(symbols).long()


def card(seq_len=32, **data):
    return ModelCard("baseline", {}, Binning(K), "tokens", seq_len, data)


def trained_on(stream, last, validation, seq_len=32):
    """The card of a model trained on the first symbols of a stream."""
    return card(
        seq_len,
        fingerprint=stream.fingerprint, trained=[0, last],
        trained_print=stream.range_fingerprint(0, last),
        splits={"train": [0, last], "validation": validation, "test": [validation[1], len(stream)]},
    )  # fmt: skip


# Of a stream that it never saw: everything.
UNSEEN = {"trained": [0, 5], "trained_print": "of another stream"}


def test_a_tiny_model_without_skill_is_no_evidence(stream_of):
    predictor = small_predictor("baseline", Binning(K))
    predictor.card = replace(predictor.card, data=UNSEEN)
    found = learned_evidence(
        "a model", predictor, stream_of(random().integers(K, size=3_000)), most_symbols=1_000
    )
    assert found.name == "a model"
    assert found.dependence.p_value > 0.01
    assert found.uniform.p_value > 0.01
    assert found.code_length.symbols == 1_000
    assert found.code_length.alphabet == K
    assert found.code_length.bits.value > math.log2(K) - 0.05
    assert found.code_length.uniform_bits == math.log2(K)


def test_a_model_that_knows_is_evidence(stream_of):
    found = learned_evidence(
        "it", Knowing(card(**UNSEEN)), stream_of(cycling(4_000)), most_symbols=10_000
    )
    assert found.dependence.log_e > 100
    assert found.uniform.log_e > 100
    assert found.dependence.first_exceeds is not None
    # 0.75 of them are the next number: 0.75 log2(1/0.75) + 0.25 log2(1/0.05) bits.
    assert found.code_length.bits.value == pytest.approx(1.39, abs=0.07)
    assert found.code_length.accuracy.value == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize(("most", "scored"), [(600, 600), (2_999, 2_999), (50_000, 3_999)])
def test_no_more_than_asked_for(stream_of, most, scored):
    stream = stream_of(cycling(4_000))
    found = learned_evidence("it", Knowing(card(**UNSEEN)), stream, most_symbols=most)
    assert found.code_length.symbols == found.uniform.symbols == scored


def test_too_few_to_be_evidence_beside_those_that_decide_the_bins(stream_of):
    with pytest.raises(UserError, match="it: 100 symbols are too few to be evidence"):
        learned_evidence("it", Knowing(card(**UNSEEN)), stream_of(cycling(4_000)), most_symbols=100)


def test_the_evidence_is_that_of_the_symbols_after_the_look(stream_of):
    """By hand: the mean of e-processes over all views, from symbol 500 of 4,000 on."""
    x = cycling(4_000).astype(np.uint16)
    predictor = Knowing(card(**UNSEEN))
    found = learned_evidence("it", predictor, stream_of(x), most_symbols=10_000)
    look = 500
    assert found.dependence.symbols == 4_000 - look
    law = predictor.law.double().exp().numpy()
    law /= law.sum(axis=1, keepdims=True)
    paths = []
    for view in evidence_views(x[:look], K):
        mask = view.table[:K][None, :] == view.table[x[look:]][:, None]
        log_q = np.log((law[x[look - 1 : -1]] * mask).sum(axis=1))
        paths.append(log_e_against_independence(log_q, view.table[x[look:]], view.classes))
    expected = np.logaddexp.reduce(paths, axis=0) - math.log(len(paths))
    assert found.dependence.log_e == pytest.approx(expected[-1], abs=1e-4)
    assert found.dependence.log_e_max == pytest.approx(max(0, expected.max()), abs=1e-4)
    uniform = log_e_against_law(np.log(law[x[:-1], x[1:]]), x[1:], K)
    assert found.uniform.log_e == pytest.approx(uniform[-1], abs=1e-4)


def test_what_the_model_has_seen_counts_for_nothing(stream_of):
    """Order where the model was trained and chosen, and none after it."""
    x = np.r_[cycling(3_000), random(9).integers(K, size=3_001)]
    stream = stream_of(x)
    predictor = Knowing(trained_on(stream, 2_000, [2_033, 3_000]))
    (start, stop), where = unseen_range(stream, predictor.card)
    assert (start, stop) == (3_033, 6_001)
    found = learned_evidence("it", predictor, stream, most_symbols=10_000)
    assert found.where == where
    assert found.where.startswith("symbols from 3,033 on: the model was trained on 0 to 1,999")
    assert found.code_length.symbols == stop - start - 1
    # The bins come from before the range, so all of it is evidence, for both nulls.
    assert found.dependence.symbols == found.uniform.symbols == stop - start - 1
    assert found.dependence.log_e < 0
    assert found.uniform.log_e < 0
    # The same symbols at the same places, if the model had not seen the first half.
    other = learned_evidence("it", Knowing(card(**UNSEEN)), stream, most_symbols=10_000)
    assert "another stream" in other.where
    assert other.dependence.first_exceeds is not None


def test_a_change_in_what_was_seen_changes_nothing_but_the_bins(stream_of):
    x = cycling(6_000)
    y = x.copy()
    y[1_000:2_900] = random(3).integers(K, size=1_900)  # after the look of 750
    found = []
    for symbols in (x, y):
        stream = stream_of(symbols)
        predictor = Knowing(trained_on(stream, 2_000, [2_033, 3_000]))
        found.append(learned_evidence("it", predictor, stream, most_symbols=2_000))
    assert found[0].dependence.log_e == found[1].dependence.log_e
    assert found[0].uniform.log_e == found[1].uniform.log_e
    assert found[0].code_length == found[1].code_length


def test_two_symbols_of_a_wide_alphabet_can_be_looked_at(stream_of):
    """Bins of 2 and of 16 then have one name, and differ in symbols that never came."""
    x = np.where(random().random(3_000) < 0.47, 1, 4)
    found = learned_evidence("it", Knowing(card(**UNSEEN)), stream_of(x), most_symbols=5_000)
    assert found.dependence.p_value > 0.01


@pytest.mark.skipif(backends.refuse_native() is not None, reason="pyseq._core is not built")
def test_a_model_of_more_symbols_than_the_stream_has_says_nothing_of_the_marginal(stream_of):
    """Fair draws of six, by a model of twelve that has learned that only six come."""
    x = random(1).integers(K, size=3_000)
    wide = Knowing(replace(card(**UNSEEN), binning=Binning(2 * K)))
    wide.law = torch.full((2 * K, 2 * K), 1e-6).log()
    wide.law[:, :K] = -math.log(K)
    stream = stream_of(x)
    found = learned_evidence("it", wide, stream, most_symbols=5_000)
    settings = Settings(compressors=False, predictors=False, mixture_symbols=2)
    analysis = analyze_stream(stream, alphabet=K, settings=settings, learned=[found])
    assert not analysis.verdicts[0].structure, analysis.verdicts[0].sentence


def test_refusals(stream_of):
    one = replace(card(**UNSEEN), binning=Binning(1))
    with pytest.raises(UserError, match="it knows one symbol only"):
        learned_evidence("it", Knowing(one), stream_of(np.zeros(100)), most_symbols=50)
    predictor = small_predictor("baseline", Binning(K))
    predictor.card = replace(predictor.card, data=UNSEEN)
    with pytest.raises(UserError, match="symbol 9 lies outside the model's alphabet of 6"):
        learned_evidence("it", predictor, stream_of(np.full(3_000, 9)), most_symbols=1_000)
    stream = stream_of(cycling(1_000))
    seen = trained_on(stream, 600, [633, 999])
    with pytest.raises(UserError, match="nothing beyond"):
        learned_evidence("it", Knowing(seen), stream, most_symbols=1_000)
