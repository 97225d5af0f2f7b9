"""`pyseq bench OP`: time an op against its peers, after checking that all of them are right."""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from pyseq.cli import flags
from pyseq.errors import UserError

# Characters. In a file or a pipe no cell is folded, however wide the spread of a busy machine's
# times; a table takes no more than its cells need.
PIPED_WIDTH = 1000


@dataclass(frozen=True)
class Bench:
    """Time an op beside its peers and a ceiling, round by round, and print the spread."""

    op: tyro.conf.Positional[str]
    """which benchmark; an unknown name lists those there are"""
    only: str | None = None
    """words; only cases that have all of them in direction, shape and dtype"""
    quick: bool = False
    """small inputs and few rounds: shows that the benchmark works, measures nothing"""
    rounds: int | None = None
    """samples of each contestant; None is 20, or 3 with --quick"""
    threads: int | None = None
    """CPU threads; None is PyTorch's choice"""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one"""
    save: bool = False
    """append the rows to the checkout's benchmarks/results; without it nothing is stored"""


def main(arguments: list[str]) -> int:
    """Run `pyseq bench`.

    Args:
        arguments (list of str): what follows `pyseq bench` on the command line.

    Returns:
        int, 0: all contestants were right and were timed.

    Raises:
        UserError: no checkout, an unknown op, or numbers that do not fit.
        SystemExit: by tyro, after --help (0).
    """
    request = flags.parse(Bench, "bench", arguments)
    root = checkout()
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    run, table = (importlib.import_module(f"benchmarks.{name}") for name in ("run", "table"))
    console = _console()
    try:
        path = run.run(
            request.op,
            only=request.only,
            quick=request.quick,
            rounds=request.rounds,
            threads=request.threads,
            save=request.save,
            device=request.device,
            show=lambda measurement: _show(console, table, measurement),
        )
    except run.BadRequest as error:
        raise UserError(str(error)) from error
    if path is not None:
        console.print(f"rows appended to {path}")
    return 0


def checkout() -> Path:
    """The checkout that holds `benchmarks/`: around an editable install, else where we are.

    Raises:
        UserError: neither has one.
    """
    candidates = (Path(__file__).resolve().parents[2], Path.cwd())
    for root in candidates:
        if (root / "benchmarks" / "harness.py").is_file():
            return root
    raise UserError(
        "pyseq bench needs a checkout: run it from the root of one, or pip install -e . there;"
        f" no benchmarks/ in {' or '.join(str(root) for root in candidates)}"
    )


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)


def _show(console: Console, table: ModuleType, measurement: Any) -> None:
    title = table.title(measurement)
    grid = Table(*table.HEADER, title=title, title_justify="left", box=box.SIMPLE)
    for cells in table.cells(measurement):
        grid.add_row(*cells)
    console.print(grid)
