"""One training of the table of techniques: what it scored at each test object, a line of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyseq.analysis.calibration import calibration_error
from pyseq.analysis.fusion.probabilities import checked, hits, nats
from pyseq.errors import UserError

Place = Literal["baseline", "alone", "so far"]


@dataclass(frozen=True)
class TechniqueRun:
    """One technique with one seed.

    Attributes:
        data (str): name of the data set.
        technique (str): what was added last; "" for the baseline.
        place ("baseline" | "alone" | "so far"): added to the baseline alone, or after all that
            come before it.
        seed (int): of the training.
        hits (str): for each test object "1" where its likeliest class came, else "0".
        nats (sequence of N float): negative log-likelihood of each.
        ece (float): expected calibration error on the test objects.
        without (mapping str -> str): hits with one modality hidden from the trained model.
        settings (mapping): of the training and its data, in JSON's types; a run of others is
            another run.
        group (sequence of N int or None): objects of one group are not independent.
        seconds (float): of wall clock; a training that several lines share counts in one of them.
        machine (str): what computed it.

    Raises:
        ValueError: an unknown place, or scores of different numbers of objects.
    """

    data: str
    technique: str
    place: Place
    seed: int
    hits: str
    nats: Sequence[float]
    ece: float
    without: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    group: Sequence[int] | None = None
    seconds: float = 0.0
    machine: str = ""

    def __post_init__(self) -> None:
        if self.place not in get_args(Place) or bool(self.technique) == (self.place == "baseline"):
            raise ValueError(
                f"TechniqueRun: technique {self.technique!r} at {self.place!r}; the baseline has "
                f"no technique, others are {' or '.join(get_args(Place)[1:])}"
            )
        lengths = {len(self.hits), len(self.nats), *map(len, self.without.values())}
        if self.group is not None:
            lengths.add(len(self.group))
        if len(lengths) > 1 or not self.hits:
            raise ValueError(f"TechniqueRun: scores of {sorted(lengths)} objects; all of as many")

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What tells it from the other runs of a table."""
        return self.data, self.place, self.technique, self.seed

    @property
    def hit(self) -> NDArray[np.float64]:
        """Hits, (N,): 1 or 0."""
        return as_numbers(self.hits)

    @staticmethod
    def of(
        probabilities: ArrayLike,
        label: ArrayLike,
        *,
        without: Mapping[str, ArrayLike] | None = None,
        **about: Any,
    ) -> TechniqueRun:
        """A run from what it predicted.

        Args:
            probabilities (array (N, C), float): of the test objects.
            label (array (N,), int): what came.
            without (mapping str -> array (N, C), or None): with one modality hidden.
            **about: the other attributes.

        Returns:
            TechniqueRun: with the scores of these predictions.

        Raises:
            ValueError: rows that are no distributions, or shapes that do not fit.
        """
        given, came = checked(probabilities, label, who="TechniqueRun")
        hidden = {
            name: _digits(hits(*checked(each, label, who="TechniqueRun")))
            for name, each in (without or {}).items()
        }
        return TechniqueRun(
            hits=_digits(hits(given, came)),
            nats=[round(cost, 5) for cost in nats(given, came).tolist()],
            ece=calibration_error(given.max(-1), hits(given, came)),
            without=hidden,
            **about,
        )


def as_numbers(digits: str) -> NDArray[np.float64]:
    """Hits that were written as digits, (N,)."""
    return np.array([digit == "1" for digit in digits], dtype=np.float64)


def _digits(hit: NDArray[np.float64]) -> str:
    return "".join("1" if value else "0" for value in hit)


def append_run(path: str | os.PathLike[str], run: TechniqueRun) -> None:
    """Add a line to a file of runs; what was killed in the middle of a line is left behind it.

    Args:
        path (path): of the file; its folder must exist.
        run (TechniqueRun): what is added.
    """
    with open(path, "a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(asdict(run), allow_nan=False).encode() + b"\n")


def read_runs(path: str | os.PathLike[str]) -> list[TechniqueRun]:
    """Runs of a file, of each key the last one.

    Args:
        path (path): of the file.

    Returns:
        list of TechniqueRun: in the file's order; empty where there is no file. Lines that a kill
        cut short are left out.

    Raises:
        UserError: the file cannot be read, or a whole line holds something else.
    """
    if not Path(path).exists():
        return []
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"{path} cannot be read: {reason}") from error
    names = {f.name for f in fields(TechniqueRun)}
    found: dict[tuple, TechniqueRun] = {}
    for number, line in enumerate(text.split("\n"), 1):
        try:
            row = json.loads(line)
        except ValueError:
            continue  # empty, or cut short
        try:
            run = TechniqueRun(**{name: row[name] for name in names if name in row})
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}, line {number}, is no run of a technique: {error}") from error
        found[run.key] = run
    return list(found.values())


def runs_by_place(
    runs: Iterable[TechniqueRun], data: str
) -> dict[tuple[str, str], dict[int, TechniqueRun]]:
    """Runs of one data set as (place, technique) -> seed -> run."""
    found: dict[tuple[str, str], dict[int, TechniqueRun]] = {}
    for run in runs:
        if run.data == data:
            found.setdefault((run.place, run.technique), {})[run.seed] = run
    return found
