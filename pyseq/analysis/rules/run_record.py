"""What one run of rule extrapolation leaves behind for tables and pages, as JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from pyseq.analysis.evaluation import as_json
from pyseq.analysis.record_file import read_json, write_json

FORMAT = "pyseq rules run, version 1"
RUNNING = "running"
# By their own rules; a seed whose validation loss is no finite number has diverged.
ENDED = ("patience", "max_steps", "diverged")
STOPS = (RUNNING, *ENDED, "max_time", "interrupted")

HistoryRow = Mapping[str, Any]


@dataclass(frozen=True)
class RunRecord:
    """One run: several seeds of one model on one grammar, trained as a stack.

    Attributes:
        grammar (str): its name in `pyseq.data.grammars.GRAMMARS`.
        model (str): its name in `pyseq.models.rules.MODELS`.
        max_length (int): symbols that a word has at most.
        seeds (sequence of int): one for each model of the stack.
        histories (sequence of sequences of mappings): for each seed a row for each validation, in
            order: step (int), train_loss and validation_loss (nats per target, plain
            cross-entropy), grad_norm, lr, and the fields of `RuleScores`. A key may be missing,
            but step; a number that is not finite may be None.
        variant (str): how the settings differ from the published ones, in a few words such as
            "fixed" or "10 heads"; empty for the published settings, which alone are held against
            the published table.
        stops (sequence of str): why each seed's training ended, one of `STOPS`; empty stands for
            "running" for each.
        config (mapping): the run's settings, in JSON's types.
        floor (float or None): nats per target that a perfect model reaches, over max_length + 1
            targets with PAD; None where it is not known.
        floor_error (float): the floor's standard error; 0 where it is exact.
        chance (mapping): scores of random completions, by the names of `RuleScores`' fields.
        eos_at_once (mapping): scores of the completion that ends at once, by the same names.
        parameters (int): of one seed's model.
        seconds (float): of wall clock, spent on training and validation of the whole stack.
        device (str): what computed it, such as "cpu".
        facts (mapping): what else is worth saying, such as versions; shown as it is.

    Raises:
        ValueError: histories or stops do not fit the seeds, a row has no step, or a stop is
            unknown.
    """

    grammar: str
    model: str
    max_length: int
    seeds: Sequence[int]
    histories: Sequence[Sequence[HistoryRow]]
    variant: str = ""
    stops: Sequence[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    floor: float | None = None
    floor_error: float = 0.0
    chance: Mapping[str, float] = field(default_factory=dict)
    eos_at_once: Mapping[str, float] = field(default_factory=dict)
    parameters: int = 0
    seconds: float = 0.0
    device: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.histories) != len(self.seeds):
            raise ValueError(
                f"RunRecord: {len(self.histories)} histories for {len(self.seeds)} seeds; each "
                "seed has one, an empty one before its first validation"
            )
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"RunRecord: seeds {list(self.seeds)} repeat; each is one model")
        if self.stops and len(self.stops) != len(self.seeds):
            raise ValueError(
                f"RunRecord: {len(self.stops)} stops for {len(self.seeds)} seeds; one for each, or "
                "none"
            )
        if unknown := set(self.stops) - set(STOPS):
            raise ValueError(f"RunRecord: stops {sorted(unknown)}; known are {', '.join(STOPS)}")
        for seed, rows in zip(self.seeds, self.histories, strict=True):
            if any("step" not in row for row in rows):
                raise ValueError(f"RunRecord: a row of seed {seed} has no step; every row needs it")

    @property
    def steps(self) -> int:
        """Optimiser steps of the seed that made most of them, up to its last validation."""
        return max((int(rows[-1]["step"]) for rows in self.histories if rows), default=0)

    @property
    def complete(self) -> bool:
        """Whether every seed's training has ended by its own rules."""
        return bool(self.stops) and all(stop in ENDED for stop in self.stops)

    def to_json(self) -> dict[str, Any]:
        """The record in JSON's types; numbers that are not finite become None."""
        return {"format": FORMAT} | as_json(asdict(self))

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> RunRecord:
        """The record that `to_json` wrote.

        Args:
            found (mapping): with the key "format" and the attributes of RunRecord; other keys are
                left out.

        Returns:
            RunRecord: equal to the one that was written, but for None in place of numbers that
            were not finite.

        Raises:
            ValueError: it is of another format, an attribute is missing, or `RunRecord` refuses.
        """
        if found.get("format") != FORMAT:
            raise ValueError(f"RunRecord: format {found.get('format')!r}; this reads {FORMAT!r}")
        needed = [
            f.name for f in fields(RunRecord) if (f.default, f.default_factory) == (MISSING,) * 2
        ]
        if missing := [name for name in needed if name not in found]:
            raise ValueError(f"RunRecord: {', '.join(missing)} missing")
        _check_types(found)
        return RunRecord(**{f.name: found[f.name] for f in fields(RunRecord) if f.name in found})


def _check_types(found: Mapping[str, Any]) -> None:
    """What tables compute with is what it should be."""
    for name, kind in (("grammar", str), ("model", str), ("max_length", int)):
        if not isinstance(found[name], kind):
            raise ValueError(f"RunRecord: {name} {found[name]!r}; one of type {kind.__name__} fits")
    for row in (row for rows in found["histories"] for row in rows):
        for name, value in row.items():
            if value is not None and not isinstance(value, int | float):
                raise ValueError(f"RunRecord: {name} {value!r} in a history; a number fits")


def write_record(path: str | os.PathLike[str], record: RunRecord) -> None:
    """Write the record; the file that was there is replaced when the new one is complete.

    Args:
        path (path): of the JSON file; its folder must exist.
        record (RunRecord): what is written.

    Raises:
        UserError: the file cannot be written.
    """
    write_json(path, record.to_json(), 1)


def read_record(path: str | os.PathLike[str]) -> RunRecord:
    """Read what `write_record` wrote.

    Args:
        path (path): of the JSON file.

    Returns:
        RunRecord: the run.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    return read_json(path, RunRecord.from_json, "record of a run of pyseq rules")
