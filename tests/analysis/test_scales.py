"""Scales: sums of probabilities, matrices of what was taken for what, and their verdicts."""

import numpy as np
import pytest
import torch

from pyseq.analysis.baselines import marginal_bits
from pyseq.analysis.scales import (
    Confusion,
    coarse_scores,
    judge_scale,
    scale_widths,
    top_confusions,
)
from pyseq.analysis.scoring import score_rows
from pyseq.data.binning import Binning


@pytest.mark.parametrize(
    ("classes", "bins", "widths"),
    [
        (65536, (16, 64, 256, 1024, 4096), (1, 16, 64, 256, 1024, 4096)),
        (10001, (4096, 1024, 256), (1, 3, 10, 40)),
        (300, (16, 64, 256), (1, 2, 5, 19)),
        (20, (16, 64), (1, 2)),
        (16, (16, 64), (1,)),
        (1, (16, 64), (1,)),
        (50, (1,), (1,)),
    ],
)
def test_widths(classes, bins, widths):
    assert scale_widths(classes, bins) == widths


@pytest.mark.parametrize(
    ("classes", "widths"), [(30, (2, 4, 6)), (50, (7, 49)), (1, ()), (7, (6,))]
)
def test_coarse_scores_are_those_of_the_sums(classes, widths):
    random = torch.Generator().manual_seed(0)
    logp = torch.randn(40, classes, generator=random).mul(4).log_softmax(-1)
    targets = torch.randint(classes, (40,), generator=random)
    for width, scores in zip(widths, coarse_scores(logp, targets, widths), strict=True):
        bins = -(-classes // width)
        sums = np.zeros((40, bins))
        for c in range(classes):
            sums[:, c // width] += logp[:, c].double().exp().numpy()
        came = targets.numpy() // width
        assert scores.number_of_classes == bins
        assert np.array_equal(scores.classes, came)
        assert np.array_equal(scores.predicted, sums.argmax(1))
        assert np.allclose(scores.bits, -np.log2(sums[np.arange(40), came]), atol=1e-5)
        assert np.allclose(scores.confidence, sums.max(1), atol=1e-6)
        assert np.array_equal(scores.hits[:, 0], sums.argmax(1) == came)


def test_bins_of_the_least_probable_classes_cost_finitely_many_bits():
    logp = torch.full((1, 8), -200.0)
    logp[0, 0] = 0.0
    [scores] = coarse_scores(logp, torch.tensor([7]), (4,))
    assert scores.bits[0] == pytest.approx((200 - np.log(4)) / np.log(2))


def judged(logp, targets, counts, binning, width):
    [scores] = coarse_scores(logp, targets, (width,))
    counted = np.repeat(binning.table(), counts)
    return judge_scale(
        scores,
        width,
        marginal=marginal_bits(counted // width, scores.classes, scores.number_of_classes),
        counts=counts,
        binning=binning,
        block=16,
        level=0.99,
    )


def test_a_scale_beside_marginal_and_ceiling():
    """A predictor that knows the half that comes and nothing else, on 12 symbols in 6 classes."""
    random = np.random.default_rng(0)
    targets = random.integers(0, 6, 4000)
    logp = np.log(np.where((np.arange(6) < 3) == (targets < 3)[:, None], 0.32, 0.04 / 3))
    logp = torch.tensor(logp - np.log(np.exp(logp).sum(1, keepdims=True)), dtype=torch.float32)
    binning = Binning.uniform(12, 6)
    scale = judged(logp, torch.from_numpy(targets), np.full(12, 500), binning, 3)
    assert (scale.width, scale.bins, scale.first_symbols) == (3, 2, (0, 6))
    assert scale.bits.value == pytest.approx(-np.log2(0.96), abs=1e-5)
    assert scale.marginal_bits.value == pytest.approx(1, abs=1e-3)
    assert (scale.ceiling.bits, scale.ceiling.top1, scale.ceiling.law) == (1, 0.5, "uniform")
    assert scale.accuracy.value == 1
    assert scale.confidence.value == pytest.approx(0.96)
    assert scale.ece == pytest.approx(0.04)
    assert scale.verdict.kind == "structure"
    assert "the model at 2 bins needs" in scale.verdict.sentence
    low = int((targets < 3).sum())
    assert np.array_equal(scale.confusion, [[low, 0], [0, 4000 - low]])
    finest = judged(logp, torch.from_numpy(targets), np.full(12, 500), binning, 1)
    assert finest.first_symbols == (0, 2, 4, 6, 8, 10)
    assert finest.bits.value == pytest.approx(-np.log2(0.32), abs=1e-5)
    assert "the model needs" in finest.verdict.sentence


def test_rows_are_the_truth_and_columns_the_prediction():
    logp = torch.log_softmax(torch.eye(4)[[2, 2, 2, 0]] * 9, -1)
    scale = judged(logp, torch.tensor([1, 1, 2, 3]), np.full(4, 500), Binning(4), 1)
    expected = np.zeros((4, 4), np.int64)
    expected[1, 2], expected[2, 2], expected[3, 0] = 2, 1, 1
    assert np.array_equal(scale.confusion, expected)


def test_no_matrix_of_many_bins():
    logp = torch.zeros(4, 65).log_softmax(-1)
    counts = np.full(65, 50)
    assert judged(logp, torch.arange(4), counts, Binning(65), 1).confusion is None
    assert judged(logp, torch.arange(4), counts, Binning(65), 2).confusion.shape == (33, 33)


@pytest.mark.parametrize("width", [1, 4, 16])
def test_independent_values_are_at_chance_at_every_scale(width):
    """A model that has learned its past by heart, asked about independent values."""
    random = np.random.default_rng(1)
    targets = torch.from_numpy(random.integers(0, 64, 5000))
    logp = torch.from_numpy(random.normal(0, 0.3, (5000, 64))).float().log_softmax(-1)
    scale = judged(logp, targets, np.full(64, 500), Binning(64), width)
    assert scale.verdict.kind != "structure"
    assert scale.verdict.sentence.startswith("at chance")


def scores_of(truth, predicted, classes=5):
    logp = torch.log_softmax(9 * torch.eye(classes)[predicted], -1)
    return score_rows(logp, torch.tensor(truth))


def test_the_most_frequent_confusions():
    scores = scores_of([0, 0, 0, 0, 1, 1, 2, 3, 3], [1, 1, 0, 2, 1, 0, 2, 4, 4])
    assert top_confusions(scores) == (
        Confusion(0, 1, 2, 0.5),
        Confusion(3, 4, 2, 1.0),
        Confusion(0, 2, 1, 0.25),
        Confusion(1, 0, 1, 0.5),
    )
    assert top_confusions(scores, most=1) == (Confusion(0, 1, 2, 0.5),)


def test_nothing_was_confused():
    assert top_confusions(scores_of([0, 1, 4], [0, 1, 4])) == ()
