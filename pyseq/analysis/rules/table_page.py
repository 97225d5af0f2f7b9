"""The paper's table with our runs beside it, as a page that grows as runs are added."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pyseq.analysis import plots
from pyseq.analysis.plots.comparison import Mark
from pyseq.analysis.report import page
from pyseq.analysis.rules.published import GRAMMARS_OF_THE_PAPER, JUDGED, REMARKS, short_name
from pyseq.analysis.rules.table import (
    NOTES,
    TITLES,
    TableRow,
    best_table,
    metric_table,
    statement,
)
from pyseq.data.durable_file import replace_file

_WORDS = {"grammar", "model", "our best", "best published", "verdict", "remark"}


def table_page(rows: Sequence[TableRow]) -> str:
    """The page.

    Args:
        rows (sequence of TableRow): of `summarise`.

    Returns:
        str: HTML that refers to nothing outside itself: the statement, a picture of OOD rule 1,
        the best of each grammar, a table for each metric, and how to read it.
    """
    sections = [
        page.section("Rule extrapolation, ours and the paper's", *_pictures(rows)),
        page.section("Best OOD R1 of each grammar", _table(*best_table(rows))),
    ]
    sections += [
        page.section(TITLES[metric], _table(*metric_table(rows, metric))) for metric in JUDGED
    ]
    notes = [page.note(text) for text in (*NOTES, *REMARKS.values())]
    sections.append(page.section("How to read this", *notes))
    title = "Rule extrapolation: the published table and ours"
    return page.page(title, page.verdict_box(statement(rows)), sections)


def write_table_page(path: str | os.PathLike[str], rows: Sequence[TableRow]) -> None:
    """Write the page, which replaces what was there when it is complete.

    Args:
        path (path): of the HTML file; its folder must exist.
        rows (sequence of TableRow): of `summarise`.

    Raises:
        UserError: the file cannot be written.
    """
    text = table_page(rows)
    replace_file(Path(path), lambda temporary: temporary.write_text(text, "utf-8"))


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    words = [k for k, name in enumerate(head) if name in _WORDS]
    return page.table(head, lines, text=words)


def _pictures(rows: Sequence[TableRow]) -> list[str]:
    """OOD rule 1 of each grammar that was run, beside what was published."""
    parts = []
    for grammar in GRAMMARS_OF_THE_PAPER:
        found = [row for row in rows if row.grammar == grammar]
        if not any(row.seeds for row in found):
            continue
        marks = [_mark(row) for row in found]
        chance = next(
            (row.chance["ood_rule_1"] for row in found if "ood_rule_1" in row.chance), None
        )
        name = f"ood-{grammar.lower().replace('_', '-')}"
        parts.append(f"<h3>{page.escaped(short_name(grammar))}</h3>")
        parts.append(page.figure(plots.comparison_chart(marks, chance, name)))
    return parts


def _mark(row: TableRow) -> Mark:
    cell = row.cells["ood_rule_1"]
    length = f", length {row.max_length}" if row.seeds and row.settings else ""
    name = f"{row.model}{', ' if row.variant else ''}{row.variant}{length}"
    ours = (cell.best.mean, cell.best.deviation) if cell.best else None
    theirs = (cell.published.mean, cell.published.deviation) if cell.published else None
    return Mark(name, ours, theirs, cell.least_loss.mean if cell.least_loss else None)
