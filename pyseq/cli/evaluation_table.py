"""An evaluation as people read it in a terminal."""

import numpy as np
from rich.console import Console
from rich.table import Table

from pyseq.analysis.ceilings import format_percent
from pyseq.analysis.evaluation import Evaluation
from pyseq.analysis.scoring import Scores
from pyseq.training.run_report import evaluation_metrics


def print_evaluation(
    evaluation: Evaluation, entropy_rate: float | None, *, held_out: bool = True
) -> None:
    """Print bits per symbol beside the baselines, the other metrics, and the verdict.

    Args:
        evaluation (Evaluation): what is shown.
        entropy_rate (float | None): of the source, bits/symbol; None where it is not known.
        held_out (bool): whether the model is known not to have seen the scored symbols; the title
            says "held-out" or only "scored", and without it there is no verdict.
    """
    console = Console(highlight=False)
    ceiling = evaluation.ceiling
    known = "held-out" if held_out else "scored"
    table = Table(title=f"bits/symbol on {len(evaluation.scores.bits):,} {known} symbols")
    table.add_column("predictor")
    table.add_column("bits/symbol [95 % interval]", justify="right")
    for name, bits in evaluation.bits.items():
        text = str(bits) if not isinstance(bits, float) else f"{bits:.4f}"
        table.add_row(name, text, style="bold" if name == "model" else None)
    console.print(table)
    law = "uniform symbols" if ceiling.law == "uniform" else "the training frequencies"
    console.print(
        f"ceiling for independent draws: {ceiling.bits:.5f} bits ({ceiling.nats:.5f} nats) per"
        f" symbol, from {law}; {ceiling.uniform_bits:.5f} bits if all"
        f" {evaluation.scores.number_of_classes} classes were equally likely",
        soft_wrap=True,
    )
    if entropy_rate is not None:
        console.print(f"entropy rate of the source, before binning: {entropy_rate:.5f} bits/symbol")
    for name, value in evaluation_metrics(evaluation):
        console.print(f"{name}: {value}", soft_wrap=True, markup=False)
    console.print()
    verdict = f"verdict: {evaluation.verdict.sentence}"
    if not held_out:
        verdict = "no verdict: the scored range holds symbols that the model was trained on"
    console.print(verdict, soft_wrap=True, markup=False)


def print_confidence_groups(scores: Scores, groups: int = 10) -> None:
    """Print accuracy, bits and entropy by the model's confidence, in groups of equal size."""
    order = np.argsort(scores.confidence, kind="stable")
    table = Table(title="predictions by confidence")
    for column in ("confidence", "top-1 accuracy", "bits/symbol", "entropy", "symbols"):
        table.add_column(column, justify="right")
    for group in np.array_split(order, min(groups, len(order))):
        table.add_row(
            format_percent(float(scores.confidence[group].mean())),
            format_percent(float(scores.hits[group, 0].mean())),
            f"{scores.bits[group].mean():.4f}",
            f"{scores.entropy[group].mean():.4f}",
            f"{len(group):,}",
        )
    Console(highlight=False).print(table)
