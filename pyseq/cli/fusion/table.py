"""`pyseq fusion table`: what each technique adds, with intervals and verdicts."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pyseq.cli import flags
from pyseq.cli.rules.narrow_table import print_narrow
from pyseq.data.durable_file import replace_file
from pyseq.errors import UserError

if TYPE_CHECKING:
    from pyseq.analysis.fusion import TechniqueRow

FILE = "table.md"


@dataclass(frozen=True)
class TableConfig:
    """Print what each technique adds to a plain model, alone and after all those before it, with a
    verdict for each, and first run what is missing where that is asked for."""

    out: str = "fusion-table"
    """The folder of DATA.jsonl, a line for each training, where table.md goes too."""
    run: bool = False
    """Train what has no line yet; what has one is not trained again, so that the same command goes
    on after a stop."""
    data: tuple[Literal["digits", "synthetic"], ...] = ("digits", "synthetic")
    """Data sets to run."""
    techniques: tuple[str, ...] = ()
    """Techniques to run, by the names that the table gives them; default: all."""
    seeds: int = 5
    """Seeds to run of each."""
    budget: float | None = None
    """With --run: minutes; no training begins after them."""
    threads: int | None = None
    """With --run: CPU threads to compute with; default: torch's choice."""


def main(arguments: list[str]) -> int:
    """Run what is asked for, print the table, and write it as Markdown."""
    config = flags.parse(TableConfig, "fusion table", arguments)
    from pyseq.analysis.fusion import missing_texts, technique_texts
    from pyseq.training.fusion import techniques
    from pyseq.training.fusion.technique_page import (
        left_out_text,
        missing_of,
        rows_of,
        runs_of,
        technique_markdown,
    )

    unknown = [name for name in config.techniques if name not in techniques.NAMES]
    if unknown:
        raise UserError(f"--techniques {unknown[0]!r}; known: {', '.join(techniques.NAMES)}")
    folder = Path(config.out)
    if config.run:
        _run(config, folder)
    found = False
    for name in techniques.DATA:
        runs, others = runs_of(folder, name)
        if others:
            print(f"{name}: {left_out_text(others)}")
        rows = rows_of(runs, name)
        found = found or bool(rows)
        for title, place in (("alone", "alone"), ("added one by one", "so far")):
            if any(_gains(row, place) for row in rows):
                head, lines = technique_texts(rows, place)  # type: ignore[arg-type]
                print_narrow(f"{name}, {title}", head, lines)
        for title, missing in missing_of(runs, name).items():
            print_narrow(f"{name}, a modality missing: {title}", *missing_texts(missing))
    if not found:
        print(f"no trainings found in {folder}; --run makes some")
        return 0
    text = technique_markdown(folder, f"pyseq fusion table --out {folder}")
    replace_file(folder / FILE, lambda path: path.write_text(text))
    print(f"with what it must be read with: {folder / FILE}")
    return 0


def _gains(row: "TechniqueRow", place: str) -> object:
    return row.alone if place == "alone" else row.so_far


def _run(config: TableConfig, folder: Path) -> None:
    import torch

    from pyseq.training.folder_lock import made
    from pyseq.training.interruption import Interruption, TrainingStopped

    for name in ("seeds", "threads"):
        if getattr(config, name) is not None and getattr(config, name) < 1:
            raise UserError(f"--{name} {getattr(config, name)}; at least 1 fits")
    if config.budget is not None and not config.budget > 0:
        raise UserError(f"--budget {config.budget}; a positive number of minutes fits")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    end = time.monotonic() + 60 * (config.budget or float("inf"))
    made(folder, "--out")
    try:
        with Interruption() as interruption:
            interruption.next = "stopping after this step"
            _run_missing(config, folder, end)
    except TrainingStopped as stop:
        raise TrainingStopped(
            stop.received, "the trainings that had ended are kept", "the same command goes on",
            128 + stop.received,
        ) from None  # fmt: skip


def _run_missing(config: TableConfig, folder: Path, end: float) -> None:
    import platform

    import torch

    from pyseq.training.fusion import techniques

    for name in config.data:
        techniques.run_missing(
            name, folder, seeds=range(1, config.seeds + 1),
            techniques=config.techniques or techniques.NAMES, end=end,
            machine=f"{platform.machine()}, {torch.get_num_threads()} threads",
            told=lambda line: print(line, file=sys.stderr, flush=True),
        )  # fmt: skip
