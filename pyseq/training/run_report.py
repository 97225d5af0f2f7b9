"""The report of a training run."""

from pathlib import Path
from typing import Any

from pyseq.analysis.ceilings import format_percent
from pyseq.analysis.evaluation import Evaluation
from pyseq.analysis.report import Report, write_report
from pyseq.data.described_stream import DescribedStream
from pyseq.training.config import TrainConfig


def write_run_report(
    path: Path,
    config: TrainConfig,
    described: DescribedStream,
    evaluation: Evaluation,
    rows: list[dict[str, Any]],
    summary: dict[str, Any],
) -> None:
    """Write report.html from what the run folder's other files hold."""
    ceiling = evaluation.ceiling
    facts: list[tuple[str, object]] = [
        ("stream", config.u16_path),
        ("symbols", f"{len(described.stream):,}"),
        ("alphabet and kind", f"{described.alphabet}, {described.kind}"),
        ("classes", evaluation.scores.number_of_classes),
        ("model", f"{config.model}, {summary['parameters']:,} parameters"),
        ("optimiser steps", f"{summary['steps']:,}"),
        ("training time", f"{summary['seconds']:.0f} s"),
        ("scored symbols", f"{len(evaluation.scores.bits):,} of the test range"),
    ]
    if described.entropy_rate is not None:
        facts.append(("entropy rate of the source", f"{described.entropy_rate:.4f} bits/symbol"))
    write_report(
        path,
        Report(
            title=f"{config.model} on {Path(config.u16_path).name}",
            verdict=evaluation.verdict.sentence,
            ceiling=ceiling,
            facts=facts,
            baselines=list(evaluation.bits.items()),
            curve=rows,
            confidence=evaluation.scores.confidence,
            correct=evaluation.scores.hits[:, 0],
            metrics=evaluation_metrics(evaluation),
            config=config.to_yaml(),
        ),
    )


def evaluation_metrics(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Names and values of everything but the bits, as shown to people."""
    ceiling = evaluation.ceiling
    most = {1: ceiling.top1, 3: ceiling.top3, 5: ceiling.top5}
    rows = [
        (
            f"top-{k} accuracy",
            f"{format_percent(share)}; at most {format_percent(most[k])} on average on independent"
            " symbols",
        )
        for k, share in evaluation.accuracy.items()
    ]
    rows.append(("perplexity", str(evaluation.perplexity)))
    rows.append(("mean confidence", format_percent(evaluation.confidence)))
    rows.append(("mean entropy of the predictions", f"{evaluation.entropy} bits"))
    rows.append(("expected calibration error", format_percent(evaluation.ece)))
    return rows
