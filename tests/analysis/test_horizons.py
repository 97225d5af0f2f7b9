"""Heads that look ahead: what each is asked, and what it is worth."""

import numpy as np
import pytest
import torch

from pyseq.analysis import scoring
from pyseq.analysis.baselines import marginal_bits
from pyseq.analysis.ceilings import ceiling
from pyseq.analysis.horizons import judge_horizon
from pyseq.analysis.scoring import ScoreSheet, held_out_distributions, score_rows
from pyseq.data.binning import Binning
from pyseq.data.streams import make
from tests.analysis.small_models import small_predictor, write


class Ahead:
    """Knows what follows each symbol 1, 2, ... steps later: matrices of log-probabilities."""

    def __init__(self, matrices):
        self.matrices = [torch.as_tensor(matrix, dtype=torch.float32) for matrix in matrices]
        self.horizons = len(matrices)

    def distribution(self, window):
        return self.matrices[0][window.long()]

    def distributions_ahead(self, window):
        for matrix in self.matrices:
            yield matrix[window.long()]

    def classes_of(self, symbols):
        return symbols.long()


def counting_predictor(classes, horizons):
    """Sure that i is followed by i + 1, i + 2, ..."""
    steps = torch.arange(classes)
    return Ahead(
        [
            torch.full((classes, classes), -50.0).index_put(
                (steps, (steps + h) % classes), steps * 0.0
            )
            for h in range(1, horizons + 1)
        ]
    )


@pytest.mark.parametrize("at_once", [1 << 20, 2000])
@pytest.mark.parametrize("seq_len", [1, 5, 64, 1000])
@pytest.mark.parametrize(("start", "stop", "horizons"), [(0, 4, 3), (0, 5, 3), (100, 391, 4)])
def test_each_horizon_is_asked_about_its_own_symbols(
    tmp_path, monkeypatch, seq_len, start, stop, horizons, at_once
):
    monkeypatch.setattr(scoring, "_SCORED_AT_ONCE", at_once)
    predictor = counting_predictor(400, horizons)
    came: dict[int, list[int]] = {h: [] for h in range(1, horizons + 1)}
    with write(tmp_path / "s.u16", np.arange(400)) as stream:
        kept = held_out_distributions(
            predictor, stream, start, stop, seq_len=seq_len, horizons=horizons
        )
        for horizon, logp, targets in kept:
            assert torch.equal(logp.argmax(1), targets)  # from the same places as horizon 1
            came[horizon] += targets.tolist()
    for horizon, symbols in came.items():
        assert symbols == list(range(start + horizon, stop - horizons + horizon))


def test_a_range_that_holds_no_target_for_the_farthest_head(tmp_path):
    with (
        write(tmp_path / "s.u16", np.arange(9)) as stream,
        pytest.raises(ValueError, match="holds 3 symbols; 4 or more fit"),
    ):
        next(held_out_distributions(Ahead([0] * 3), stream, 0, 3, seq_len=2, horizons=3))


def test_a_sheet_that_was_not_filled():
    sheet = ScoreSheet(7, 5)
    sheet.add(score_rows(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)))
    with pytest.raises(ValueError, match="3 of 5 symbols"):
        sheet.scores()


def test_the_heads_of_a_model_by_hand():
    predictor = small_predictor("supercharged", Binning(50), horizons=3)
    window = torch.randint(50, (2, 20), generator=torch.Generator().manual_seed(0))
    assert predictor.horizons == 3
    first, *farther = predictor.distributions_ahead(window)
    assert torch.equal(first, predictor.distribution(window))
    with torch.no_grad():
        hidden = predictor.model.hidden(window)
        expected = [predictor.model.head(x) for x in predictor.model.look_ahead(hidden)]
    assert len(farther) == 2
    for head, logits in zip(farther, expected, strict=True):
        assert torch.allclose(head, logits.log_softmax(-1), atol=1e-6)


@pytest.mark.parametrize("autocast", [False, True])
def test_autocast_reaches_every_head_and_nobody_else(tmp_path, autocast):
    class Asking(Ahead):
        def distributions_ahead(self, window):
            for logp in super().distributions_ahead(window):
                assert torch.is_autocast_enabled("cpu") == autocast
                yield logp.bfloat16()

    predictor = Asking([torch.zeros(9, 9)] * 3)
    with write(tmp_path / "s.u16", np.arange(9)) as stream:
        kept = held_out_distributions(
            predictor, stream, 0, 9, seq_len=4, horizons=3, autocast=autocast
        )
        for _, logp, _ in kept:
            assert not torch.is_autocast_enabled("cpu")
            assert logp.dtype == torch.float32


def test_a_model_without_such_heads():
    predictor = small_predictor("baseline", Binning(50))
    window = torch.randint(50, (2, 20), generator=torch.Generator().manual_seed(0))
    [only] = predictor.distributions_ahead(window)
    assert predictor.horizons == 1
    assert torch.equal(only, predictor.distribution(window))


def test_the_true_law_scores_what_it_is_worth_at_every_horizon(tmp_path):
    """H(X_(t+h) | X_t) of a Markov chain, by powers of its matrix."""
    source = make("markov1", alphabet=8)
    symbols = source.generate(60_000, 3).numpy()
    powers = [np.linalg.matrix_power(source.transition, h) for h in (1, 2, 3)]
    counts = np.bincount(symbols[:30_000], minlength=8)
    marginal = marginal_bits(symbols[:30_000], symbols[30_001:], 8)
    sheets = [ScoreSheet(30_000 + h, 30_000 - 3) for h in (1, 2, 3)]
    with write(tmp_path / "s.u16", symbols) as stream:
        kept = held_out_distributions(
            Ahead([np.log(p) for p in powers]), stream, 30_000, 60_000, seq_len=64, horizons=3
        )
        for h, logp, targets in kept:
            sheets[h - 1].add(score_rows(logp, targets))
    for h, (sheet, power) in enumerate(zip(sheets, powers, strict=True), start=1):
        scores = sheet.scores()
        assert np.array_equal(scores.classes, symbols[30_000 + h : 60_000 - 3 + h])
        found = judge_horizon(
            scores, h, marginal=marginal[h - 1 :][: len(scores.bits)], ceiling=ceiling(counts),
            block=64, level=0.99,
        )  # fmt: skip
        entropy = -(source.stationary[:, None] * power * np.log2(power)).sum()
        assert found.bits.low < entropy < found.bits.high
        assert found.accuracy[1].value == pytest.approx(source.stationary @ power.max(1), abs=0.02)
        assert found.accuracy[1].value < found.accuracy[3].value < found.accuracy[5].value
        assert found.confidence.value == pytest.approx(found.accuracy[1].value, abs=0.02)
        assert found.entropy.value == pytest.approx(entropy, abs=0.02)
        assert found.ece < 0.02
        assert found.horizon == h
        gain = found.marginal_bits.value - found.bits.value
        assert (found.verdict.kind == "structure") == (gain > 0.01)
        name = "the model" if h == 1 else f"the head that predicts {h} symbols ahead"
        assert f"{name} needs" in found.verdict.sentence
