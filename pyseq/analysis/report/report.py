"""What the page shows, and in which order."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyseq.analysis.ablation import Component, ablation_row, components
from pyseq.analysis.evaluation import Evaluation
from pyseq.analysis.prediction_analysis import PredictionAnalysis
from pyseq.analysis.report import page, predictions, scores, training
from pyseq.data.durable_file import replace_file
from pyseq.models.checkpoint import ModelCard
from pyseq.models.predictor import Predictor


@dataclass(frozen=True)
class Report:
    """What the page shows; a part without data is left out.

    Attributes:
        title (str): heading of the page.
        evaluation (Evaluation): the model beside the baselines, and the sentence on top.
        facts (sequence of (name, value)): stream, model, device and the like.
        analysis (PredictionAnalysis or None): the predictions taken apart.
        class_names (sequence of str): names of the model's classes, by class.
        curve (sequence of mappings): rows of metrics.jsonl: step, train_bits, val_bits, lr,
            symbols_per_second, data_wait_share, memory_mib; any key but step may be missing.
        flops_per_symbol (int or None): floating-point operations of training on one symbol.
        components (sequence of Component): what the model is made of.
        row (mapping column -> value): the run beside others, of `ablation.ablation_row`.
        config (str or None): the run's resolved configuration, as YAML text.
    """

    title: str
    evaluation: Evaluation
    facts: Sequence[tuple[str, object]] = ()
    analysis: PredictionAnalysis | None = None
    class_names: Sequence[str] = ()
    curve: Sequence[Mapping[str, Any]] = ()
    flops_per_symbol: int | None = None
    components: Sequence[Component] = ()
    row: Mapping[str, Any] = field(default_factory=dict)
    config: str | None = None


def model_report(
    predictor: Predictor,
    evaluation: Evaluation,
    analysis: PredictionAnalysis | None,
    *,
    stream: str,
    facts: Sequence[tuple[str, object]] = (),
    budget: Mapping[str, float | None] | None = None,
) -> Report:
    """The report of a model, with what can be read off the model itself.

    Args:
        predictor (Predictor): the model.
        evaluation (Evaluation): its scores.
        analysis (PredictionAnalysis or None): its predictions taken apart.
        stream (str): the path of what was scored.
        facts (sequence of (name, value)): where the numbers come from.
        budget (mapping name -> number or None): what the training took, of `training_budget`; None
            where that is not known.

    Returns:
        Report: without the curves of a training.
    """
    card = predictor.card
    parts = components(predictor.model, card)
    return Report(
        title=f"{card.model} on {Path(stream).name}",
        evaluation=evaluation,
        facts=facts,
        analysis=analysis,
        class_names=class_names(card),
        flops_per_symbol=predictor.model.flops_per_symbol(card.seq_len),
        components=parts,
        row=ablation_row(card, parts, evaluation, stream=stream, budget=budget or {}),
    )


def class_names(card: ModelCard) -> list[str]:
    """What people call the model's classes: text as Python writes its bytes, bins by their ends."""
    binning = card.binning
    if binning.edges is not None:
        ends = [*binning.edges[1:], binning.alphabet]
        return [f"{a}..{b - 1}" for a, b in zip(binning.edges, ends, strict=True)]
    if card.codec is not None:
        return [repr(card.codec.decode([symbol]))[1:] for symbol in range(binning.alphabet)]
    return [str(symbol) for symbol in range(binning.alphabet)]


def write_report(path: str | os.PathLike[str], report: Report) -> None:
    """Write the page, which replaces what was there when it is complete.

    Args:
        path (path): of the HTML file; its folder must exist.
        report (Report): what the page shows.

    Raises:
        UserError: the page cannot be written; what was there before is left as it was.
    """
    text = _page(report)
    replace_file(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _page(report: Report) -> str:
    evaluation, analysis = report.evaluation, report.analysis
    sections = [scores.bits_section(evaluation), scores.metrics_section(evaluation)]
    if analysis is not None:
        sections += [
            predictions.heads_section(analysis, evaluation),
            predictions.scales_section(analysis, evaluation),
            predictions.confusions_section(analysis, evaluation, report.class_names),
        ]
    sections += [scores.calibration_section(evaluation), scores.entropy_section(evaluation)]
    if analysis is not None:
        sections.append(predictions.attention_section(analysis))
    sections += [
        training.curve_section(report.curve, evaluation),
        training.speed_section(report.curve, report.flops_per_symbol),
        training.components_section(report.components, report.row),
        training.facts_section(report.facts, report.config),
    ]
    return page.page(report.title, page.verdict_box(evaluation.statement), sections)
