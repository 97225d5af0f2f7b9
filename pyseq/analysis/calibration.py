"""Whether a predictor's confidence is the accuracy it turns out to have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyseq.analysis.intervals import Interval, binomial_interval
from pyseq.analysis.scoring import Scores

_DRAWS = 4000  # of the calibrated predictor's error: its 95 % point is then right to 2 %


@dataclass(frozen=True)
class Reliability:
    """Predictions grouped by confidence; groups without a prediction are left out.

    Attributes:
        confidence (array (K,), float64): mean confidence of each group, fraction, increasing.
        accuracy (array (K,), float64): share of each group that was correct, fraction.
        count (array (K,), int64): predictions in each group.
    """

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int64]


@dataclass(frozen=True)
class PredictionGroup:
    """Predictions that are about equally sure, and what became of them.

    Attributes:
        confidence (float): mean probability of the most likely class.
        accuracy (Interval): share of the group in which it came, fraction.
        entropy (float): mean entropy of the predictions, bits.
        bits (Interval): bits per symbol.
        count (int): predictions in the group.

    The 95 % intervals take the symbols for independent.
    """

    confidence: float
    accuracy: Interval
    entropy: float
    bits: Interval
    count: int


def prediction_groups(
    scores: Scores, by: Literal["confidence", "entropy"], *, groups: int = 10
) -> list[PredictionGroup]:
    """Groups of (nearly) equal size, from the least to the most sure or entropic predictions.

    Args:
        scores (Scores): per symbol.
        by (str): "confidence" or "entropy".
        groups (int): how many at the most; >= 1.

    Returns:
        list of PredictionGroup: in ascending order of `by`.
    """
    order = np.argsort(getattr(scores, by), kind="stable")
    return [_group(scores, chosen) for chosen in np.array_split(order, min(groups, len(order)))]


def _group(scores: Scores, chosen: NDArray[np.int64]) -> PredictionGroup:
    bits, count = scores.bits[chosen], len(chosen)
    mean = float(bits.mean())
    margin = 1.96 * float(bits.std(ddof=1)) / count**0.5 if count > 1 else float("inf")
    return PredictionGroup(
        confidence=float(scores.confidence[chosen].mean()),
        accuracy=binomial_interval(int(scores.hits[chosen, 0].sum()), count),
        entropy=float(scores.entropy[chosen].mean()),
        bits=Interval(mean, mean - margin, mean + margin),
        count=count,
    )


def reliability_table(confidence: ArrayLike, correct: ArrayLike, *, bins: int = 15) -> Reliability:
    """Group predictions by confidence and set each group's accuracy beside it.

    Groups hold equally many predictions, which shows more than equal parts of [0, 1] where
    confidences lie close together; equal confidences stay in one group.

    Args:
        confidence (array (N,), float): probability given to the top prediction, in [0, 1].
        correct (array (N,), bool or 0/1): whether it came true.
        bins (int): number of groups at the most; >= 1.

    Returns:
        Reliability: mean confidence, accuracy and count of each group.

    Raises:
        ValueError: empty or unequal arrays, or a value out of range.
    """
    sure, hit = _checked(confidence, correct, bins)
    edges = np.unique(np.quantile(sure, np.arange(1, bins) / bins, method="lower"))
    group = np.searchsorted(edges, sure, side="left")
    _, group = np.unique(group, return_inverse=True)
    count = np.bincount(group)
    confidences, hits = np.bincount(group, weights=sure), np.bincount(group, weights=hit)
    return Reliability(confidences / count, hits / count, count)


def calibration_error(confidence: ArrayLike, correct: ArrayLike, *, bins: int = 15) -> float:
    """Expected calibration error: the mean distance of confidence from accuracy over equal parts.

    It is biased upward by about sqrt(bins / N) where confidences spread over all parts, so zero is
    never reached on a finite sample. It has no interval: it is a sum of absolute values, near zero
    its bootstrap is inconsistent and adds the same bias once more, so that an interval could leave
    out the estimate itself. `chance_calibration_error` gives the yardstick instead.

    Args:
        confidence (array (N,), float): probability given to the top prediction, in [0, 1].
        correct (array (N,), bool or 0/1): whether it came true.
        bins (int): equal parts of [0, 1]; >= 1.

    Returns:
        float: fraction, 0 is perfect.

    Raises:
        ValueError: empty or unequal arrays, or a value out of range.

    Source: Naeini, Cooper and Hauskrecht 2015, by torchmetrics' binary_calibration_error.
    """
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    sure, hit = _checked(confidence, correct, bins)
    # torchmetrics gives a confidence of exactly 1 a group of its own; here it joins the last one.
    preds = torch.from_numpy(np.minimum(sure, np.nextafter(1.0, 0.0)))
    target = torch.from_numpy(hit.astype(np.int64))
    return float(binary_calibration_error(preds, target, n_bins=bins, norm="l1"))


def chance_calibration_error(
    confidence: ArrayLike, *, bins: int = 15, level: float = 0.95, seed: int = 0
) -> float:
    """What a perfectly calibrated predictor's calibration error stays below.

    Given the past, the hits of such a predictor miss its confidences by martingale differences of
    variance p (1 - p), whatever the dependence of the symbols; so the sums over the parts are about
    normal with known variances, and uncorrelated.

    Args:
        confidence (array (N,), float): probability given to the top prediction, in [0, 1].
        bins (int): equal parts of [0, 1]; >= 1.
        level (float): in this share of samples, in (0, 1).
        seed (int): of the draws.

    Returns:
        float: fraction.

    Raises:
        ValueError: the array is empty or a value out of range.

    Source: Bröcker and Smith 2007, Increasing the reliability of reliability diagrams.
    """
    sure, _ = _checked(confidence, np.zeros(np.shape(confidence)), bins)
    part = np.minimum((sure * bins).astype(int), bins - 1)
    spread = np.sqrt(np.bincount(part, weights=sure * (1 - sure), minlength=bins)) / sure.size
    draws = np.random.default_rng(seed).normal(size=(_DRAWS, bins))
    return float(np.quantile(np.abs(draws * spread).sum(axis=1), level))


def _checked(
    confidence: ArrayLike, correct: ArrayLike, bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as float64 (N,), with values that fit."""
    sure = np.asarray(confidence, dtype=np.float64)
    hit = np.asarray(correct, dtype=np.float64)
    if sure.ndim != 1 or sure.shape != hit.shape or sure.size == 0 or bins < 1:
        raise ValueError(
            f"calibration: confidence {sure.shape}, correct {hit.shape}, {bins} bins; "
            "both arrays must be (N,) with N >= 1, and bins >= 1"
        )
    # float32 softmax may round to a hair above one.
    if not (sure.min() >= 0 and sure.max() <= 1 + 1e-6):
        raise ValueError(
            f"calibration: confidence from {sure.min()} to {sure.max()}; it must lie in [0, 1]"
        )
    if not np.isin(hit, (0.0, 1.0)).all():
        raise ValueError("calibration: correct must hold only 0 and 1, or booleans")
    return np.minimum(sure, 1.0), hit
