"""How good class probabilities are: the usual scores, each with its interval over test objects."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from pyseq.analysis.calibration import (
    Reliability,
    calibration_error,
    chance_calibration_error,
    reliability_table,
)
from pyseq.analysis.fusion.probabilities import brier, checked, hits, nats
from pyseq.analysis.intervals import Interval, binomial_interval

_RESAMPLES = 2000
_MOST_CLUSTERS = 4096  # resampled; of more only the memory would be noticed, see block_bootstrap


@dataclass(frozen=True)
class FusionScores:
    """Scores on one test set; the intervals are of 95 %, over its objects or groups.

    Attributes:
        accuracy (Interval): share whose likeliest class came.
        macro_f1 (Interval): mean of the classes' F1.
        nll (Interval): negative log-likelihood, nats for each object.
        brier (Interval): squared distance of probabilities from what came, 0 to 2.
        ece (float): expected calibration error in 15 equal parts, a fraction; biased upward.
        ece_by_chance (float): what a perfectly calibrated model's stays below 95 times in 100.
        reliability (Reliability): accuracy of objects grouped by confidence.
        confusion (array (C, C), int64): objects of class i (row) predicted as j (column).
        objects (int): N.
        groups (int or None): how many groups they are in.
    """

    accuracy: Interval
    macro_f1: Interval
    nll: Interval
    brier: Interval
    ece: float
    ece_by_chance: float
    reliability: Reliability
    confusion: NDArray[np.int64]
    objects: int
    groups: int | None = None


def scores(
    probabilities: ArrayLike,
    label: ArrayLike,
    *,
    group: ArrayLike | None = None,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> FusionScores:
    """Score class probabilities.

    Accuracy of independent objects has its exact binomial interval, everything else that of the
    bootstrap over objects, or over groups. The calibration error has none, for the reasons that
    `pyseq.analysis.calibration` gives, but a yardstick.

    Args:
        probabilities (array (N, C), float): rows sum to one.
        label (array (N,), int): what came.
        group (array (N,), int, or None): objects of one group are not independent.
        resamples (int): of the bootstrap; >= 100.
        seed (int): of its draws.

    Returns:
        FusionScores: of these objects.

    Raises:
        ValueError: shapes do not fit, a label is none of the classes, or a row is no distribution.
    """
    given, came = checked(probabilities, label, who="scores")
    if given.ndim != 2 or resamples < 100:
        raise ValueError(
            f"scores: probabilities {given.shape}, resamples {resamples}; (N, classes) and >= 100 "
            "fit"
        )
    cluster = np.arange(came.size)
    if group is not None:
        if np.shape(group) != came.shape:
            raise ValueError(f"scores: group {np.shape(group)}; {came.shape} fits")
        cluster = np.unique(np.asarray(group), return_inverse=True)[1]
    hit, classes = hits(given, came), given.shape[1]
    cells = came * classes + given.argmax(-1)
    confusion = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    draws = _Draws(cluster, resamples, seed)
    confidence = given.max(-1)
    return FusionScores(
        accuracy=binomial_interval(int(hit.sum()), hit.size)
        if group is None
        else _grouped_accuracy(hit, draws),
        macro_f1=draws.interval(macro_f1(confusion), macro_f1(draws.confusions(cells, classes))),
        nll=draws.mean(nats(given, came)),
        brier=draws.mean(brier(given, came)),
        ece=calibration_error(confidence, hit),
        ece_by_chance=chance_calibration_error(confidence),
        reliability=reliability_table(confidence, hit),
        confusion=confusion,
        objects=came.size,
        groups=None if group is None else int(cluster.max()) + 1,
    )


def macro_f1(confusion: NDArray) -> NDArray[np.float64] | float:
    """Mean over the classes of F1 = 2 TP / (2 TP + FP + FN).

    Args:
        confusion (array (..., C, C)): counts, what came in rows, what was predicted in columns.

    Returns:
        array (...), float64, or float: classes that neither came nor were predicted are left out.
    """
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    of_class = confusion.sum(-1) + confusion.sum(-2)  # 2 TP + FP + FN
    present = of_class > 0
    f1 = np.where(present, 2 * right / np.maximum(of_class, 1), 0.0)
    return f1.sum(-1) / np.maximum(present.sum(-1), 1)


class _Draws:
    """Bootstrap samples of whole clusters, as how often each was drawn."""

    def __init__(self, cluster: NDArray[np.int64], resamples: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        count = int(cluster.max()) + 1
        if count > _MOST_CLUSTERS:  # taken together by lot, which keeps the variance of sums
            cluster = random.permutation(np.arange(count) % _MOST_CLUSTERS)[cluster]
        self.cluster = cluster
        self.sizes = np.bincount(cluster)
        self.clusters = self.sizes.size
        even = np.full(self.clusters, 1 / self.clusters)
        times = random.multinomial(self.clusters, even, size=resamples)
        self.times = times.astype(np.float64)  # (R, clusters); products of integers are slow
        # Too few clusters scatter too little and have heavier tails, as in block_bootstrap.
        freedom = self.clusters - 1
        self.stretch = math.inf
        if freedom:
            self.stretch = math.sqrt(self.clusters / freedom)
            self.stretch *= float(stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975))

    def mean(self, values: NDArray[np.float64]) -> Interval:
        """Of the objects' mean."""
        sums = np.bincount(self.cluster, weights=values, minlength=self.clusters)
        drawn = (self.times @ sums) / (self.times @ self.sizes)
        return self.interval(float(values.mean()), drawn)

    def confusions(self, cells: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
        """Of each sample, (R, classes, classes)."""
        used, place = np.unique(cells, return_inverse=True)
        counts = np.zeros((self.clusters, used.size))
        np.add.at(counts, (self.cluster, place), 1)
        drawn = np.zeros((len(self.times), classes**2), dtype=np.int64)
        drawn[:, used] = np.rint(self.times @ counts)
        return drawn.reshape(-1, classes, classes)

    def interval(self, value: float | NDArray, drawn: float | NDArray) -> Interval:
        """Around the value, from what the samples gave."""
        at = float(value)
        if not math.isfinite(self.stretch):
            return Interval(at, -math.inf, math.inf)
        low, high = np.quantile(np.asarray(drawn) - at, [0.025, 0.975])
        return Interval(at, at + self.stretch * float(low), at + self.stretch * float(high))


def _grouped_accuracy(hit: NDArray[np.float64], draws: _Draws) -> Interval:
    """Inside [0, 1]; where every object has the same outcome, what as many groups allow."""
    if hit.min() == hit.max():
        few = binomial_interval(draws.clusters * int(hit[0]), draws.clusters)
        return Interval(float(hit[0]), few.low, few.high)
    found = draws.mean(hit)
    return Interval(found.value, max(found.low, 0.0), min(found.high, 1.0))
