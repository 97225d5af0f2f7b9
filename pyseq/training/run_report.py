"""What a training run leaves behind for people and programs: report.html and summary.json."""

import dataclasses
from typing import Any

from pyseq.analysis.ablation import BUDGET, to_json, training_budget
from pyseq.analysis.evaluation import Evaluation, as_json
from pyseq.analysis.prediction_analysis import PredictionAnalysis
from pyseq.analysis.report import Report, model_report
from pyseq.models.predictor import Predictor
from pyseq.training.run import Run


def run_report(
    run: Run,
    predictor: Predictor,
    evaluation: Evaluation,
    analysis: PredictionAnalysis,
    rows: list[dict[str, Any]],
    steps: int,
) -> Report:
    """The page of a finished training.

    Args:
        run (Run): what was trained.
        predictor (Predictor): the best model.
        evaluation (Evaluation): of it on the test range.
        analysis (PredictionAnalysis): of it on the same range.
        rows (list of dict): of metrics.jsonl.
        steps (int): optimiser steps that were made.

    Returns:
        Report: for `write_report`.
    """
    config, described = run.config, run.described
    budget = training_budget(rows, steps, predictor.model.flops_per_symbol(config.seq_len))
    facts: list[tuple[str, object]] = [
        ("stream", config.u16_path),
        ("symbols", f"{len(described.stream):,}"),
        ("alphabet and kind", f"{described.alphabet}, {described.kind}"),
        ("classes", evaluation.scores.number_of_classes),
        ("optimiser steps", f"{steps:,}"),
        ("training time", f"{budget['seconds'] or 0:.0f} s"),
        ("device", config.device),
        ("seed", config.seed),
        ("scored symbols", f"{len(evaluation.scores.bits):,} of the test range"),
    ]
    if described.entropy_rate is not None:
        facts.append(("entropy rate of the source", f"{described.entropy_rate:.4f} bits/symbol"))
    about_tokens = described.learned_beyond(run.splits.test[0])
    if about_tokens is not None:
        subject, _, fact = about_tokens.partition(": ")
        facts.append((subject, fact))
    report = model_report(
        predictor, evaluation, analysis, stream=config.u16_path, facts=facts, budget=budget
    )
    return dataclasses.replace(report, curve=rows, config=config.to_yaml())


def run_summary(run: Run, report: Report, steps: int) -> dict[str, Any]:
    """What summary.json holds.

    Args:
        run (Run): what was trained.
        report (Report): of `run_report`.
        steps (int): optimiser steps that were made.

    Returns:
        dict: of JSON's types only; "row" is the whole run in one flat mapping, the same columns
        for every model.
    """
    rows, row = report.curve, report.row
    bits = [r["val_bits"] for r in rows if r.get("val_bits") is not None]
    summary = {
        "model": run.config.model,
        "parameters": row["parameters"],
        "steps": steps,
        "seconds": row["seconds"] or 0.0,
        "best_validation_bits": min(bits, default=None),
        "entropy_rate_bits": run.described.entropy_rate,
        "seed": run.config.seed,
        "device": run.config.device,
        "budget": {name: row[name] for name in BUDGET},
        "components": to_json(report.components),
        "test": report.evaluation.to_dict(),
        **(_taken_apart(report.analysis) if report.analysis is not None else {}),
        "row": dict(row),
    }
    return as_json(summary)


def _taken_apart(analysis: PredictionAnalysis) -> dict[str, Any]:
    """The scores of heads and scales."""
    heads = [
        {
            "horizon": head.horizon,
            "bits_per_symbol": head.bits,
            "marginal_bits_per_symbol": head.marginal_bits,
            "accuracy": {f"top{k}": share for k, share in head.accuracy.items()},
            "mean_confidence": head.confidence,
            "mean_entropy_bits": head.entropy,
            "ece": head.ece,
            "verdict": head.verdict.kind,
        }
        for head in analysis.horizons
    ]
    scales = [
        {
            "bins": scale.bins,
            "width": scale.width,
            "bits_per_symbol": scale.bits,
            "marginal_bits_per_symbol": scale.marginal_bits,
            "ceiling_bits_per_symbol": scale.ceiling.bits,
            "accuracy": {"top1": scale.accuracy},
            "mean_confidence": scale.confidence,
            "ece": scale.ece,
            "verdict": scale.verdict.kind,
        }
        for scale in analysis.scales
    ]
    return {"taken_apart_symbols": analysis.symbols, "heads": heads, "scales": scales}
