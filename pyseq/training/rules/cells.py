"""The runs that the paper's table asks for, one run folder for each cell."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pyseq.analysis.rules import RunRecord, read_record
from pyseq.analysis.rules.published import GRAMMARS_OF_THE_PAPER, LENGTH
from pyseq.errors import UserError
from pyseq.models.rules import MODELS, LinearConfig
from pyseq.training.folder_lock import FolderInUse
from pyseq.training.rules.config import RulesConfig
from pyseq.training.rules.run import (
    RECORD,
    has_more_steps,
    refuse_other_settings,
    train_rules,
)

SHORT = 64  # symbols, at which two CPU cores can train every model
QUICKEST_FIRST = ("linear", "lstm", "transformer")


def cells(which: str, base: RulesConfig) -> list[RulesConfig]:
    """The settings of every cell, in the order in which they are run.

    Linear has two cells, as published and fixed: the published rows are of a model that cannot read
    the prompt.

    Args:
        which (str): "published": every grammar of the paper and model, length 256, 5 seeds;
            "minimum": aNbN and baN at length 64 with every model, then aNbN at 256 with Linear, 5
            seeds, and with LSTM and Transformer, 3 seeds.
        base (RulesConfig): where they run; its folder holds theirs.

    Returns:
        list of RulesConfig: resolved, each with a folder GRAMMAR-MODEL-LENGTH of its own.
    """
    if which == "published":
        asked = [(g, m, LENGTH, 5) for g in GRAMMARS_OF_THE_PAPER for m in MODELS]
    else:
        asked = [
            (g, m, SHORT, 5) for g in ("aNbN", "baN") for m in ("linear", "lstm", "transformer")
        ]
        asked += [("aNbN", "linear", LENGTH, 5)]
        asked += [("aNbN", m, LENGTH, 3) for m in ("lstm", "transformer")]
    folder = Path(base.out or which)
    found = []
    for grammar, model, length, seeds in asked:
        cell = dataclasses.replace(
            base, grammar=grammar, model=model, max_length=length, seeds=seeds, resume="auto",
            out=str(folder / f"{grammar}-{model}-{length}"),
        )  # fmt: skip
        found.append(cell.resolved())
        if model == "linear":
            fixed, out = LinearConfig(variant="fixed"), folder / f"{grammar}-linear-fixed-{length}"
            found.append(dataclasses.replace(cell, linear=fixed, out=str(out)).resolved())
    return found


def run_cells(
    chosen: Sequence[RulesConfig],
    *,
    budget: float | None,
    told: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Train the cells that are not complete, in order, until the time is over.

    A cell that another process is training is passed over, so several may share the work.

    Args:
        chosen (sequence of RulesConfig): of `cells`.
        budget (float | None): minutes for this session; a cell that they end goes on in the next.
        told (Callable): is given a line about each.
        clock (Callable): seconds.

    Raises:
        UserError: a cell's folder holds a run with other settings.
    """
    began = clock()
    for number, config in enumerate(chosen, 1):
        record = _record(config)
        name = f"{number}/{len(chosen)} {Path(str(config.out)).name}"
        if record is not None:
            refuse_other_settings(record.config, config, record.steps, "", "another --out")
        if record is not None and record.complete and not has_more_steps(record, config):
            told(f"{name}: complete")
            continue
        left = None if budget is None else budget - (clock() - began) / 60
        if left is not None and left <= 0:
            told(f"{name}: no time left")
            continue
        told(f"{name}: {'going on' if record else 'training'}")
        spent = record.seconds / 60 if record else 0.0
        minutes = None if left is None else spent + left
        try:
            train_rules(dataclasses.replace(config, max_time=minutes))
        except FolderInUse as error:
            told(f"{name}: {error}")


def _record(config: RulesConfig) -> RunRecord | None:
    path = Path(str(config.out)) / RECORD
    return read_record(path) if path.is_file() else None


def find_records(places: Iterable[Path]) -> list[RunRecord]:
    """Every record in some folders and below them, by name.

    Args:
        places (iterable of Path): folders, or records themselves.

    Returns:
        list of RunRecord: none where the folders hold none.

    Raises:
        UserError: a place is not there, or a record cannot be read.
    """
    found: list[RunRecord] = []
    for place in places:
        if not place.exists():
            raise UserError(f"{place} is not there")
        paths = [place] if place.is_file() else sorted(place.rglob(RECORD))
        found += [read_record(path) for path in paths]
    return found
