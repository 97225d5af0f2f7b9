"""Our trainings beside the paper's table: ``python -m benchmarks.rules_table [RUNS ...]``.

Records of the runs in some folders (of ``pyseq rules table --run minimum --out RUNS``) are copied
to benchmarks/results/rules/CELL/record.json, and docs/rules-table.md is written anew from all that
are there.

Expected: under the published settings every mean within two published standard deviations; Linear
as published keeps R1 on .275 of aNbN's prompts, as the completion that ends at once does.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pyseq.analysis.rules import RunRecord, write_record
from pyseq.analysis.rules.table import summarise, table_markdown
from pyseq.training.rules.cells import find_records

RESULTS = Path(__file__).parent / "results" / "rules"
PAGE = Path(__file__).parents[1] / "docs" / "rules-table.md"


def name_of(record: RunRecord) -> str:
    """The folder of a record: GRAMMAR-MODEL-LENGTH, with what differs from the published."""
    parts = [record.grammar, record.model, record.variant.replace(" ", "_"), str(record.max_length)]
    return "-".join(part for part in parts if part)


def page(records: Sequence[RunRecord]) -> str:
    """docs/rules-table.md."""
    seconds = sum(record.seconds for record in records)
    head = [
        "# Rule extrapolation: our trainings beside the paper's",
        f"Written by `python -m benchmarks.rules_table` from {len(records)} runs, "
        f"{seconds / 3600:.1f} hours on CPUs that did other things beside.",
    ]
    return "\n\n".join([*head, table_markdown(summarise(records))])


def main(arguments: Sequence[str] | None = None) -> int:
    """Copy records, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of run folders")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    chosen = parser.parse_args(arguments)
    chosen.results.mkdir(parents=True, exist_ok=True)
    for record in find_records(chosen.runs):
        name = name_of(record)
        (chosen.results / name).mkdir(exist_ok=True)
        # Where it was run is a path of that machine.
        kept = replace(record, config={**record.config, "out": name})
        write_record(chosen.results / name / "record.json", kept)
    chosen.page.write_text(page(find_records([chosen.results])), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
