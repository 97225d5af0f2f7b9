"""The super-ensemble beside scikit-learn's classifiers: ``python -m benchmarks.fusion_peers``.

Nested cross-validation: the same outer folds for all; everything that is chosen or fitted, by
anyone, comes from an outer fold's training part. Each fold's predictions, of the objects as they
are, with noise, and with each view missing, are kept in benchmarks/results/fusion/, so that a run
that was stopped goes on at its next fold. Writes docs/fusion-peers.md, and a run's record and page
beside the predictions, which are not kept under version control: they can be made from these.

Expected: on digits not more than half a point below the best peer; above it with noise or a view
missing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks import machine
from benchmarks.fusion_table import RESULTS
from pyseq.analysis.fusion import (
    PEERS,
    FusionRecord,
    features,
    paired_gain,
    peers,
    scores,
    write_fusion_report,
    write_record,
)
from pyseq.analysis.fusion.peer_models import CLEAN
from pyseq.analysis.fusion.technique_table import markdown, percent
from pyseq.training.fusion.techniques import BASELINE, DATA, SPLIT_SEED, configured

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pyseq.data.modalities import ModalityData

PAGE = Path(__file__).parents[1] / "docs" / "fusion-peers.md"
OUTER_FOLDS = 5
NOISE = 0.5  # deviation of what is added to every feature, in its own deviations
OURS = "super-ensemble"
# The table's baseline with what `pyseq fusion train` adds by default, and more modality dropout:
# 12 epochs, 2 of them the rise and then two cycles; no mixup, snapshots or test-time views.
SETTINGS: Mapping[str, Any] = {
    **BASELINE,
    "strategy": "super_ensemble",
    "label_smoothing": 0.2,
    "schedule": "cyclic",
    "calibrate": True,
    "model.fusion": "attention",
    "model.modality_dropout": 0.2,
    "model.classifier_layers": 5,
}
MARGIN = 0.005  # of accuracy, that the best peer may be ahead by


def versions(data: ModalityData) -> dict[str, ModalityData]:
    """The objects as they are, and as they may turn up at test time."""
    from pyseq.data.modalities import Standardiser, corrupted

    # Of the whole data, as the unit of the noise only, so that all folds meet the same noise.
    unit = Standardiser.fit(data)
    noisy = corrupted(data, noise=NOISE, seed=SPLIT_SEED, standardiser=unit)
    found = {CLEAN: data, "noise": noisy}
    found |= {f"{name} missing": data.without(name) for name in data.names}
    return found


def ours(
    data: ModalityData,
    outer: Sequence[tuple[NDArray, NDArray]],
    settings: Mapping[str, Any],
    folder: Path,
) -> tuple[dict[str, NDArray], float]:
    """Out-of-fold predictions of each version (N, C), and the seconds that they took."""
    from pyseq.training.fusion.ensembles import super_ensemble

    views = versions(data)
    out = {name: np.full((len(data), data.classes), np.nan) for name in views}
    seconds = 0.0
    for number, (train, test) in enumerate(outer, 1):
        path = folder / f"fold-{number}.npz"
        if not path.exists():
            began = time.perf_counter()
            config = configured(settings, data.name)
            trained = super_ensemble(config, data.subset(train), number).ensemble
            found = {
                name: trained.probabilities(view.subset(test), device="cpu")
                for name, view in views.items()
            }
            spent = time.perf_counter() - began
            _save(path, {"settings": _as_text(settings, data.name), "seconds": spent, **found})
            print(f"{data.name}, fold {number} of {len(outer)}: {spent:.0f} s", flush=True)
        with np.load(path) as kept:
            if str(kept["settings"]) != _as_text(settings, data.name):
                raise SystemExit(f"{path} is of other settings; remove it to run it anew")
            seconds += float(kept["seconds"])
            for name in out:
                out[name][test] = kept[name]
    return out, seconds


def _as_text(settings: Mapping[str, Any], data: str) -> str:
    """Everything that a fold's predictions depend on."""
    of_data = {"objects": dict(DATA[data]), "noise": NOISE, "outer folds": OUTER_FOLDS,
               "split_seed": SPLIT_SEED}  # fmt: skip
    return repr(sorted({**settings, **of_data}.items()))


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    from pyseq.data.durable_file import replace_file

    replace_file(path, lambda temporary: np.savez_compressed(temporary, **arrays))


def compare(name: str, folder: Path, settings: Mapping[str, Any]) -> FusionRecord:
    """The whole comparison on one data set, as a run's record."""
    from pyseq.data.modalities import find_data, folds

    data = find_data(name, seed=SPLIT_SEED, **DATA[name])
    outer = folds(data, OUTER_FOLDS, SPLIT_SEED)
    folder.mkdir(parents=True, exist_ok=True)
    found, seconds = ours(data, outer, settings, folder)
    views = {view: each for view, each in versions(data).items() if view != CLEAN}
    beside = peers(data, outer, SPLIT_SEED, versions=views)
    fold = np.zeros(len(data), dtype=np.int64)
    for number, (_, test) in enumerate(outer):
        fold[test] = number
    others = {
        peer.name if view == CLEAN else f"{peer.name}, {view}": given
        for peer in beside
        for view, given in peer.probabilities.items()
    }
    return FusionRecord(
        data=name,
        protocol="nested cross-validation",
        class_names=data.class_names,
        label=data.label,
        predictions={OURS: found[CLEAN]},
        strategy="super_ensemble",
        selection="parts of each outer fold's training objects",
        group=data.group,
        fold=fold,
        without={view: found[f"{view} missing"] for view in data.names},
        corrupted={view: given for view, given in found.items() if view != CLEAN},
        peers=others,
        config=dict(settings),
        seed=SPLIT_SEED,
        bayes_accuracy=data.bayes_accuracy,
        seconds=seconds,
        device="cpu",
        facts={
            "machine": machine.device_name("cpu"),
            "columns that peers read": features(data).shape[1],
            **{f"{peer.name}, settings chosen": _chosen(peer.chosen) for peer in beside},
        },
    )


def _chosen(settings: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(", ".join(f"{k} {v}" for k, v in each.items()) for each in settings)


def section(record: FusionRecord) -> list[str]:
    """A table: each version of the objects, ours and the peers, and the gain over the best."""
    lines = []
    for view, given in {CLEAN: record.predictions[OURS], **record.corrupted}.items():
        rivals = {
            name: record.peers[name if view == CLEAN else f"{name}, {view}"] for name in PEERS
        }
        values = {name: _accuracy(record, each) for name, each in rivals.items()}
        best = max(values, key=lambda name: values[name])
        gain = paired_gain(given, rivals[best], record.label, group=record.group, fold=record.fold)
        lines.append(
            (
                view,
                percent(scores(given, record.label, group=record.group).accuracy),
                *(f"{100 * values[name]:.2f}" for name in PEERS),
                f"{best}: {percent(gain.interval, signed=True)}",
                gain.verdict,
                _within(gain.interval),
            )
        )
    head = ("objects", f"{OURS}, %", *(f"{name}, %" for name in PEERS),
            "gain over the best, points", "verdict", "within half a point")  # fmt: skip
    text = [f"## {record.data}", markdown(head, lines)]
    if record.bayes_accuracy is not None:
        text.append(
            f"The best that any classifier can expect: {100 * record.bayes_accuracy:.2f} %."
        )
    minutes = record.seconds / 60
    text.append(
        f"{len(record.label)} objects, {OUTER_FOLDS} outer folds; {minutes:.0f} minutes "
        f"for the {OURS} on {record.facts['machine']}. "
        + " ".join(f"{name}: {value}." for name, value in record.facts.items() if "chosen" in name)
    )
    return text


def _accuracy(record: FusionRecord, given: NDArray) -> float:
    return float((given.argmax(1) == record.label).mean())


def _within(interval: Any) -> str:
    if interval.low > -MARGIN:
        return "yes"
    return "no" if interval.high < -MARGIN else "cannot be told"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", choices=tuple(DATA), default=list(DATA))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    parts = [
        f"# The {OURS} beside scikit-learn's classifiers",
        "Written by `python -m benchmarks.fusion_peers`. Nested cross-validation with the same "
        "outer folds for all; whatever is tuned is tuned on parts of an outer fold's training "
        "objects. The best peer is the best on these very objects, which favours the peers. "
        "Intervals are of 95 %, over folds and objects. Noise: normal, of half of each feature's "
        "deviation; models were trained without it. HistGradientBoosting has 100 rounds of 8 "
        f"leaves, and its rate is tuned. The {OURS}'s settings: "
        + ", ".join(f"{k.removeprefix('model.')} {v}" for k, v in SETTINGS.items())
        + ".",
    ]
    for name in chosen.data:
        folder = chosen.results / f"{name}-nested"
        record = compare(name, folder, SETTINGS)
        write_record(folder / "record.json", record)
        write_fusion_report(folder / "report.html", record)
        parts += section(record)
        chosen.page.write_text("\n\n".join(parts) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
