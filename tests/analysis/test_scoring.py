"""Scoring: every symbol once, with the context that is promised, and no credit for ties."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pyseq.analysis import scoring
from pyseq.analysis.evaluation import evaluate, stream_ceiling
from pyseq.analysis.scoring import score
from pyseq.data import U16Stream
from pyseq.data.binning import Binning
from pyseq.data.streams import make


class OrderOne:
    """Knows a transition matrix, and remembers which contexts it was shown."""

    def __init__(self, matrix):
        self.logp = torch.as_tensor(np.log(np.maximum(matrix, 1e-300)), dtype=torch.float32)

    def distribution(self, window):
        return self.logp[window.long()]

    def classes_of(self, symbols):
        return symbols.long()


class Recorder(OrderOne):
    def __init__(self, classes):
        super().__init__(np.full((classes, classes), 1 / classes))
        self.windows = []

    def distribution(self, window):
        self.windows.append(window)
        return super().distribution(window)


@pytest.fixture
def counting(tmp_path):
    """Symbol i is i, so what was scored is known."""
    np.arange(2000).astype("<u2").tofile(tmp_path / "s.u16")
    with U16Stream(tmp_path / "s.u16") as stream:
        yield stream


@pytest.mark.parametrize("seq_len", [1, 2, 7, 64, 5000])
@pytest.mark.parametrize(("start", "stop"), [(0, 2), (0, 300), (100, 391), (1995, 2000)])
def test_every_symbol_is_scored_once_in_order(counting, seq_len, start, stop):
    scores = score(Recorder(2000), counting, start, stop, seq_len=seq_len)
    assert scores.first == start + 1
    assert scores.classes.tolist() == list(range(start + 1, stop))
    for column in (scores.bits, scores.entropy, scores.confidence, scores.hits):
        assert len(column) == stop - start - 1


def test_at_least_half_the_context_is_shown(counting):
    recorder = Recorder(2000)
    score(recorder, counting, 100, 1400, seq_len=64)
    first_seen: dict[int, int] = {}
    done = 100
    for window in torch.cat(recorder.windows):
        for t in range(64):
            target = int(window[0]) + t + 1
            if target > done:
                first_seen[target] = t + 1  # symbols shown before it
                done = target
    assert all(shown >= min(32, target - 100) for target, shown in first_seen.items())


def test_scores_are_the_definition(tmp_path):
    source = make("markov1", alphabet=8)
    symbols = source.generate(5000, 1).numpy()
    symbols.astype("<u2").tofile(tmp_path / "s.u16")
    matrix = np.asarray(source.transition)
    with U16Stream(tmp_path / "s.u16") as stream:
        scores = score(OrderOne(matrix), stream, 0, 5000, seq_len=50)
    share = matrix[symbols[:-1], symbols[1:]]
    rows = matrix[symbols[:-1]]
    assert np.allclose(scores.bits, -np.log2(share), atol=1e-5)
    assert np.allclose(scores.confidence, rows.max(1), atol=1e-6)
    entropy = -(rows * np.log2(np.maximum(rows, 1e-300))).sum(1)
    assert np.allclose(scores.entropy, entropy, atol=1e-4)
    ranks = (rows > share[:, None]).sum(1)
    for i, k in enumerate(scoring.TOP_K):
        assert np.array_equal(scores.hits[:, i], ranks < k)


def test_a_flat_distribution_hits_by_chance_only(tmp_path):
    symbols = np.random.default_rng(0).integers(0, 50, 20_000)
    symbols.astype("<u2").tofile(tmp_path / "s.u16")
    with U16Stream(tmp_path / "s.u16") as stream:
        scores = score(Recorder(50), stream, 0, 20_000, seq_len=100)
    for share, k in zip(scores.hits.mean(0), scoring.TOP_K, strict=True):
        assert share == pytest.approx(k / 50, abs=5 * math.sqrt(k / 50 / 20_000))
    assert np.allclose(scores.bits, math.log2(50), atol=1e-5)


def test_too_short_a_range(counting):
    with pytest.raises(ValueError, match="holds 1 symbols"):
        score(Recorder(2000), counting, 5, 6, seq_len=4)


def test_the_true_source_scores_its_entropy_rate(tmp_path):
    source = make("markov1", alphabet=16)
    source.generate(120_000, 3).numpy().astype("<u2").tofile(tmp_path / "s.u16")
    binning = Binning(16)
    with U16Stream(tmp_path / "s.u16") as stream:
        counts = np.bincount(stream[:90_000].numpy(), minlength=16)
        evaluation = evaluate(
            OrderOne(source.transition), stream, (0, 90_000), (90_000, 120_000), binning=binning,
            ceiling=stream_ceiling(counts, binning), seq_len=64,
        )  # fmt: skip
    bits = evaluation.bits
    assert bits["model"].low < source.entropy_rate < bits["model"].high
    assert bits["order-1"].value == pytest.approx(source.entropy_rate, abs=0.03)
    assert bits["marginal"].value > bits["order-1"].value
    assert evaluation.verdict.kind == "structure"
    assert evaluation.ece < 0.01
    summary = evaluation.to_dict()
    assert summary["symbols"] == 29_999
    assert summary["bits_per_symbol"]["model"][0] == bits["model"].value
    assert evaluation.perplexity.value == pytest.approx(2 ** bits["model"].value)


def test_a_certain_predictor_scores_zero_without_a_sign(tmp_path):
    np.zeros(300, dtype="<u2").tofile(tmp_path / "s.u16")
    with U16Stream(tmp_path / "s.u16") as stream:
        scores = score(OrderOne(np.ones((1, 1))), stream, 0, 300, seq_len=50)
    for column in (scores.bits, scores.entropy):
        assert np.array_equal(column, np.zeros(299))
        assert not np.signbit(column).any()


def test_the_summary_of_a_single_symbol_is_json(tmp_path):
    np.array([1, 2] * 50, dtype="<u2").tofile(tmp_path / "s.u16")
    binning = Binning(4)
    with U16Stream(tmp_path / "s.u16") as stream:
        evaluation = evaluate(
            Recorder(4), stream, (0, 90), (90, 92), binning=binning,
            ceiling=stream_ceiling(np.array([0, 45, 45, 0]), binning), seq_len=8,
        )  # fmt: skip
    # A ceiling holds whatever its maker gave it.
    evaluation = replace(evaluation, ceiling=replace(evaluation.ceiling, bits=math.nan))
    summary = evaluation.to_dict()
    assert summary["symbols"] == 1
    assert summary["bits_per_symbol"]["model"] == [pytest.approx(2.0), None, None]
    assert summary["perplexity"] == [pytest.approx(4.0), 0.0, None]
    assert summary["gain_bits_per_symbol"][1:] == [None, None]
    assert summary["ceiling"]["bits"] is None
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
