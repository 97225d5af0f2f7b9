"""How well a model predicts values at coarser resolutions, and what it takes for what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from pyseq.analysis.calibration import calibration_error
from pyseq.analysis.ceilings import Ceiling, ceiling
from pyseq.analysis.intervals import Interval, block_bootstrap
from pyseq.analysis.scoring import Scores, score_rows
from pyseq.analysis.verdicts import Verdict, judge
from pyseq.data.binning import Binning
from pyseq.nn import ScaleAwareLoss

COARSE_BINS = (16, 64)
FINE_BINS = (256, 1024, 4096)
MOST_CONFUSION_BINS = 64
_MOST_CONFUSIONS = 20


@dataclass(frozen=True)
class ScaleScores:
    """A model's scores on values told apart in bins of neighbouring classes.

    Attributes:
        width (int): classes in a bin; the last bin may hold fewer. 1 is the model's own resolution.
        bins (int): how many bins there are: classes / width, rounded up.
        first_symbols (tuple of bins ints): the first symbol of each bin.
        bits (Interval): bits per symbol of the model, its probabilities summed over each bin.
        marginal_bits (Interval): bits per symbol of the training symbols' frequencies.
        accuracy (Interval): how often the most likely bin came, fraction.
        confidence (Interval): mean probability of the most likely bin, fraction.
        ece (float): expected calibration error of the most likely bin, fraction.
        ceiling (Ceiling): the best average that is possible on independent symbols.
        verdict (Verdict): in words; its level is `PredictionAnalysis.level`.
        confusion (array (bins, bins), int64, or None): how often the bin of the row came where the
            bin of the column was the most likely; None above `MOST_CONFUSION_BINS`.
    """

    width: int
    bins: int
    first_symbols: tuple[int, ...]
    bits: Interval
    marginal_bits: Interval
    accuracy: Interval
    confidence: Interval
    ece: float
    ceiling: Ceiling
    verdict: Verdict
    confusion: NDArray | None


@dataclass(frozen=True)
class Confusion:
    """A class that came where another was the most likely.

    Attributes:
        truth (int): the class that came.
        predicted (int): the class that was the most likely; never `truth`.
        count (int): how often.
        share (float): of all times that `truth` came, fraction.
    """

    truth: int
    predicted: int
    count: int
    share: float


def scale_widths(classes: int, bins: Sequence[int]) -> tuple[int, ...]:
    """Widths of the bins that an alphabet is divided into, as `nn.ScaleAwareLoss` divides it.

    Args:
        classes (int): that the model tells apart.
        bins (sequence of int): into how many bins, at most.

    Returns:
        tuple of int: classes in a bin, from 1 (every class by itself) upwards, each once; none that
        would put all classes in one bin.
    """
    widths = sorted(ScaleAwareLoss.from_bins(classes, tuple(bins)).scales)
    return tuple(width for width in widths if width == 1 or width < classes)


def coarse_scores(logp: Tensor, targets: Tensor, widths: Sequence[int]) -> list[Scores]:
    """Score the same distributions at several resolutions.

    Args:
        logp (Tensor (N, classes), float32): log-probabilities in nats.
        targets (Tensor (N,), int64): what came.
        widths (sequence of int): of the bins, from 1 upwards.

    Returns:
        list of Scores: for each width, of bins instead of classes.
    """
    coarse = {1: logp}
    for width in widths:
        # From the coarsest that fits, which spares most of the sums over a large alphabet.
        finer = max(done for done in coarse if width % done == 0)
        coarse[width] = _summed(coarse[finer], width // finer)
    return [score_rows(coarse[width], targets // width) for width in widths]


def _summed(logp: Tensor, width: int) -> Tensor:
    """Log-probabilities (N, ceil(C / width)) of runs of `width` neighbours of (N, C)."""
    if width == 1:
        return logp
    padded = pad(logp, (0, -logp.shape[1] % width), value=-math.inf)
    return padded.unflatten(1, (-1, width)).logsumexp(-1)


def judge_scale(
    scores: Scores,
    width: int,
    *,
    marginal: NDArray,
    counts: NDArray,
    binning: Binning,
    block: int,
    level: float,
) -> ScaleScores:
    """Set a model's scores at one scale beside the marginal and the ceiling.

    Args:
        scores (Scores): of bins of `width` classes.
        width (int): classes in a bin.
        marginal (array (N,), float64): bits of the same bins under the training frequencies.
        counts (array (alphabet,), int64): how often each symbol occurs in the training range.
        binning (Binning): symbols to classes.
        block (int): of the bootstrap.
        level (float): of the verdict.

    Returns:
        ScaleScores: with 95 % intervals.
    """
    bins = scores.number_of_classes
    best = ceiling(counts, binning.table() // width, bins=bins)
    name = "the model" if width == 1 else f"the model at {bins:,} bins"
    hits = scores.hits[:, 0]
    return ScaleScores(
        width=width,
        bins=bins,
        first_symbols=(binning.edges or tuple(range(binning.alphabet)))[::width],
        bits=block_bootstrap(scores.bits, block=block),
        marginal_bits=block_bootstrap(marginal, block=block),
        accuracy=block_bootstrap(hits, block=block),
        confidence=block_bootstrap(scores.confidence, block=block),
        ece=calibration_error(scores.confidence, hits),
        ceiling=best,
        verdict=judge(
            scores.bits, marginal, scores.classes, ceiling=best, block=block, name=name, level=level
        ),
        confusion=_matrix(scores) if bins <= MOST_CONFUSION_BINS else None,
    )


def _matrix(scores: Scores) -> NDArray[np.int64]:
    bins = scores.number_of_classes
    cells = scores.classes * bins + scores.predicted
    return np.bincount(cells, minlength=bins * bins).reshape(bins, bins)


def top_confusions(scores: Scores, most: int = _MOST_CONFUSIONS) -> tuple[Confusion, ...]:
    """The most frequent pairs of what came and another class that was the most likely.

    Args:
        scores (Scores): of tokens.
        most (int): pairs at the most.

    Returns:
        tuple of Confusion: the most frequent first; among equals, the lowest classes first.
    """
    wrong = scores.classes != scores.predicted
    pairs = np.stack((scores.classes[wrong], scores.predicted[wrong]), axis=1)
    found, count = np.unique(pairs, axis=0, return_counts=True)
    came = np.bincount(scores.classes)
    order = np.argsort(-count, kind="stable")[:most]
    return tuple(
        Confusion(truth, predicted, n, n / int(came[truth]))
        for (truth, predicted), n in zip(found[order].tolist(), count[order].tolist(), strict=True)
    )
