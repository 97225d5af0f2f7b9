"""Write the tables of README and docs from the stored rows: ``python -m benchmarks.report``.

A page says where a table belongs and, if it wants, which rows::

    <!-- benchmarks:gather_windows:begin shape="B=256 T=1024" dtype=int64 -->
    <!-- benchmarks:gather_windows:end -->

Everything between the two lines is replaced. Of each case the rows of its newest run count, so
contestants that no longer take part are gone. ``--check`` writes nothing and fails if a page is not
what the rows give.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from benchmarks import rows as stored
from benchmarks import table

ROOT = Path(__file__).resolve().parents[1]
MARKED = re.compile(
    r"(?P<begin><!-- benchmarks:(?P<op>\w+):begin(?P<wanted>[^>]*)-->\n)"
    r"(?P<body>.*?)"
    r"(?P<end><!-- benchmarks:(?P=op):end -->)",
    re.DOTALL,
)
MARKER = re.compile(r"<!-- benchmarks:")
SAME_CASE = ("device", "threads", "op", "direction", "shape", "dtype")
SAME_RUN = ("device", "driver", "cuda", "torch", "threads", "isa", "rounds", "commit", "date")

Row = dict[str, str]


def newest(results: Path, op: str, wanted: dict[str, str] | None = None) -> list[Row]:
    """The rows of the newest run of each case and device, in the order in which they were stored.

    Raises:
        ValueError: no row of `op` has the wanted columns.
    """
    found = [
        row
        for path in sorted(results.glob(f"*/{op}.csv"))
        for row in stored.read(path)
        if all(row[column] == value for column, value in (wanted or {}).items())
    ]
    if not found:
        raise ValueError(f"no stored row of {op!r} has {wanted or 'any column'}")
    dates: dict[tuple[str, ...], str] = {}
    for row in found:
        dates[_case(row)] = max(row["date"], dates.get(_case(row), ""))
    return [row for row in found if row["date"] == dates[_case(row)]]


def markdown(rows: Iterable[Row]) -> str:
    """A caption and a table for each run that rows come from."""
    parts = []
    for _, group in groupby(sorted(rows, key=_run), key=_run):
        run = list(group)
        parts.append(f"{_caption(run[0])}\n\n{_table(run)}\n")
    return "\n".join(parts)


def render(page: str, results: Path) -> str:
    """A page with everything between markers written anew.

    Raises:
        ValueError: a marker has no partner or asks for rows that are not there.
    """
    if len(MARKER.findall(page)) != 2 * len(MARKED.findall(page)):
        raise ValueError("a benchmarks marker without its partner")

    def replaced(match: re.Match) -> str:
        wanted = dict(pair.split("=", 1) for pair in shlex.split(match["wanted"]))
        unknown = set(wanted) - set(stored.COLUMNS)
        if unknown:
            raise ValueError(f"marker of {match['op']}: no column is called {sorted(unknown)}")
        body = markdown(newest(results, match["op"], wanted))
        return f"{match['begin']}{body}{match['end']}"

    return MARKED.sub(replaced, page)


def stale(pages: Iterable[Path], results: Path) -> list[Path]:
    """The pages whose tables are not what the rows give."""
    return [page for page in pages if render(page.read_text(), results) != page.read_text()]


def pages() -> list[Path]:
    """README and the pages under docs that have a marker."""
    candidates = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    return [page for page in candidates if page.exists() and MARKER.search(page.read_text())]


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, 1 if a page is stale, or 2 after one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare; 1 if a page is stale")
    check = parser.parse_args(arguments).check
    try:
        old = stale(pages(), stored.RESULTS)
        if not check:
            for page in old:
                page.write_text(render(page.read_text(), stored.RESULTS))
    except ValueError as error:
        print(f"benchmarks.report: {error}", file=sys.stderr)
        return 2
    if check:
        for page in old:
            print(f"{page.relative_to(ROOT)} is stale: python -m benchmarks.report")
        return 1 if old else 0
    from benchmarks.plots import draw_all

    for plot in draw_all(stored.RESULTS, ROOT / "docs"):
        print(plot.relative_to(ROOT))
    return 0


def _case(row: Row) -> tuple[str, ...]:
    return tuple(row[column] for column in SAME_CASE)


def _run(row: Row) -> tuple[str, ...]:
    return tuple(row[column] for column in SAME_RUN)


def _caption(row: Row) -> str:
    software = [f"torch {row['torch']}", f"Python {row['python']}", row["isa"]]
    if row["cuda"]:
        software += [f"CUDA {row['cuda']}", f"driver {row['driver']}", f"triton {row['triton']}"]
    return (
        f"{row['device']}, {row['threads']} used; {', '.join(software)}; {row['rounds']} rounds,"
        f" median [20th, 80th percentile]; commit {row['commit']}, {row['date'][:10]}"
    )


def _table(rows: list[Row]) -> str:
    header = ("shape", "dtype", "contestant", "time", "rate", "of ceiling", "against best peer")
    lines = [f"| {' | '.join((*header, 'peak memory'))} |", "|---" * (len(header) + 1) + "|"]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    ratios = [row[column] for column in ("ratio_p20", "ratio", "ratio_p80")]
    share, peak, peer = row["ceiling_share"], row["peak_bytes"], row["peer"]
    return (
        row["shape"],
        row["dtype"],
        row["backend"] if row["role"] == "contestant" else f"{row['backend']} ({row['role']})",
        table.duration(*(float(row[column]) for column in ("p20", "p50", "p80"))),
        table.quantity(float(row["unit_value"]), row["unit"]),
        f"{table.percent(float(share))} of {row['ceiling']}" if share else "-",
        f"{table.ratio(*map(float, ratios))} {peer}" if all(ratios) else "-",
        table.memory(int(peak) if peak else None),
    )


if __name__ == "__main__":
    sys.exit(main())
