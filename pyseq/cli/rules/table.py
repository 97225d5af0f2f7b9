"""`pyseq rules table`: runs beside the paper's results."""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from pyseq.cli import flags
from pyseq.cli.rules.narrow_table import compact, print_narrow
from pyseq.data.durable_file import replace_file
from pyseq.errors import UserError

if TYPE_CHECKING:
    from pyseq.analysis.rules.table import TableRow


@dataclass(frozen=True)
class TableConfig:
    """Print the runs in some folders beside the paper's results, with a verdict for each cell, and
    first run what is missing where that is asked for."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Run folders, or folders of them; default: --out."""
    run: Literal["published", "minimum"] | None = None
    """Which cells to run first: published: every grammar and model of the paper at length 256 with
    5 seeds; minimum: aNbN at 256 with Transformer and LSTM and 3 seeds, and aNbN and baN at length
    64 with every model and 5 seeds. What is complete is not run again, and what another process
    trains is left to it, so that several may share the work."""
    out: str = "rules-table"
    """Where those cells' run folders are, and table.md and table.html go."""
    budget: float | None = None
    """With --run: minutes for this session; the same command goes on."""
    max_steps: int | None = None
    """With --run: optimiser steps of a cell at the most. Where fewer than the published 50,000 end
    a cell, the table says so; the same command with more goes on."""
    device: str = "auto"
    """With --run: auto, cpu, cuda, or cuda:N."""
    threads: int | None = None
    """With --run: CPU threads to compute with; default: torch's choice."""
    metrics: tuple[str, ...] = ("ood_rule_1",)
    """Metrics to print; table.md and table.html have all."""


def main(arguments: list[str]) -> int:
    """Run what is asked for, print the table, and write it as Markdown and as a page."""
    config = flags.parse(TableConfig, "rules table", arguments)
    from pyseq.analysis.rules.table import (
        TITLES,
        statement,
        summarise,
        table_markdown,
    )
    from pyseq.analysis.rules.table_page import write_table_page
    from pyseq.training.folder_lock import made
    from pyseq.training.rules.cells import find_records

    unknown = [metric for metric in config.metrics if metric not in TITLES]
    if unknown:
        raise UserError(f"--metrics {unknown[0]}; known: {', '.join(TITLES)}")
    folder = Path(config.out)
    if config.run is not None:
        _run(config)
    default = [folder] if folder.exists() else []
    records = find_records(
        [*config.folders, *(default if config.run or not config.folders else [])]
    )
    rows = summarise(records)
    settings = sorted({row.settings for row in rows if row.seeds and row.settings})
    for metric in config.metrics:
        print_narrow(TITLES[metric], HEAD, [_cells(row, metric, settings) for row in rows])
    for number, said in enumerate(settings, 1):
        print(f"({number}) other settings: {said}")
    print(statement(rows))
    if records:
        made(folder, "--out")
        text = table_markdown(rows)
        replace_file(folder / "table.md", lambda path: path.write_text(text))
        write_table_page(folder / "table.html", rows)
        print(f"all metrics: {folder / 'table.md'}, {folder / 'table.html'}")
    else:
        print("no runs found; --run minimum or --run published makes some")
    return 0


HEAD = ("grammar", "model", "length", "seeds", "best", "least loss", "published", "verdict")


def _cells(row: "TableRow", metric: str, settings: list[str]) -> list[str]:
    """One row; which other settings it has stands below the table, as they may be many."""
    from pyseq.analysis.rules.published import short_name

    cell = row.cells[metric]
    number = f" ({settings.index(row.settings) + 1})" if row.settings in settings else ""
    return [
        short_name(row.grammar),
        row.model,
        str(row.max_length) if row.seeds else "",
        f"{len(row.seeds)}" if row.seeds else "",
        *(compact(spread, metric) for spread in (cell.best, cell.least_loss)),
        compact(cell.published, metric, published=True),
        cell.verdict + number,
    ]


def _run(config: TableConfig) -> None:
    from pyseq.training.rules.cells import cells, run_cells
    from pyseq.training.rules.config import RulesConfig

    if config.budget is not None and not config.budget > 0:
        raise UserError(f"--budget {config.budget}; a positive number of minutes fits")
    base = RulesConfig(out=config.out, device=config.device, threads=config.threads)
    if config.max_steps is not None:
        base = dataclasses.replace(base, max_steps=config.max_steps)
    run_cells(
        cells(str(config.run), base), budget=config.budget,
        told=lambda line: print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
