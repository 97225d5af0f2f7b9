"""`pyseq rules train`: several seeds of a model on the words of a grammar."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from pyseq.cli import flags
from pyseq.cli.evaluation_table import print_table
from pyseq.training.rules.config import RulesConfig

if TYPE_CHECKING:
    from pyseq.analysis.rules import RunRecord
    from pyseq.analysis.rules.published import Spread

# Where the table's own would not fit 80 columns.
SHORT_TITLES = {
    "validation_loss": "val. loss",
    "ood_rule_2_completion": "OOD R2 compl.",
    "id_grammatical": "ID grammat.",
    "ood_grammatical": "OOD grammat.",
}


def main(arguments: list[str]) -> int:
    """Train as the flags say; prints the scores beside the paper's and where everything lies."""
    config = flags.parse(RulesConfig, "rules train", arguments).resolved()
    from pyseq.data.grammars import find_grammar
    from pyseq.training.rules.run import BEST, LAST, REPORT, train_rules

    grammar = find_grammar(config.grammar)
    seeds = f"{config.seeds} seed{'s' if config.seeds > 1 else ''}"
    said = f", {', '.join(config.strategies)}" if config.strategies else ""
    print(f"{config.model} on {grammar.name}, {grammar.language}, words of up to"
          f" {config.max_length} symbols, {seeds}{said}", flush=True)  # fmt: skip
    print_record(train_rules(config))
    folder = Path(str(config.out))
    print(f"models: {folder / BEST} (lowest validation loss), {folder / LAST} (last)")
    print(f"report: {folder / REPORT}")
    return 0


def print_record(record: "RunRecord") -> None:
    """Print what a run reached, by both selections, beside the paper's numbers."""
    from pyseq.analysis.rules.published import JUDGED
    from pyseq.analysis.rules.scores import METRICS
    from pyseq.analysis.rules.table import NOTES, TITLES, summarise

    (row,) = [row for row in summarise([record]) if row.seeds]
    lines = []
    for metric in ("validation_loss", *METRICS):
        cell = row.cells[metric]
        lines.append(
            [
                SHORT_TITLES.get(metric, TITLES[metric]),
                *(compact(s, metric) for s in (cell.best, cell.least_loss, cell.published)),
                *(f"{r[metric]:.3f}" if metric in r else "" for r in (row.chance, row.eos_at_once)),
                cell.verdict if metric in JUDGED else "",
            ]
        )
    columns = ("", "best", "least loss", "published", "chance", "EOS", "verdict")
    title = f"{len(row.seeds)} seeds" + (f"; {row.settings}" if row.settings else "")
    console = Console(highlight=False)
    print_table(console, title, columns, lines)
    if row.floor is not None:
        console.print(f"lowest possible loss: {row.floor:.5f} nats per target")
    for note in NOTES[:2]:
        console.print(note, soft_wrap=True, markup=False)
    if row.settings:
        console.print(f"other settings than the published: {row.settings}", soft_wrap=True, markup=False)
    if row.remark:
        console.print(f"note: {row.remark}", soft_wrap=True, markup=False)


def compact(spread: "Spread | None", metric: str) -> str:
    """Mean and deviation in few characters, so that a table fits 80 columns."""
    if spread is None:
        return ""
    digits = 4 if metric == "validation_loss" else 3
    mean = f"{spread.mean:.{digits}f}"
    if spread.n < 2 or math.isnan(spread.deviation):
        return mean
    return f"{mean} ±{spread.deviation:.{digits}f}".replace("±0.", "±.")
