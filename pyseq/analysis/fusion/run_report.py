"""One run of fusion as a page: scores, calibration, confusions, what each modality is worth."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from pyseq.analysis import plots
from pyseq.analysis.fusion.fusion_scores import FusionScores, scores
from pyseq.analysis.fusion.gains import Gain, paired_gain
from pyseq.analysis.fusion.record import FusionRecord
from pyseq.analysis.fusion.technique_table import percent, points
from pyseq.analysis.report import page
from pyseq.data.durable_file import replace_file

_PROTOCOLS = {
    "locked split": "a test part that was locked away by one split and scored once, at the end",
    "nested cross-validation": "nested cross-validation, in which the models that predict an "
    "object had no part in any choice that involved it",
}
_CURVES = {
    "train_loss": "training loss, nats",
    "validation_loss": "validation loss, nats",
    "validation_accuracy": "validation accuracy",
    "lr": "learning rate",
}
_MOST_CLASSES = 40  # in the picture of confusions


def fusion_report(record: FusionRecord) -> str:
    """The page of a run.

    Args:
        record (FusionRecord): the run.

    Returns:
        str: HTML that refers to nothing outside itself.
    """
    found = {
        name: scores(given, record.label, group=record.group)
        for name, given in record.predictions.items()
    }
    served = found[record.served]
    sections = [
        _scores(record, found),
        _peers(record),
        _calibration(found, record),
        _confusions(record, served),
        _modalities(record),
        _corrupted(record),
        _curves(record),
        _facts(record),
    ]
    title = f"{record.served} on {record.data}"
    return page.page(title, page.verdict_box(_statement(record, served)), sections)


def write_fusion_report(path: str | os.PathLike[str], record: FusionRecord) -> None:
    """Write the page of a run, which replaces what was there when it is complete.

    Args:
        path (path): of the HTML file; its folder must exist.
        record (FusionRecord): the run.

    Raises:
        UserError: the file cannot be written.
    """
    text = fusion_report(record)
    replace_file(Path(path), lambda temporary: temporary.write_text(text, "utf-8"))


def _statement(record: FusionRecord, served: FusionScores) -> str:
    """Accuracy in a sentence, with everything that it must be read with."""
    groups = f" in {served.groups:,} groups" if served.groups else ""
    said = (
        f"Accuracy {percent(served.accuracy)} % of {served.objects:,} objects{groups}, by "
        f"{record.served}, scored by {record.protocol}."
    )
    if record.bayes_accuracy is not None:
        said += (
            " The best that any classifier can expect on them is"
            f" {100 * record.bayes_accuracy:.2f} %."
        )
    # Chance is that of independent objects; copies of one scatter more.
    if served.groups is None and served.ece > served.ece_by_chance:
        said += " Its confidences are not those of a calibrated model."
    return said


def _scores(record: FusionRecord, found: Mapping[str, FusionScores]) -> str:
    head = (
        "predicted by", "accuracy, %", "macro F1, %", "NLL, nats", "Brier", "ECE, %",
        "by chance, %",
    )  # fmt: skip
    lines = [
        (
            name,
            percent(each.accuracy),
            percent(each.macro_f1),
            str(each.nll),
            str(each.brier),
            f"{100 * each.ece:.2f}",
            f"{100 * each.ece_by_chance:.2f}",
        )
        for name, each in found.items()
    ]
    others = [
        (name, _gain(record, given, record.predictions[record.served]))
        for name, given in record.predictions.items()
        if name != record.served
    ]
    compared = [(f"{name} over {record.served}", gain) for name, gain in others]
    notes = [
        f"Scored by {_PROTOCOLS[record.protocol]}. {record.served[:1].upper()}{record.served[1:]} "
        "is what the run serves, named before anything was scored; the other rows are for "
        "comparison, and none was chosen by its row."
        + (f" Choices were made on {record.selection}." if record.selection else ""),
        "Intervals are of 95 %, over objects or their groups, for these models. A calibrated "
        "model's ECE stays below what chance allows 95 times in 100.",
    ]
    return page.section(
        "Scores",
        page.table(head, lines),
        *map(page.note, notes),
        _gains_table(compared),
    )


def _gain(record: FusionRecord, with_: np.ndarray, without: np.ndarray) -> Gain:
    return paired_gain(with_, without, record.label, group=record.group, fold=record.fold)


def _gains_table(compared: Sequence[tuple[str, Gain]]) -> str:
    lines = [(name, percent(gain.interval, signed=True), gain.verdict) for name, gain in compared]
    over = f"accuracy over {compared[0][1].over}, points" if compared else ""
    return page.wrapped(page.table(("", over, "verdict"), lines, text=(2,)))


def _peers(record: FusionRecord) -> str:
    """Each peer, on the objects as they are or as one of their versions."""
    compared, lines = [], []
    versions: dict[str, np.ndarray] = {"": record.predictions[record.served]}
    versions |= dict(record.corrupted)
    for name, given in record.peers.items():
        version = next((v for v in record.corrupted if name.endswith(f", {v}")), "")
        peer = scores(given, record.label, group=record.group)
        lines.append((name, percent(peer.accuracy), str(peer.nll)))
        ours = f"{record.served}, {version}" if version else record.served
        gain = _gain(record, versions[version], given)
        compared.append((f"{ours} over {name}", gain))
    kind = "folds" if record.fold is not None else "training objects"
    return page.section(
        "Other classifiers",
        page.table(("classifier", "accuracy, %", "NLL, nats"), lines),
        _gains_table(compared),
        page.note(f"Trained and tuned on the same {kind}, scored on the same objects.")
        if lines
        else "",
    )


def _calibration(found: Mapping[str, FusionScores], record: FusionRecord) -> str:
    served = found[record.served]
    groups = served.reliability
    table = page.table(
        ("mean confidence", "accuracy", "objects"),
        zip(
            groups.confidence.tolist(), groups.accuracy.tolist(), groups.count.tolist(), strict=True
        ),
    )
    text = (
        f"Objects in {len(groups.count)} bins by confidence, the intervals exact for independent "
        f"objects. On the dotted line confidence is accuracy. ECE {100 * served.ece:.2f} %; of a "
        f"calibrated model below {100 * served.ece_by_chance:.2f} %, 95 times in 100"
        + (", were no two objects of one group." if served.groups else ".")
    )
    return page.section(
        "Calibration",
        page.figure(plots.reliability_chart(groups)),
        page.note(text),
        page.folded("In figures", table),
    )


def _confusions(record: FusionRecord, served: FusionScores) -> str:
    counts = served.confusion
    names = list(record.class_names)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    picture = ""
    if len(names) <= _MOST_CLASSES:
        picture = plots.confusion_chart(shares, names, "confusion")
    wrong = [(counts[i, j], i, j) for i, j in zip(*np.nonzero(counts), strict=True) if i != j]
    wrong.sort(key=lambda each: (-each[0], each[1], each[2]))
    pairs = [(f"{names[i]} taken for {names[j]}", int(n)) for n, i, j in wrong[:20]]
    right = np.diagonal(counts)
    classes = [
        (
            name,
            int(counts[k].sum()),
            f"{100 * right[k] / counts[k].sum():.1f}" if counts[k].sum() else "",
            f"{100 * right[k] / counts[:, k].sum():.1f}" if counts[:, k].sum() else "",
        )
        for k, name in enumerate(names)
    ]
    return page.section(
        "Confusions",
        page.figure(picture),
        page.folded("Most frequent mistakes", page.table(("mistake", "objects"), pairs)),
        page.folded(
            "Class by class",
            page.table(("class", "objects", "recall, %", "precision, %"), classes),
        ),
    )


def _modalities(record: FusionRecord) -> str:
    """What hiding each modality from the trained models costs."""
    served = record.predictions[record.served]
    worth = [(name, _gain(record, served, given)) for name, given in record.without.items()]
    rows = [(name, points(gain.interval)) for name, gain in worth]
    lines = [
        (
            name,
            percent(scores(record.without[name], record.label, group=record.group).accuracy),
            percent(gain.interval, signed=True),
            {"helps": "needed", "hurts": "better hidden"}.get(gain.verdict, gain.verdict),
        )
        for name, gain in worth
    ]
    text = (
        "Each modality was hidden from the trained models, which may have leaned on it although "
        "another one would have told them the same: training without it could cost less."
    )
    return page.section(
        "What each modality is worth",
        page.figure(plots.gain_chart(rows, "accuracy lost without it, points", "worth")),
        page.table(("without", "accuracy, %", "lost, points", "verdict"), lines, text=(3,)),
        page.note(text) if lines else "",
    )


def _corrupted(record: FusionRecord) -> str:
    served = record.predictions[record.served]
    lines = []
    for name, given in record.corrupted.items():
        found = scores(given, record.label, group=record.group)
        lost = _gain(record, served, given).interval
        lines.append((name, percent(found.accuracy), str(found.nll), percent(lost, signed=True)))
    return page.section(
        "Worse data at test time",
        page.table(("version", "accuracy, %", "NLL, nats", "lost, points"), lines),
    )


def _curves(record: FusionRecord) -> str:
    histories = [
        [{**row, "step": row.get("step", row.get("epoch"))} for row in rows]
        for rows in record.histories.values()
    ]
    pictures = [
        plots.seed_chart(
            histories, key, title, logarithmic="loss" in key, width=4.5, height=2.1,
            along="epoch", each="model",
        )
        for key, title in _CURVES.items()
    ]  # fmt: skip
    kept = ", ".join(map(str, record.snapshots))
    return page.section(
        "Training",
        page.side_by_side(*map(page.figure, pictures)),
        page.note(
            "Training loss is that of the targets as they were smoothed, mixed and weighed, with"
            " dropout; it is not on the scale of the validation loss."
        )
        if any(pictures)
        else "",
        page.note(f"Weights were kept for the snapshots after epochs {kept}.") if kept else "",
    )


def _facts(record: FusionRecord) -> str:
    rows: list[tuple[str, object]] = [
        ("scored by", record.protocol),
        ("choices made on", record.selection),
        ("strategy", record.strategy.replace("_", " ")),
        ("techniques", ", ".join(record.techniques)),
        ("models", len(record.histories) or ""),
        ("classes", len(record.class_names)),
        ("seed", record.seed),
        ("parameters of all models", record.parameters or ""),
        ("minutes", f"{record.seconds / 60:.1f}" if record.seconds else ""),
        ("device", record.device),
        *record.facts.items(),
    ]
    config = yaml.safe_dump(dict(record.config), sort_keys=False) if record.config else ""
    settings = page.folded("Configuration", f"<pre>{page.escaped(config)}</pre>" if config else "")
    return page.section("This run", page.facts([row for row in rows if row[1] != ""]), settings)
