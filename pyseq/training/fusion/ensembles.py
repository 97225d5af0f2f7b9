"""Several trained models as one predictor: k-fold, ensemble, and both with a full-data model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pyseq.data.modalities import ModalityData, folds
from pyseq.training.fusion.calibration import (
    TINY,
    fit_temperature,
    fit_weights,
    mixture,
    tempered,
)
from pyseq.training.fusion.config import TrainFusionConfig
from pyseq.training.fusion.fit import Prediction, TrainedFusion, train_fusion

VALIDATION_SHARE = 5  # a member keeps one part of so many for its validation
# Kinds of trainings in one run, which share no seeds, nor do runs of different seeds.
FOLD, MEMBER, FULL = 1, 2, 3

Told = Callable[[str], None]


def silent(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Member:
    """A model of an ensemble.

    Attributes:
        name (str): such as "fold 2", "width 384" or "all rows".
        trained (TrainedFusion): the model.
        weight (float): its share of the whole; weights sum to 1.
    """

    name: str
    trained: TrainedFusion
    weight: float


@dataclass(frozen=True)
class FusionEnsemble:
    """Models whose predictions are averaged, each in eval mode and with its own temperature.

    Attributes:
        members (tuple of Member): at least one.
        average (str): "probabilities", or "logits": their logarithms, normalised afterwards.
    """

    members: tuple[Member, ...]
    average: str = "probabilities"

    def member_probabilities(
        self, data: ModalityData, using: Prediction | None = None, device: str = "auto"
    ) -> np.ndarray:
        """Probabilities (members, N, classes), float64, of each member alone."""
        return np.stack([m.trained.probabilities(data, using, device) for m in self.members])

    def probabilities(
        self, data: ModalityData, using: Prediction | None = None, device: str = "auto"
    ) -> np.ndarray:
        """Probabilities of the classes.

        Args:
            data (ModalityData): N objects as they came, not standardised.
            using (Prediction | None): how each member predicts; None: as it was trained to.
            device (str): where; auto, cpu, cuda, or cuda:N.

        Returns:
            array (N, classes), float64: rows sum to 1.
        """
        return combine(
            self.member_probabilities(data, using, device),
            [member.weight for member in self.members],
            self.average,
        )


def combine(predictions: np.ndarray, weights: Sequence[float], average: str) -> np.ndarray:
    """Average members' probabilities.

    Args:
        predictions (array (M, N, C), float64): of each member.
        weights (sequence of M float): 0 or more, not all 0.
        average (str): "probabilities" or "logits".

    Returns:
        array (N, C), float64: rows sum to 1.
    """
    if average == "probabilities":
        return mixture(list(predictions), weights)
    logits = np.log(np.maximum(predictions, TINY))
    mean = np.tensordot(np.asarray(weights) / np.sum(weights), logits, 1)
    return tempered(np.exp(mean - mean.max(1, keepdims=True)), 1.0)


@dataclass(frozen=True)
class HeldOut:
    """An ensemble with what its members say of objects that they were not trained on.

    Attributes:
        ensemble (FusionEnsemble): what predicts.
        probabilities (array (M, N, C), float64): of each member without its temperature, for every
            object of the data it comes from; rows of NaN where it was trained on the object.
        label (array (N,), int64): classes of these objects.
    """

    ensemble: FusionEnsemble
    probabilities: np.ndarray
    label: np.ndarray

    @property
    def accuracies(self) -> list[float]:
        """Of each member over its own held-out objects; NaN where there are none."""
        found = []
        for each in self.probabilities:
            known = ~np.isnan(each[:, 0])
            right = each[known].argmax(1) == self.label[known]
            found.append(float(right.mean()) if known.any() else float("nan"))
        return found

    @property
    def out_of_fold(self) -> np.ndarray:
        """Mean of those members that may say something of an object (N, C); NaN without any."""
        return mixture(list(self.probabilities), [1.0] * len(self.probabilities))


def own_seed(seed: int, kind: int, number: int) -> int:
    """Seed of one of the trainings of a run; no other run has it, so that runs are independent."""
    return 10_000 * seed + 1000 * kind + number


def k_fold(
    config: TrainFusionConfig, data: ModalityData, k: int, seed: int, told: Told = silent
) -> HeldOut:
    """Train k models, each without one fold, and keep all of them.

    The fold that a model does not learn from says nothing to it either: the weights of the last
    epoch are kept, and the one temperature of all is fitted to the folds together. So what the
    models say of their folds is an estimate that nothing was chosen by.

    Args:
        config (TrainFusionConfig): as of `train_fusion`.
        data (ModalityData): N objects; those of one group are in one fold.
        k (int): folds, at least 2.
        seed (int): of folds and trainings.
        told (Callable): is given a line about each.

    Returns:
        HeldOut: k members of equal weight, every object held out by one of them.
    """
    members, found = [], []
    for number, (train, test) in enumerate(folds(data, k, seed), 1):
        trained = train_fusion(config, data, train, None, own_seed(seed, FOLD, number))
        found.append(_held_out(trained, data, test, config))
        members.append(Member(f"fold {number}", trained, 1 / k))
        told(f"fold {number} of {k}: {_said(found[-1], data.label)} of the held-out fold")
    held = HeldOut(FusionEnsemble(tuple(members), config.average), np.stack(found), data.label)
    return _common_temperature(held) if config.calibrate else held


def _common_temperature(held: HeldOut) -> HeldOut:
    temperature = fit_temperature(held.out_of_fold, held.label)
    members = tuple(
        replace(member, trained=member.trained.with_temperature(temperature))
        for member in held.ensemble.members
    )
    return replace(held, ensemble=replace(held.ensemble, members=members))


def ensemble(
    config: TrainFusionConfig,
    data: ModalityData,
    widths: Sequence[int],
    seed: int,
    told: Told = silent,
) -> HeldOut:
    """Train a model for each width, with a seed and a validation part of its own.

    Args:
        config (TrainFusionConfig): as of `train_fusion`; its model's width is not read.
        data (ModalityData): N objects; those of one group are on one side of each split.
        widths (sequence of int): of the members.
        seed (int): all that is random follows from it.
        told (Callable): is given a line about each.

    Returns:
        HeldOut: members of equal weight, with their validation objects held out, by which each has
            chosen its epoch and its temperature.
    """
    members, found = [], []
    for number, width in enumerate(widths, 1):
        own = own_seed(seed, MEMBER, number)
        train, validation = folds(data, VALIDATION_SHARE, own)[0]
        sized = replace(config, model=replace(config.model, width=width))
        trained = train_fusion(sized, data, train, validation, own)
        found.append(_held_out(trained, data, validation, config))
        members.append(Member(f"width {width}, seed {own}", trained, 1 / len(widths)))
        told(
            f"member {number} of {len(widths)}, width {width}: {_said(found[-1], data.label)} of"
            f" its validation part, weights of epoch {trained.best_epoch}"
        )
    return HeldOut(FusionEnsemble(tuple(members), config.average), np.stack(found), data.label)


def super_ensemble(
    config: TrainFusionConfig, data: ModalityData, seed: int, told: Told = silent
) -> HeldOut:
    """Train k-fold, ensemble and a model on all objects, and average them all.

    Weights are equal, or fitted to what is said of held-out objects: by the k-fold models taken as
    one, whose every prediction is of one model, and by each member of the ensemble. The model that
    was trained on all objects has no such prediction, so its weight stays the equal one. It ends
    with its last epoch's weights and has the temperature of the k-fold models, as both are of the
    same settings.

    Args:
        config (TrainFusionConfig): as of `train_fusion`, with folds, widths and weights.
        data (ModalityData): N objects, without those of the test.
        seed (int): all that is random follows from it.
        told (Callable): is given a line about each.

    Returns:
        HeldOut: folds, members and the full-data model, in this order.
    """
    by_fold = k_fold(config, data, config.folds, seed, told)
    others = ensemble(config, data, config.widths, seed, told)
    full = train_fusion(config, data, np.arange(len(data)), None, own_seed(seed, FULL, 0))
    full = full.with_temperature(by_fold.ensemble.members[0].trained.temperature)
    told(f"model on all {len(data)} objects that are not of the test: trained")
    found = np.concatenate(
        [
            by_fold.probabilities,
            others.probabilities,
            np.full_like(by_fold.probabilities[:1], np.nan),
        ]
    )
    members = (*by_fold.ensemble.members, *others.ensemble.members, Member("all rows", full, 1.0))
    weights = [1 / len(members)] * len(members)
    if config.weights == "fitted":
        weights = super_weights(by_fold, others)
    weighed = tuple(replace(m, weight=w) for m, w in zip(members, weights, strict=True))
    return HeldOut(FusionEnsemble(weighed, config.average), found, data.label)


def super_weights(by_fold: HeldOut, others: HeldOut) -> list[float]:
    """Weights of folds, members and full-data model from out-of-fold predictions alone.

    Args:
        by_fold (HeldOut): K folds.
        others (HeldOut): M members, of the same objects.

    Returns:
        list of K + M + 1 float: sum 1; the last one is 1 / (K + M + 1).
    """
    count = len(by_fold.ensemble.members)
    temperatures = [m.trained.temperature for m in others.ensemble.members]
    parts = [tempered(by_fold.out_of_fold, by_fold.ensemble.members[0].trained.temperature)]
    parts += [
        tempered(each, temperature)
        for each, temperature in zip(others.probabilities, temperatures, strict=True)
    ]
    of_folds, *of_members = fit_weights(parts, by_fold.label)
    full = 1 / (count + len(of_members) + 1)
    return [*[(1 - full) * of_folds / count] * count, *((1 - full) * w for w in of_members), full]


def _held_out(
    trained: TrainedFusion, data: ModalityData, rows: np.ndarray, config: TrainFusionConfig
) -> np.ndarray:
    """Untempered probabilities (N, C) of some rows, NaN at all others."""
    using = replace(trained.using, calibrated=False)
    found = np.full((len(data), data.classes), np.nan)
    found[rows] = trained.probabilities(data.subset(rows), using, config.device)
    return found


def _said(probabilities: np.ndarray, label: np.ndarray) -> str:
    known = ~np.isnan(probabilities[:, 0])
    right = float((probabilities[known].argmax(1) == label[known]).mean())
    return f"{100 * right:.2f} %"
