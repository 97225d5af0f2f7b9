"""Tables of scores that fit a terminal of 80 columns."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from pyseq.analysis.rules.published import Spread

SHORT_TITLES = {
    "validation_loss": "val. loss",
    "id_rule_1": "ID R1",
    "id_rule_2": "ID R2",
    "ood_rule_1": "OOD R1",
    "ood_rule_2": "OOD R2",
    "ood_rule_2_completion": "R2 compl.",
    "id_finished": "ID fin.",
    "ood_finished": "OOD fin.",
    "id_grammatical": "ID gramm.",
    "ood_grammatical": "OOD gramm.",
}
LEGEND = (
    "R2 compl.: rule 2 on the completion alone, out of distribution; fin.: completions that end;"
    " gramm.: words of the language"
)


def print_narrow(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, with a single space between columns."""
    table = Table(title=title or None, box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*map(escape, row))
    Console(highlight=False).print(table)


def compact(spread: "Spread | None", metric: str, *, published: bool = False) -> str:
    """Mean and deviation in few characters: .376±.209; the mean alone where there is no other.

    A loss below 1 has a digit more, since models differ there; published ones were not printed so.
    """
    if spread is None:
        return ""
    digits = 4 if metric == "validation_loss" and spread.mean < 1 and not published else 3
    parts = [spread.mean]
    if spread.n > 1 and not math.isnan(spread.deviation):
        parts.append(spread.deviation)
    return "±".join(f"{part:.{digits}f}".removeprefix("0") for part in parts)
