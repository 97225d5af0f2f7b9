"""An evaluation as people read it in a terminal."""

from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pyseq.analysis.calibration import prediction_groups
from pyseq.analysis.ceilings import format_percent
from pyseq.analysis.evaluation import Evaluation
from pyseq.analysis.horizons import HorizonScores
from pyseq.analysis.intervals import Interval
from pyseq.analysis.prediction_analysis import PredictionAnalysis
from pyseq.analysis.report.predictions import about_level, head_name, scale_name
from pyseq.analysis.report.scores import about_chance
from pyseq.analysis.scales import ScaleScores
from pyseq.analysis.scoring import Scores

HEADS = ("head", "bits/symbol ± 95 %", "marginal", "top-1", "entropy")
SCALES = ("scale", "bits/symbol ± 95 %", "marginal", "ceiling", "top-1")


def print_evaluation(evaluation: Evaluation, entropy_rate: float | None) -> None:
    """Print bits per symbol beside the baselines, the other metrics, and the verdict.

    Args:
        evaluation (Evaluation): what is shown; unless it is of held-out symbols the title only
            says "scored", and there is no verdict.
        entropy_rate (float | None): of the source, bits/symbol; None where it is not known.
    """
    console = Console(highlight=False)
    known = "held-out" if evaluation.held_out else "scored"
    table = Table(title=f"bits/symbol on {len(evaluation.scores.bits):,} {known} symbols")
    table.add_column("predictor")
    table.add_column("bits/symbol [95 % interval]", justify="right")
    for name, bits in evaluation.bits.items():
        text = str(bits) if not isinstance(bits, float) else f"{bits:.4f}"
        table.add_row(name, text, style="bold" if name == "model" else None)
    console.print(table)
    print_ceiling(console, evaluation, entropy_rate)
    for name, value in evaluation.metrics():
        console.print(f"{name}: {value}", soft_wrap=True, markup=False)
    console.print()
    verdict = "verdict: " if evaluation.held_out else ""
    console.print(f"{verdict}{evaluation.statement}", soft_wrap=True, markup=False)


def print_ceiling(console: Console, evaluation: Evaluation, entropy_rate: float | None) -> None:
    """Print what independent draws allow, and what the source is known to, in bits/symbol."""
    ceiling = evaluation.ceiling
    law = "uniform symbols" if ceiling.law == "uniform" else "the training frequencies"
    console.print(
        f"ceiling for independent draws: {ceiling.bits:.5f} bits ({ceiling.nats:.5f} nats) per"
        f" symbol, from {law}; {ceiling.uniform_bits:.5f} bits if all"
        f" {evaluation.scores.number_of_classes} classes were equally likely",
        soft_wrap=True,
    )
    if entropy_rate is not None:
        console.print(f"entropy rate of the source, before binning: {entropy_rate:.5f} bits/symbol")


def print_analysis(
    evaluation: Evaluation, analysis: PredictionAnalysis, class_names: Sequence[str]
) -> None:
    """Print the predictions taken apart: by confidence, by entropy, by head, by scale.

    Args:
        evaluation (Evaluation): whose scores are grouped.
        analysis (PredictionAnalysis): of the same symbols.
        class_names (sequence of str): names of the model's classes, by class.
    """
    console = Console(highlight=False)
    for by in ("confidence", "entropy"):
        _print_groups(console, evaluation.scores, by)
    _say(console, about_chance(evaluation))
    known = evaluation.held_out
    if len(analysis.horizons) > 1:
        rows = [_head_row(head) for head in analysis.horizons]
        verdicts = [head.verdict.kind for head in analysis.horizons]
        title = f"heads, on {analysis.symbols:,} symbols"
        print_table(console, title, HEADS, rows, verdicts if known else None)
    _say(console, analysis.about_horizons)
    if analysis.scales:
        rows = [_scale_row(scale) for scale in analysis.scales]
        verdicts = [scale.verdict.kind for scale in analysis.scales]
        title = f"scales, on {analysis.symbols:,} symbols"
        print_table(console, title, SCALES, rows, verdicts if known else None)
    _say(console, analysis.about_scales)
    if known:
        _say(console, about_level(analysis))
    if analysis.confusions:
        found = [
            (
                class_names[c.truth],
                class_names[c.predicted],
                f"{c.count:,}",
                format_percent(c.share),
            )
            for c in analysis.confusions
        ]
        head = ("came", "most likely", "times", "of all that came")
        print_table(console, "the most frequent mistakes", head, found, None)


def _head_row(head: HorizonScores) -> tuple[str, ...]:
    return (
        head_name(head.horizon),
        _narrow(head.bits),
        f"{head.marginal_bits.value:.4f}",
        format_percent(head.accuracy[1].value),
        f"{head.entropy.value:.4f}",
    )


def _scale_row(scale: ScaleScores) -> tuple[str, ...]:
    return (
        scale_name(scale),
        _narrow(scale.bits),
        f"{scale.marginal_bits.value:.4f}",
        f"{scale.ceiling.bits:.4f}",
        format_percent(scale.accuracy.value),
    )


def _narrow(bits: Interval) -> str:
    """The middle and half the width, where there is no room for both ends."""
    return f"{bits.value:.4f} ± {bits.half_width:.1g}"


def _print_groups(console: Console, scores: Scores, by: Literal["confidence", "entropy"]) -> None:
    rows = [
        (
            format_percent(group.confidence),
            format_percent(group.accuracy),
            f"{group.bits.value:.4f}",
            f"{group.entropy:.4f}",
            f"{group.count:,}",
        )
        for group in prediction_groups(scores, by)
    ]
    columns = ("confidence", "top-1 accuracy [95 %]", "bits/symbol", "entropy", "symbols")
    print_table(console, f"predictions by {by}", columns, rows, None)


def print_table(
    console: Console,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    verdicts: Sequence[str] | None = None,
) -> None:
    """Print a table of numbers, with a last column of verdicts where there are any."""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    if verdicts is not None:
        table.add_column("verdict")
        rows = [(*row, verdict) for row, verdict in zip(rows, verdicts, strict=True)]
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def _say(console: Console, sentence: str) -> None:
    if sentence:
        console.print(sentence, soft_wrap=True, markup=False)
