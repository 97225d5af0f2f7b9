"""Scores of class probabilities as a table that fits a terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pyseq.cli.rules.narrow_table import print_narrow

if TYPE_CHECKING:
    from pyseq.analysis.fusion import FusionScores

HEAD = ("", "accuracy, %", "macro F1, %", "NLL", "Brier", "ECE, % (chance)")


def print_scores(title: str, found: Mapping[str, "FusionScores"]) -> None:
    """Print rows of scores by name; accuracy with its 95 % interval."""
    lines = [
        (
            name,
            f"{100 * each.accuracy.value:.2f} [{100 * each.accuracy.low:.2f},"
            f" {100 * each.accuracy.high:.2f}]",
            f"{100 * each.macro_f1.value:.2f}",
            f"{each.nll.value:.4f}",
            f"{each.brier.value:.4f}",
            f"{100 * each.ece:.2f} ({100 * each.ece_by_chance:.2f})",
        )
        for name, each in found.items()
    ]
    print_narrow(title, HEAD, lines)
