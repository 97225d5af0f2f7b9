"""Sections on the scores of the next symbol: bits, metrics, calibration."""

from __future__ import annotations

import numpy as np

from pyseq.analysis import plots
from pyseq.analysis.calibration import prediction_groups, reliability_table
from pyseq.analysis.ceilings import format_percent
from pyseq.analysis.evaluation import Evaluation
from pyseq.analysis.report.page import (
    facts,
    figure,
    note,
    number,
    section,
    side_by_side,
    table,
)


def bits_section(evaluation: Evaluation) -> str:
    """Bits per symbol beside the baselines, and what independent symbols allow."""
    ceiling = evaluation.ceiling
    rows = list(evaluation.bits.items())
    shown = [*rows, (ceiling.allowance, ceiling.bits), ("guessing evenly", ceiling.uniform_bits)]
    notes = (
        f"On independent symbols of this law no predictor can on average need fewer than "
        f"{number(ceiling.bits)} bits/symbol ({number(ceiling.nats)} nats) or exceed top-1 "
        f"{format_percent(ceiling.top1)}, top-3 {format_percent(ceiling.top3)}, top-5 "
        f"{format_percent(ceiling.top5)}: {ceiling.reason}."
    )
    notes += " A finite sample can come out on either side of these averages"
    if ceiling.law == "marginal":
        notes += ", and symbols with other frequencies further off"
    if evaluation.held_out:
        notes += "; whether the model found something is for the verdict to say."
    else:
        notes += "; symbols that were trained on show nothing of what the model found."
    chart = figure(plots.bits_chart(rows, ceiling, highlight="model"))
    return section("Bits per symbol", chart, table(("", "bits/symbol"), shown), note(notes))


def metrics_section(evaluation: Evaluation) -> str:
    """The other metrics, as they are told in the terminal."""
    heading = "Held-out metrics" if evaluation.held_out else "Metrics of symbols trained on"
    return section(heading, facts(evaluation.metrics()))


def calibration_section(evaluation: Evaluation) -> str:
    """Whether the most likely class comes as often as its probability says."""
    scores = evaluation.scores
    # Groups with too few hits show only noise: some 20 in each, on average.
    bins = int(np.clip(np.sum(scores.hits[:, 0]) // 20, 1, 12))
    found = reliability_table(scores.confidence, scores.hits[:, 0], bins=bins)
    rows = (
        (format_percent(float(sure)), format_percent(float(hit)), int(count))
        for sure, hit, count in zip(found.confidence, found.accuracy, found.count, strict=True)
    )
    head = ("mean confidence", "accuracy", "predictions")
    text = (
        f"Expected calibration error {format_percent(evaluation.ece)} over "
        f"{int(found.count.sum()):,} predictions; of a perfectly calibrated model below "
        f"{format_percent(evaluation.chance_ece)} in 95 of 100 such samples. On the diagonal, a "
        "confidence of 30 % comes true 30 times in 100. It needs no knowledge of the future: "
        "the frequencies alone are calibrated too."
    )
    chart = figure(plots.reliability_chart(found))
    return section(
        "Calibration of the top prediction",
        side_by_side(chart, table(head, rows)),
        note(text),
        note(about_chance(evaluation)),
    )


def entropy_section(evaluation: Evaluation) -> str:
    """Whether the predictions cost as many bits as they expect to."""
    groups = prediction_groups(evaluation.scores, "entropy")
    head = ("mean entropy", "bits/symbol", "accuracy", "predictions")
    rows = (
        (f"{g.entropy:.4f}", f"{g.bits.value:.4f}", format_percent(g.accuracy.value), g.count)
        for g in groups
    )
    text = (
        "The entropy of a prediction is the bits that it expects to cost. Groups of equal size, "
        "from the surest predictions to the least sure; above the diagonal the model is surer than "
        "it should be. The bars are 95 % intervals for independent symbols."
    )
    chart = figure(plots.entropy_chart(groups))
    return section(
        "Entropy of the predictions",
        side_by_side(chart, table(head, rows)),
        note(text),
        note(about_chance(evaluation)),
    )


def about_chance(evaluation: Evaluation) -> str:
    """What keeps groups and bins from being read as findings; empty where there is a finding."""
    if not evaluation.held_out or evaluation.verdict.kind == "structure":
        return ""
    return (
        "The model is at chance: among several groups or bins some come out ahead by accident, and "
        "a pattern shows which classes the model favours, not that it knows what comes."
    )
