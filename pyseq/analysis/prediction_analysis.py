"""A model's predictions taken apart: by scale, by head, and by where its attention looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import NDArray

from pyseq.analysis.attention_reach import AttentionReach, attention_reach
from pyseq.analysis.baselines import marginal_bits
from pyseq.analysis.evaluation import MOST_BASELINE_SYMBOLS, binned, stream_ceiling
from pyseq.analysis.horizons import HorizonScores, judge_horizon
from pyseq.analysis.scales import (
    COARSE_BINS,
    FINE_BINS,
    Confusion,
    ScaleScores,
    coarse_scores,
    judge_scale,
    scale_widths,
    top_confusions,
)
from pyseq.analysis.scoring import Scores, ScoreSheet, held_out_distributions, score_rows
from pyseq.data.binning import Binning
from pyseq.data.described_stream import count_symbols
from pyseq.data.u16_stream import U16Stream
from pyseq.models.predictor import Predictor

SYMBOLS = 20_000
_MOST_WRONG = 0.05  # chance of any false finding


@dataclass(frozen=True)
class PredictionAnalysis:
    """A model's predictions of held-out symbols, taken apart.

    Attributes:
        symbols (int): how many were scored at every scale and by every head.
        level (float): of each verdict's interval: 1 - 0.05 / the number of verdicts, so that on
            unpredictable symbols the chance that any of them says "structure" is about 5 % at the
            most. All other intervals are of 95 %, each for itself.
        scales (tuple of ScaleScores): from the finest to the coarsest; empty for tokens.
        about_scales (str): one sentence: what the scales are, or why there are none.
        confusions (tuple of Confusion): of tokens, the most frequent first, 20 at the most; empty
            for values, whose scales hold whole matrices.
        horizons (tuple of HorizonScores): the heads, from the next symbol on.
        about_horizons (str): one sentence: what the heads predict, or that there is only one.
        attention (AttentionReach): where attention looks.
    """

    symbols: int
    level: float
    scales: tuple[ScaleScores, ...]
    about_scales: str
    confusions: tuple[Confusion, ...]
    horizons: tuple[HorizonScores, ...]
    about_horizons: str
    attention: AttentionReach


def analyze_predictions(
    predictor: Predictor,
    stream: U16Stream,
    train: tuple[int, int],
    test: tuple[int, int],
    *,
    binning: Binning,
    seq_len: int,
    symbols: int = SYMBOLS,
    autocast: bool = False,
) -> PredictionAnalysis:
    """Take a model's predictions of held-out symbols apart.

    One pass over the symbols scores every head and every scale; attention is looked at on windows
    of the same symbols. Every verdict is one of `verdicts.judge` at the level 1 - .05 / n for n
    verdicts (Bonferroni): the finest scale and the first horizon are the same one, and count once.

    Args:
        predictor (Predictor): the model.
        stream (U16Stream): the symbols.
        train (tuple of 2 ints): range that the marginal may count; its last 20 million symbols are
            used, and all of it for the ceilings.
        test (tuple of 2 ints): range that is scored, from its second symbol on.
        binning (Binning): the model's classes.
        seq_len (int): context of the model; also the block of the bootstrap.
        symbols (int): how many are scored at most, at every scale and by every head.
        autocast (bool): score in bfloat16 where it is safe.

    Returns:
        PredictionAnalysis: with 95 % intervals by block bootstrap.

    Raises:
        ValueError: the test range holds fewer than 2 symbols, or `symbols` is not positive.
    """
    if symbols < 1 or test[1] - test[0] < 2:
        raise ValueError(
            f"analyze_predictions: {symbols} symbols of range {test}; at least 1 of a range of 2 or"
            " more fits"
        )
    start, stop = test
    horizons = min(predictor.horizons, stop - start - 1)
    stop = min(stop, start + symbols + horizons)
    widths = _widths(predictor, binning)
    by_horizon, by_width = _score(
        predictor, stream, start, stop, seq_len, horizons, widths[1:], autocast
    )
    level = 1 - _MOST_WRONG / (len(by_horizon) + len(by_width))

    counts = count_symbols(stream, *train)[: binning.alphabet]
    counted = binned(stream, max(train[0], train[1] - MOST_BASELINE_SYMBOLS), train[1], binning)
    # Of the targets of all horizons, each at its place.
    marginal = marginal_bits(counted, binned(stream, start + 1, stop, binning), binning.classes)
    ceiling = stream_ceiling(counts, binning)
    scored = len(by_horizon[0].bits)
    heads = tuple(
        judge_horizon(
            scores,
            h,
            marginal=marginal[h - 1 :][:scored],
            ceiling=ceiling,
            block=seq_len,
            level=level,
        )
        for h, scores in enumerate(by_horizon, start=1)
    )

    def at_scale(width: int, scores: Scores, marginal: NDArray) -> ScaleScores:
        return judge_scale(
            scores,
            width,
            marginal=marginal,
            counts=counts,
            binning=binning,
            block=seq_len,
            level=level,
        )

    scales = [at_scale(1, by_horizon[0], marginal[:scored])] if widths else []
    for width, scores in zip(widths[1:], by_width, strict=True):
        coarse = marginal_bits(counted // width, scores.classes, scores.number_of_classes)
        scales.append(at_scale(width, scores, coarse))
    return PredictionAnalysis(
        symbols=scored,
        level=level,
        scales=tuple(scales),
        about_scales=_about_scales(predictor.card.kind, scales),
        confusions=() if scales else top_confusions(by_horizon[0]),
        horizons=heads,
        about_horizons=_about_horizons(predictor, len(heads)),
        attention=attention_reach(predictor, stream, start, stop, seq_len=seq_len),
    )


def _widths(predictor: Predictor, binning: Binning) -> tuple[int, ...]:
    """The scales of values: some that can be looked at, and the model's own or usual ones."""
    if predictor.card.kind != "values":
        return ()
    own = predictor.card.config.get("scale_bins")
    return scale_widths(binning.classes, (*COARSE_BINS, *(own or FINE_BINS)))


def _score(
    predictor: Predictor,
    stream: U16Stream,
    start: int,
    stop: int,
    seq_len: int,
    horizons: int,
    widths: Sequence[int],
    autocast: bool,
) -> tuple[list[Scores], list[Scores]]:
    """Scores of each horizon, and of the next symbol at each width, in one pass."""
    count = stop - start - horizons
    heads = [ScoreSheet(start + horizon, count) for horizon in range(1, horizons + 1)]
    scales = [ScoreSheet(start + 1, count) for _ in widths]
    kept = held_out_distributions(
        predictor, stream, start, stop, seq_len=seq_len, horizons=horizons, autocast=autocast
    )
    for horizon, logp, targets in kept:
        heads[horizon - 1].add(score_rows(logp, targets))
        if horizon == 1:
            for sheet, scores in zip(scales, coarse_scores(logp, targets, widths), strict=True):
                sheet.add(scores)
    return [sheet.scores() for sheet in heads], [sheet.scores() for sheet in scales]


def _about_scales(kind: str, scales: Sequence[ScaleScores]) -> str:
    if kind != "values":
        return (
            "there are no coarser scales: tokens are names, and what lies next to one means"
            " nothing like it"
        )
    if len(scales) == 1:
        return f"there are no coarser scales than the model's own {scales[0].bins:,} classes"
    return (
        f"each scale sums the probabilities that the model gives its {scales[0].bins:,} classes"
        " over bins of neighbours"
    )


def _about_horizons(predictor: Predictor, heads: int) -> str:
    if predictor.horizons == 1:
        return "the model has one head, which predicts the next symbol"
    heads_ahead = f"the heads predict 1 to {heads} symbols ahead from the same places"
    if predictor.card.config.get("pattern_weight") == 0:
        return f"{heads_ahead}; those beyond the first were not trained (--pattern_weight 0)"
    return heads_ahead
