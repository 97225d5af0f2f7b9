"""What each technique of fusion training adds: ``python -m benchmarks.fusion_table``.

One model that concatenates its modalities, trained plainly, is the baseline; each technique is
added to it alone, and to all techniques above it in the list. Every training predicts the same
locked test part once; the split stays, the seed of weights, batches and draws varies. What was run
is a line in benchmarks/results/fusion/DATA.jsonl and is not run again; docs/fusion-table.md is
written anew from all lines. Stop it whenever you like.

Expected: cross-modal attention with modality dropout loses less than half of what concatenation
loses when a modality is missing at test time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks import machine
from pyseq.analysis.fusion import (
    TechniqueRun,
    append_run,
    missing_rows,
    missing_texts,
    read_runs,
    technique_rows,
    technique_texts,
)
from pyseq.analysis.fusion.technique_table import NOTES, markdown

if TYPE_CHECKING:
    from pyseq.data.modalities import ModalityData
    from pyseq.training.fusion.config import TrainFusionConfig

RESULTS = Path(__file__).parent / "results" / "fusion"
PAGE = Path(__file__).parents[1] / "docs" / "fusion-table.md"
SPLIT_SEED = 0
# Objects that are generated for the table, which the split makes 1200, 400 and 400 of.
DATA: Mapping[str, Mapping[str, Any]] = {"digits": {}, "synthetic": {"count": 2000}}

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
    """

    name: str
    change: Mapping[str, Any]
    upon: str = ""
    alone_only: bool = False


TECHNIQUES = (
    Technique("cross-modal attention", {"model.fusion": "attention"}),
    Technique("modality dropout .2", {"model.modality_dropout": 0.2}),
    Technique("5 classifier layers for 3", {"model.classifier_layers": 5}),
    Technique("width 512 for 256", {"model.width": 512}),
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
        if not technique.alone_only:
            so_far |= technique.change
            yield Planned(technique.name, "so far", dict(so_far))


def configured(settings: Mapping[str, Any], data: str) -> TrainFusionConfig:
    """The training's config."""
    from pyseq.training.fusion.config import TrainFusionConfig

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


def train(
    planned: Planned, data: ModalityData, seed: int, settings: Mapping[str, Any]
) -> TechniqueRun:
    """One line of the table: train, and predict the test part."""
    from pyseq.data.modalities import locked_split
    from pyseq.training.fusion.ensembles import ensemble, k_fold, super_ensemble
    from pyseq.training.fusion.fit import train_fusion

    config = configured(planned.settings, data.name)
    learn, validation, test = locked_split(data, SPLIT_SEED)
    rest = data.subset(
        np.concatenate([learn, validation])
    )  # of which the many make their own parts
    began = time.perf_counter()
    predictor: Any
    if config.strategy == "single":
        predictor = train_fusion(config, data, learn, validation, seed)
    elif config.strategy == "k_fold":
        predictor = k_fold(config, rest, config.folds, seed).ensemble
    elif config.strategy == "ensemble":
        predictor = ensemble(config, rest, config.widths, seed).ensemble
    else:
        predictor = super_ensemble(config, rest, seed).ensemble
    scored = data.subset(test)
    return TechniqueRun.of(
        predictor.probabilities(scored, device="cpu"),
        scored.label,
        without={
            name: predictor.probabilities(scored.without(name), device="cpu") for name in data.names
        },
        data=data.name,
        technique=planned.technique,
        place=planned.place,
        seed=seed,
        settings=settings,
        group=None if scored.group is None else scored.group.tolist(),
        seconds=time.perf_counter() - began,
        machine=machine.device_name("cpu"),
    )


def still_to_run(
    runs: Sequence[TechniqueRun], data: str, seeds: Sequence[int], wanted: Sequence[str]
) -> Iterator[tuple[Planned, int, dict[str, Any]]]:
    """What has no line yet, or a line of other settings, seed by seed."""
    known = {run.key: run.settings for run in runs}
    for seed in seeds:
        for planned in plan():
            if planned.technique and planned.technique not in wanted:
                continue
            settings = {**planned.settings, "split_seed": SPLIT_SEED, "data": dict(DATA[data])}
            if known.get((data, planned.place, planned.technique, seed)) != settings:
                yield planned, seed, settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", choices=tuple(DATA), default=list(DATA))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--techniques", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing after")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    end = time.monotonic() + 60 * chosen.minutes
    chosen.results.mkdir(parents=True, exist_ok=True)
    for name in chosen.data:
        run_all(name, chosen, end)
    chosen.page.write_text(page(chosen.results), "utf-8")
    return 0


def run_all(name: str, chosen: argparse.Namespace, end: float) -> None:
    """All that is missing of one data set, until the end of the time."""
    from pyseq.data.modalities import find_data

    path = chosen.results / f"{name}.jsonl"
    seeds = range(1, chosen.seeds + 1)
    missing = list(still_to_run(read_runs(path), name, seeds, chosen.techniques))
    data = find_data(name, seed=SPLIT_SEED, **DATA[name])
    for number, (planned, seed, settings) in enumerate(missing, 1):
        if time.monotonic() > end:
            return
        run = train(planned, data, seed, settings)
        append_run(path, run)
        what = f"{planned.technique}, {planned.place}" if planned.technique else "baseline"
        print(
            f"{name} {number}/{len(missing)}: {what}, seed {seed}: {100 * run.hit.mean():.2f} %, "
            f"NLL {np.mean(run.nats):.4f}, {run.seconds:.0f} s",
            flush=True,
        )


def page(results: Path) -> str:
    """The page, from all lines that there are."""
    parts = [
        "# What each technique of fusion training adds",
        "Written by `python -m benchmarks.fusion_table`. The baseline is one model that "
        "concatenates its modalities: "
        + ", ".join(f"{name.removeprefix('model.')} {value}" for name, value in BASELINE.items())
        + ".",
        *NOTES,
        "Snapshots need cycles: alone they are added to the cyclic schedule, and held against "
        "it. An "
        "ensemble has a model of the baseline's width, one of three quarters and one of half; a "
        "super-ensemble has five fold models, these three, and one of all training objects.",
    ]
    for name in DATA:
        runs = read_runs(results / f"{name}.jsonl")
        rows = technique_rows(runs, name, NAMES, alone_only=ALONE_ONLY, upon=UPON)
        if not rows:
            parts.append(f"## {name}\n\nNot run yet.")
            continue
        machines = ", ".join(sorted({run.machine for run in runs}))
        minutes = sum(run.seconds for run in runs) / 60
        parts += [
            f"## {name}",
            f"{len(runs)} trainings, {minutes:.0f} minutes on {machines}; "
            f"{len(runs[0].hits)} test objects.",
            f"### {name}: alone",
            markdown(*technique_texts(rows, "alone")),
            f"### {name}: so far",
            markdown(*technique_texts(rows, "so far")),
            *_missing(runs, name),
        ]
    return "\n\n".join(parts) + "\n"


def _missing(runs: Sequence[TechniqueRun], data: str) -> list[str]:
    """What a missing modality costs models that meet it otherwise than the baseline."""
    by_place: dict[tuple[str, str], list[TechniqueRun]] = {}
    for run in runs:
        by_place.setdefault((run.place, run.technique), []).append(run)
    attention, dropout = NAMES[:2]
    parts = []
    for title, key in (
        ("cross-modal attention", ("alone", attention)),
        ("concatenation with modality dropout", ("alone", dropout)),
        ("cross-modal attention with modality dropout", ("so far", dropout)),
    ):
        rows = missing_rows(by_place.get(key, []), by_place.get(("baseline", ""), []))
        if rows:
            parts += [
                f"### {data}, a modality missing: {title}, against plain concatenation",
                markdown(*missing_texts(rows)),
            ]
    return parts


if __name__ == "__main__":
    raise SystemExit(main())
