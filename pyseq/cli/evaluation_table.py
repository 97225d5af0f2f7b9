"""An evaluation as people read it in a terminal."""

from rich.console import Console
from rich.table import Table

from pyseq.analysis.evaluation import Evaluation
from pyseq.training.run_report import evaluation_metrics


def print_evaluation(evaluation: Evaluation, entropy_rate: float | None) -> None:
    """Print bits per symbol beside the baselines, the other metrics, and the verdict."""
    console = Console(highlight=False)
    ceiling = evaluation.ceiling
    table = Table(title=f"bits/symbol on {len(evaluation.scores.bits):,} held-out symbols")
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
        f" {evaluation.scores.number_of_classes} classes were equally likely"
    )
    if entropy_rate is not None:
        console.print(f"entropy rate of the source, before binning: {entropy_rate:.5f} bits/symbol")
    for name, value in evaluation_metrics(evaluation):
        console.print(f"{name}: {value}", soft_wrap=True, markup=False)
    console.print()
    console.print(f"verdict: {evaluation.verdict.sentence}", soft_wrap=True, markup=False)
