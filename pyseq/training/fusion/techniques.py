"""Trainings of the table of techniques: each technique alone, and after all those before it.

One model that concatenates its modalities, trained plainly, is the baseline. Every training
predicts the same locked test part once; the split stays, the seed of weights, batches and draws
varies. What was run is a line in a file and is not run again.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pyseq.analysis.fusion import TechniqueRun, append_run, read_runs
from pyseq.data.modalities import ModalityData, find_data, locked_split
from pyseq.training.fusion.config import TrainFusionConfig
from pyseq.training.fusion.ensembles import (
    FusionEnsemble,
    Told,
    ensemble,
    k_fold,
    super_ensemble,
)
from pyseq.training.fusion.fit import Prediction, TrainedFusion, train_fusion

SPLIT_SEED = 0
# Objects that are generated for the table, which the split makes 1200, 400 and 400 of.
DATA: Mapping[str, Mapping[str, Any]] = {"digits": {}, "synthetic": {"count": 2000}}

# Settings that say how what was trained predicts.
PREDICTION = ("snapshots", "tta", "mc_dropout", "calibrate")

BASELINE: Mapping[str, Any] = {
    "strategy": "single",
    "epochs": 12,
    "batch": 64,
    "lr": 5e-4,
    "schedule": "constant",
    "warmup_epochs": 2,
    "cycle_epochs": 5,
    "label_smoothing": 0.0,
    "focal_gamma": 0.0,
    "mixup_alpha": None,
    "snapshots": False,
    "tta": 0,
    "mc_dropout": 0,
    "calibrate": False,
    "folds": 5,
    "model.fusion": "concatenation",
    "model.width": 256,
    "model.classifier_layers": 3,
    "model.dropout": 0.1,
    "model.modality_dropout": 0.0,
}


@dataclass(frozen=True)
class Technique:
    """Something that is added.

    Attributes:
        name (str): in the table.
        change (mapping): settings that it sets; "model." comes before those of the model.
        upon (str): the technique that it cannot do without; alone it is added to that one and
            held against it.
        alone_only (bool): whether it is left out of what is added up, as another technique in the
            list does the same or the opposite.
        kept (bool): whether what comes after it is added to it too; else it is added to all before
            it, and what comes next is again added to these alone.
    """

    name: str
    change: Mapping[str, Any]
    upon: str = ""
    alone_only: bool = False
    kept: bool = True


TECHNIQUES = (
    Technique("cross-modal attention", {"model.fusion": "attention"}),
    Technique("modality dropout .2", {"model.modality_dropout": 0.2}),
    Technique("5 classifier layers for 3", {"model.classifier_layers": 5}),
    # Four times the work: upon everything that many models do, it would take most of the time.
    Technique("width 512 for 256", {"model.width": 512}, kept=False),
    Technique("label smoothing .2", {"label_smoothing": 0.2}),
    # Smoothing asks for less certainty everywhere, focal loss for less where there is much.
    Technique("focal loss, gamma 2", {"focal_gamma": 2.0}, alone_only=True),
    Technique("mixup, alpha .1 to .4", {"mixup_alpha": [0.1, 0.4]}),
    Technique("cosine schedule for constant", {"schedule": "cosine"}, alone_only=True),
    Technique("cyclic cosine for constant", {"schedule": "cyclic"}),
    Technique("snapshots", {"snapshots": True}, upon="cyclic cosine for constant"),
    Technique("test-time augmentation, 5 views", {"tta": 5}),
    Technique("temperature", {"calibrate": True}),
    Technique("5-fold models", {"strategy": "k_fold"}),
    Technique("ensemble of 3", {"strategy": "ensemble"}),
    Technique("super-ensemble", {"strategy": "super_ensemble"}),
)
NAMES = tuple(technique.name for technique in TECHNIQUES)
ALONE_ONLY = {technique.name for technique in TECHNIQUES if technique.alone_only}
NOT_KEPT = {technique.name for technique in TECHNIQUES if not technique.kept}
UPON = {technique.name: technique.upon for technique in TECHNIQUES if technique.upon}


@dataclass(frozen=True)
class Planned:
    """A training of the table: its place, and its settings with "model." before the model's."""

    technique: str
    place: str
    settings: Mapping[str, Any]


def plan(techniques: Sequence[Technique] = TECHNIQUES) -> Iterator[Planned]:
    """The baseline, then each technique alone and so far."""
    yield Planned("", "baseline", BASELINE)
    changes = {technique.name: technique.change for technique in techniques}
    so_far = dict(BASELINE)
    for technique in techniques:
        under = changes[technique.upon] if technique.upon else {}
        yield Planned(technique.name, "alone", {**BASELINE, **under, **technique.change})
        if technique.alone_only:
            continue
        with_it = {**so_far, **technique.change}
        yield Planned(technique.name, "so far", with_it)
        if technique.kept:
            so_far = with_it


def configured(settings: Mapping[str, Any], data: str) -> TrainFusionConfig:
    """The training's config."""
    own = {name: value for name, value in settings.items() if "." not in name}
    of_model = {name.partition(".")[2]: value for name, value in settings.items() if "." in name}
    if own.get("mixup_alpha") is not None:
        own["mixup_alpha"] = tuple(own["mixup_alpha"])
    config = TrainFusionConfig(data=data, split_seed=SPLIT_SEED, device="cpu", **own)
    width = of_model["width"]
    # Members of an ensemble differ in width too; none is wider than what they are held against.
    return replace(
        config,
        model=replace(config.model, **of_model),
        widths=(width, 3 * width // 4, width // 2),
    )


def shared_training(settings: Mapping[str, Any]) -> str:
    """What rows of the same training have in common, as text.

    How a model predicts does not change its training, and a super-ensemble holds the models of the
    other two that are many.
    """
    left_out = PREDICTION if settings["strategy"] == "single" else ("strategy",)
    return json.dumps({k: v for k, v in settings.items() if k not in left_out}, sort_keys=True)


def train(
    rows: Sequence[Planned], data: ModalityData, seed: int
) -> list[TrainedFusion | FusionEnsemble]:
    """Train once for all rows of the same `shared_training`.

    Args:
        rows (sequence of Planned): one or more.
        data (ModalityData): all objects; nothing is learned from those of the locked test part.
        seed (int): of the training.

    Returns:
        list: what predicts for each row, with the very numbers that a training for it alone gives.
    """
    configs = [configured(row.settings, data.name) for row in rows]
    learn, validation, _ = locked_split(data, SPLIT_SEED)
    first = configs[0]
    if first.strategy == "single":
        kept = any(config.snapshots for config in configs)
        trained = train_fusion(replace(first, snapshots=kept), data, learn, validation, seed)
        held_out = data.subset(validation)
        return [trained.predicting(Prediction.of(c), held_out, c.device) for c in configs]
    # The many make their own parts of these.
    rest = data.subset(np.concatenate([learn, validation]))
    strategies = {config.strategy for config in configs}
    if "super_ensemble" not in strategies:
        return [_many(config, rest, seed) for config in configs]
    whole = super_ensemble(first, rest, seed).ensemble
    parts = {
        "k_fold": _equal(whole, slice(None, first.folds)),
        "ensemble": _equal(whole, slice(first.folds, -1)),
        "super_ensemble": whole,
    }
    return [parts[config.strategy] for config in configs]


def _many(config: TrainFusionConfig, rest: ModalityData, seed: int) -> FusionEnsemble:
    if config.strategy == "k_fold":
        return k_fold(config, rest, config.folds, seed).ensemble
    return ensemble(config, rest, config.widths, seed).ensemble


def _equal(whole: FusionEnsemble, part: slice) -> FusionEnsemble:
    members = whole.members[part]
    equal = tuple(replace(member, weight=1 / len(members)) for member in members)
    return replace(whole, members=equal)


def score(
    planned: Planned, predictor: TrainedFusion | FusionEnsemble, data: ModalityData, **about: Any
) -> TechniqueRun:
    """One line of the table: the locked test part predicted, as it is and without each modality.

    Args:
        planned (Planned): the row.
        predictor (TrainedFusion | FusionEnsemble): what `train` gave for it.
        data (ModalityData): all objects.
        **about: seed, settings, seconds and machine, as of `TechniqueRun`.
    """
    scored = data.subset(locked_split(data, SPLIT_SEED)[2])
    return TechniqueRun.of(
        predictor.probabilities(scored, device="cpu"),
        scored.label,
        without={
            name: predictor.probabilities(scored.without(name), device="cpu") for name in data.names
        },
        data=data.name,
        technique=planned.technique,
        place=planned.place,
        group=None if scored.group is None else scored.group.tolist(),
        **about,
    )


@dataclass(frozen=True)
class Missing:
    """A line that is still to be made.

    Attributes:
        planned (Planned): the row.
        seed (int): of the training.
        settings (dict): of the training and its data, for the line.
    """

    planned: Planned
    seed: int
    settings: dict[str, Any]

    @property
    def training(self) -> tuple[int, str]:
        """What lines of the same training have in common."""
        return self.seed, shared_training(self.planned.settings)


def line_settings(planned: Planned, data: str) -> dict[str, Any]:
    """What a line says of its training and data; a line of anything else is of another table."""
    return {**planned.settings, "split_seed": SPLIT_SEED, "data": dict(DATA[data])}


def of_this_table(runs: Sequence[TechniqueRun], data: str) -> list[TechniqueRun]:
    """Those runs of a data set whose settings are the table's: others cannot be held against them.

    Args:
        runs (sequence of TechniqueRun): of any data sets and settings.
        data (str): a key of DATA.

    Returns:
        list of TechniqueRun: in their order.
    """
    wanted = {(each.place, each.technique): line_settings(each, data) for each in plan()}
    return [
        run
        for run in runs
        if run.data == data and run.settings == wanted.get((run.place, run.technique))
    ]


def still_to_run(
    runs: Sequence[TechniqueRun], data: str, seeds: Sequence[int], wanted: Sequence[str]
) -> Iterator[Missing]:
    """What has no line yet, or a line of other settings, seed by seed."""
    known = {run.key: run.settings for run in runs}
    for seed in seeds:
        for planned in plan():
            if planned.technique and planned.technique not in wanted:
                continue
            settings = line_settings(planned, data)
            if known.get((data, planned.place, planned.technique, seed)) != settings:
                yield Missing(planned, seed, settings)


def run_missing(
    name: str,
    results: Path,
    *,
    seeds: Sequence[int],
    techniques: Sequence[str],
    end: float,
    machine: str,
    told: Told,
) -> None:
    """Run all that is missing of one data set, and add a line for each training.

    Args:
        name (str): a key of DATA.
        results (Path): the folder of NAME.jsonl.
        seeds (sequence of int): of the trainings.
        techniques (sequence of str): which ones; of NAMES.
        end (float): on the clock of time.monotonic; no training begins after it.
        machine (str): what computes, for the lines.
        told (Callable): is given a line about each.
    """
    path = results / f"{name}.jsonl"
    missing = list(still_to_run(read_runs(path), name, seeds, techniques))
    data = find_data(name, seed=SPLIT_SEED, **DATA[name])
    done, count = 0, len(missing)
    while missing and time.monotonic() <= end:
        shared = [each for each in missing if each.training == missing[0].training]
        missing = [each for each in missing if each.training != shared[0].training]
        began = time.perf_counter()
        predictors = train([each.planned for each in shared], data, shared[0].seed)
        for each, predictor in zip(shared, predictors, strict=True):
            run = score(
                each.planned, predictor, data, seed=each.seed, settings=each.settings,
                machine=machine,
            )  # fmt: skip
            run = replace(run, seconds=time.perf_counter() - began)
            began = time.perf_counter()
            append_run(path, run)
            done += 1
            planned = each.planned
            what = f"{planned.technique}, {planned.place}" if planned.technique else "baseline"
            told(
                f"{name} {done}/{count}: {what}, seed {run.seed}: {100 * run.hit.mean():.2f} %, "
                f"NLL {np.mean(run.nats):.4f}, {run.seconds:.0f} s"
            )
