"""How well each head predicts, from the next symbol to the farthest one."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import NDArray

from pyseq.analysis.calibration import calibration_error
from pyseq.analysis.ceilings import Ceiling
from pyseq.analysis.intervals import Interval, block_bootstrap
from pyseq.analysis.scoring import TOP_K, Scores
from pyseq.analysis.verdicts import Verdict, judge


@dataclass(frozen=True)
class HorizonScores:
    """The scores of the head that predicts `horizon` symbols ahead.

    Attributes:
        horizon (int): 1 is the next symbol.
        bits (Interval): bits per symbol of the head.
        marginal_bits (Interval): bits per symbol of the training symbols' frequencies, on the same
            symbols.
        accuracy (dict k -> Interval): top-k accuracy for k in 1, 3, 5, fractions.
        confidence (Interval): mean probability of the most likely class, fraction.
        entropy (Interval): mean entropy of the predictions, bits.
        ece (float): expected calibration error, fraction.
        verdict (Verdict): in words; its level is `PredictionAnalysis.level`.
        scores (Scores): the same per symbol.
    """

    horizon: int
    bits: Interval
    marginal_bits: Interval
    accuracy: dict[int, Interval]
    confidence: Interval
    entropy: Interval
    ece: float
    verdict: Verdict
    scores: Scores


def judge_horizon(
    scores: Scores,
    horizon: int,
    *,
    marginal: NDArray,
    ceiling: Ceiling,
    block: int,
    level: float,
) -> HorizonScores:
    """Set the scores of one head beside the marginal.

    Args:
        scores (Scores): of the classes `horizon` steps ahead.
        horizon (int): 1 is the next symbol.
        marginal (array (N,), float64): bits of the same classes under the training frequencies.
        ceiling (Ceiling): of the same classes.
        block (int): of the bootstrap.
        level (float): of the verdict.

    Returns:
        HorizonScores: with 95 % intervals.
    """

    def mean(values: NDArray) -> Interval:
        return block_bootstrap(values, block=block)

    name = "the model" if horizon == 1 else f"the head that predicts {horizon} symbols ahead"
    return HorizonScores(
        horizon=horizon,
        bits=mean(scores.bits),
        marginal_bits=mean(marginal),
        accuracy={k: mean(scores.hits[:, i]) for i, k in enumerate(TOP_K)},
        confidence=mean(scores.confidence),
        entropy=mean(scores.entropy),
        ece=calibration_error(scores.confidence, scores.hits[:, 0]),
        verdict=judge(
            scores.bits,
            marginal,
            scores.classes,
            ceiling=ceiling,
            block=block,
            name=name,
            level=level,
        ),
        scores=scores,
    )
