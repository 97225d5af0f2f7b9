"""`pyseq rules train`: several seeds of a model on the words of a grammar."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from pyseq.cli import flags
from pyseq.cli.rules.narrow_table import LEGEND, SHORT_TITLES, compact, print_narrow
from pyseq.training.rules.config import RulesConfig

if TYPE_CHECKING:
    from pyseq.analysis.rules import RunRecord


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
    from pyseq.analysis.rules.table import NOTES, summarise

    (row,) = [row for row in summarise([record]) if row.seeds]
    lines = []
    for metric in ("validation_loss", *METRICS):
        cell = row.cells[metric]
        lines.append(
            [
                SHORT_TITLES[metric],
                *(compact(spread, metric) for spread in (cell.best, cell.least_loss)),
                compact(cell.published, metric, published=True),
                *(f"{r[metric]:.3f}" if metric in r else "" for r in (row.chance, row.eos_at_once)),
                cell.verdict if metric in JUDGED else "",
            ]
        )
    columns = ("", "best", "least loss", "published", "chance", "EOS", "verdict")
    console = Console(highlight=False)
    seeds = len(row.seeds)
    print_narrow(f"{seeds} seed{'s' if seeds > 1 else ''}", columns, lines)
    if row.floor is not None:
        console.print(f"lowest possible loss: {row.floor:.5f} nats per target")
    for note in (LEGEND, *NOTES[:2]):
        console.print(note, soft_wrap=True, markup=False)
    if row.settings:
        console.print(
            f"other settings than the published: {row.settings}", soft_wrap=True, markup=False
        )
    if row.remark:
        console.print(f"note: {row.remark}", soft_wrap=True, markup=False)
