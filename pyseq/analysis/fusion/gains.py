"""What a change is worth: paired differences over seeds and test objects, with an honest interval.

A gain that one seed shows on one test set may come of either; the interval is for what another
seed would show on other objects, given the same training data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from pyseq.analysis.fusion.probabilities import brier, checked, hits, nats
from pyseq.analysis.intervals import Interval

Metric = Literal["accuracy", "nll", "brier"]
Verdict = Literal["helps", "hurts", "no difference that the data can show"]
NO_DIFFERENCE: Verdict = "no difference that the data can show"

# What an object scores, as something of which more is better.
_GOOD: Mapping[str, Callable[[NDArray[np.float64], NDArray[np.int64]], NDArray[np.float64]]] = {
    "accuracy": hits,
    "nll": lambda probabilities, label: -nats(probabilities, label),
    "brier": lambda probabilities, label: -brier(probabilities, label),
}


@dataclass(frozen=True)
class Gain:
    """What a change is worth, more is better.

    Attributes:
        metric ("accuracy" | "nll" | "brier"): accuracy in fractions; the others are what they fell
            by, in nats or as they are.
        interval (Interval): mean over seeds and objects, with its 95 % interval.
        seeds (int): S.
        objects (int): N.
        over (str): what the interval is over, such as "seeds and objects".
    """

    metric: Metric
    interval: Interval
    seeds: int
    objects: int
    over: str

    @property
    def verdict(self) -> Verdict:
        """Whether the interval leaves zero out, and on which side."""
        return verdict(self.interval)


def verdict(interval: Interval) -> Verdict:
    """What a gain's interval allows to say.

    Args:
        interval (Interval): of a gain, of which more is better.

    Returns:
        "helps" | "hurts" | "no difference that the data can show".
    """
    if interval.low > 0:
        return "helps"
    return "hurts" if interval.high < 0 else NO_DIFFERENCE


def paired_gain(
    with_: ArrayLike,
    without: ArrayLike,
    label: ArrayLike,
    *,
    metric: Metric = "accuracy",
    group: ArrayLike | None = None,
    fold: ArrayLike | None = None,
    level: float = 0.95,
) -> Gain:
    """The gain of one way of predicting over another one on the same objects.

    Args:
        with_ (array (S, N, C) or (N, C), float): probabilities with the change, seed by seed.
        without (array of the same shape, float): without it; seed s of both stands for one pair.
        label (array (N,), int): what came.
        metric ("accuracy" | "nll" | "brier"): what is compared.
        group (array (N,), int, or None): objects of one group are not independent.
        fold (array (N,) or (S, N), int, or None): where predictions are out-of-fold, whose model
            predicted each object; without it each seed has one model.
        level (float): coverage asked for, in (0, 1).

    Returns:
        Gain: with `mean_interval`'s interval.

    Raises:
        ValueError: an unknown metric, shapes that do not fit, rows that are no distributions.
    """
    if metric not in _GOOD:
        raise ValueError(f"paired_gain: metric {metric!r}; known are {', '.join(_GOOD)}")
    first, came = checked(with_, label, who="paired_gain")
    second, _ = checked(without, label, who="paired_gain")
    if first.shape != second.shape or first.ndim > 3:
        raise ValueError(
            f"paired_gain: with {first.shape}, without {second.shape}; both (S, N, classes) or "
            "both (N, classes)"
        )
    good = _GOOD[metric]
    difference = np.atleast_2d(good(first, came) - good(second, came))  # (S, N)
    return gain_of(difference, metric, group=group, fold=fold, level=level)


def gain_of(
    difference: ArrayLike,
    metric: Metric,
    *,
    group: ArrayLike | None = None,
    fold: ArrayLike | None = None,
    level: float = 0.95,
) -> Gain:
    """The gain where the differences of seeds and objects are already at hand.

    Args:
        difference (array (S, N), float): of seed and object, more is better; of hits for accuracy.
        metric ("accuracy" | "nll" | "brier"): of which it is a difference.
        group, fold, level: as of `paired_gain`.

    Returns:
        Gain: with `mean_interval`'s interval.

    Raises:
        ValueError: as of `mean_interval`.
    """
    values = np.asarray(difference, dtype=np.float64)
    rare = metric == "accuracy"
    interval = mean_interval(values, group=group, fold=fold, level=level, rare=rare)
    seeds, objects = values.shape
    kinds = [
        "seeds" if seeds > 1 else "", "folds" if fold is not None else "",
        "groups" if group is not None else "objects",
    ]  # fmt: skip
    over = " and ".join(filter(None, kinds))
    return Gain(metric, interval, seeds, objects, over)


def mean_interval(
    values: ArrayLike,
    *,
    group: ArrayLike | None = None,
    fold: ArrayLike | None = None,
    level: float = 0.95,
    rare: bool = False,
) -> Interval:
    """Interval for a mean over seeds and objects, both of which might have been others.

    Each value is taken for mean + effect of its model + effect of its object + rest, all random.
    The mean's variance is the sum of what models and objects show of it, less the rest, which both
    hold (the two-way analysis of variance; with folds the two-way clustered variance); the
    quantile is Student's, with Satterthwaite's degrees of freedom. A bootstrap that resamples
    seeds and objects estimates the same variance, but of few seeds too little: 4/5 of it of five,
    and its percentiles know nothing of Student's 2.78 for 1.96.

    Limits: one seed without folds says nothing of other seeds, and the interval is for that one
    model; models of one cross-validation share training data, which makes the interval a little
    too short; the training data themselves are taken as given.

    Args:
        values (array (S, N), float): of seed and object.
        group (array (N,), int, or None): objects of one group count as one that may be another.
        fold (array (N,) or (S, N), int, or None): the model within a seed that predicted each.
        level (float): coverage asked for, in (0, 1).
        rare (bool): whether values are differences of hits, most of them zero. One more object
            that differs is then allowed for (Agresti and Min 2005), so that no difference in
            N objects does not pass for certainty.

    Returns:
        Interval: mean and interval; infinite where there is nothing to judge by.

    Raises:
        ValueError: shapes do not fit, or values are not finite.

    Source: Searle, Casella and McCulloch 1992, Variance components, chapter 4; Satterthwaite 1946;
        Cameron, Gelbach and Miller 2011, Robust inference with multiway clustering; Owen 2007, The
        pigeonhole bootstrap; Agresti and Min 2005, Simple improved confidence intervals for
        comparing matched proportions.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 2 or given.size == 0 or not np.isfinite(given).all():
        raise ValueError(
            f"mean_interval: values {given.shape}; (S, N) of finite numbers fit, S, N >= 1"
        )
    if not 0 < level < 1:
        raise ValueError(f"mean_interval: level {level}; between 0 and 1 fits")
    seeds, objects = given.shape
    cluster = _numbered(np.arange(objects) if group is None else group, (objects,), "group")
    mean = float(given.mean())
    centred = given - mean
    # Every part is a variance of the mean with its degrees of freedom.
    of_object = _clustered(centred, np.broadcast_to(cluster, given.shape))
    if fold is None:
        of_model = _clustered(centred, np.broadcast_to(np.arange(seeds)[:, None], given.shape))
        rest = _rest(centred, cluster)
    else:
        model = _models(fold, seeds, objects)
        of_model = _clustered(centred, model)
        both = np.unique(
            np.stack([model.ravel(), np.tile(cluster, seeds)]), axis=1, return_inverse=True
        )
        rest = _clustered(centred, both[1].reshape(given.shape))
    if seeds == 1 and fold is not None:
        parts = [of_model]  # its objects' part is in it: each is predicted by one model
    elif seeds == 1:
        parts = [of_object]
    else:
        parts = [of_object, of_model, (-rest[0], rest[1])]
    total = sum(part for part, _ in parts)
    # The difference of estimates may fall below what either alone shows.
    total = max(total, *(part for part, _ in parts)) if len(parts) > 1 else total
    clusters = int(cluster.max()) + 1
    if rare:
        total += 1 / clusters**2
        parts.append((1 / clusters**2, math.inf))
    if any(freedom < 1 for _, freedom in parts):
        return Interval(mean, -math.inf, math.inf)
    uncertainty = sum(part**2 / freedom for part, freedom in parts)
    freedom = total**2 / uncertainty if uncertainty > 0 else math.inf
    margin = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(total)
    return Interval(mean, mean - margin, mean + margin)


def _clustered(centred: NDArray[np.float64], cluster: NDArray) -> tuple[float, float]:
    """The mean's variance had only whole clusters been drawn, and its degrees of freedom."""
    sums = np.bincount(cluster.ravel(), weights=centred.ravel())
    count = sums.size
    if count < 2:
        return 0.0, 0.0
    return float(np.square(sums).sum()) / centred.size**2 * count / (count - 1), count - 1.0


def _rest(centred: NDArray[np.float64], cluster: NDArray) -> tuple[float, float]:
    """What neither seeds nor objects explain, as a part of the mean's variance."""
    sizes = np.bincount(cluster)
    sums = np.stack([np.bincount(cluster, weights=row) for row in centred])  # (S, clusters)
    # Each seed's mean and each cluster's mean over seeds are taken out.
    of_seed = centred.mean(1, keepdims=True) * sizes
    of_cluster = sums.mean(0, keepdims=True)
    left = sums - of_seed - of_cluster
    freedom = (len(centred) - 1.0) * (sizes.size - 1.0)
    if freedom < 1:
        return 0.0, freedom
    return float(np.square(left).sum()) / centred.size**2 * left.size / freedom, freedom


def _models(fold: ArrayLike, seeds: int, objects: int) -> NDArray[np.int64]:
    """A number for each pair of seed and fold, (S, N)."""
    given = np.asarray(fold)
    if given.shape not in ((objects,), (seeds, objects)):
        raise ValueError(
            f"mean_interval: fold {given.shape} for {seeds} seeds of {objects} objects; "
            f"({objects},) or ({seeds}, {objects}) fits"
        )
    given = np.broadcast_to(given, (seeds, objects))
    numbers = np.unique(given, return_inverse=True)[1].reshape(seeds, objects)
    pairs = numbers + (numbers.max() + 1) * np.arange(seeds)[:, None]
    return np.unique(pairs, return_inverse=True)[1].reshape(seeds, objects)


def _numbered(group: ArrayLike, shape: tuple[int, ...], name: str) -> NDArray[np.int64]:
    given = np.asarray(group)
    if given.shape != shape:
        raise ValueError(f"mean_interval: {name} {given.shape}; {shape} fits")
    return np.unique(given, return_inverse=True)[1].reshape(shape)
