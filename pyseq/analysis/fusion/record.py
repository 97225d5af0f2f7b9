"""What one run of fusion leaves behind for tables and pages, as JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pyseq.analysis.evaluation import as_json
from pyseq.analysis.record_file import read_json, write_json

FORMAT = "pyseq fusion run, version 1"
Protocol = Literal["locked split", "nested cross-validation"]
Predictions = Mapping[str, NDArray[np.float64]]

_ARRAYS = ("label", "group", "fold")
_PREDICTIONS = ("predictions", "without", "corrupted", "peers")
_DIGITS = 7  # that a probability is written with


@dataclass(frozen=True, eq=False)
class FusionRecord:
    """One run: what it predicted of the objects that it was scored on, and how it came to be.

    Attributes:
        data (str): name of the data set.
        protocol ("locked split" | "nested cross-validation"): which objects were scored, by what.
        class_names (sequence of C str): of the classes.
        label (array (N,), int): of the scored objects.
        predictions (mapping str -> array (N, C)): probabilities by each way of predicting; the
            first is what the run serves, and was named before the test set was scored.
        strategy (str): "single", "k_fold", "ensemble" or "super_ensemble".
        selection (str): what every choice was made on, such as "validation loss"; never the
            scored objects.
        group (array (N,), int, or None): objects of one group are not independent.
        fold (array (N,), int, or None): of nested cross-validation: which models predicted each.
        without (mapping str -> array (N, C)): the served predictions with one modality hidden.
        corrupted (mapping str -> array (N, C)): the served predictions of noisy or blind versions.
        peers (mapping str -> array (N, C)): of other classifiers, by the same folds or training
            rows; a name "PEER, VERSION" is of that version of the objects in `corrupted`.
        histories (mapping str -> sequence of mappings): of each trained model, a row for each
            epoch: epoch (int), and what was measured, such as train_loss, validation_loss (nats),
            validation_accuracy, lr.
        snapshots (sequence of int): epochs after which weights were kept.
        techniques (sequence of str): what was used beyond plain training.
        config (mapping): the run's settings, in JSON's types.
        seed (int): of the run.
        bayes_accuracy (float or None): the best that anyone can expect on these objects.
        parameters (int): of all models that are served.
        seconds (float): of wall clock.
        device (str): what computed it, such as "cpu".
        facts (mapping): what else is worth saying, such as versions; shown as it is.

    Raises:
        ValueError: shapes that do not fit, no prediction, an unknown protocol, or a nested one
            without folds.
    """

    data: str
    protocol: Protocol
    class_names: Sequence[str]
    label: NDArray[np.int64]
    predictions: Predictions
    strategy: str = "single"
    selection: str = ""
    group: NDArray[np.int64] | None = None
    fold: NDArray[np.int64] | None = None
    without: Predictions = field(default_factory=dict)
    corrupted: Predictions = field(default_factory=dict)
    peers: Predictions = field(default_factory=dict)
    histories: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    snapshots: Sequence[int] = ()
    techniques: Sequence[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    bayes_accuracy: float | None = None
    parameters: int = 0
    seconds: float = 0.0
    device: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.protocol not in get_args(Protocol):
            known = " and ".join(get_args(Protocol))
            raise ValueError(f"FusionRecord: protocol {self.protocol!r}; known are {known}")
        if not self.predictions:
            raise ValueError("FusionRecord: no prediction; the first one is what the run serves")
        if (self.fold is None) != (self.protocol == "locked split"):
            raise ValueError(
                f"FusionRecord: a {self.protocol} {'without' if self.fold is None else 'with'} "
                "fold; nested cross-validation has one for each object, a locked split none"
            )
        for name in _ARRAYS:
            if getattr(self, name) is not None:
                self._keep(name, np.asarray(getattr(self, name), dtype=np.int64))
        count, classes = len(self.label), len(self.class_names)
        for name in _ARRAYS[1:]:
            array = getattr(self, name)
            if array is not None and array.shape != (count,):
                raise ValueError(f"FusionRecord: {name} {array.shape}; ({count},) fits")
        for name in _PREDICTIONS:
            arrays = {k: np.asarray(v, dtype=np.float64) for k, v in getattr(self, name).items()}
            for key, array in arrays.items():
                if array.shape != (count, classes):
                    raise ValueError(
                        f"FusionRecord: {name} of {key!r} are {array.shape}; ({count}, {classes}), "
                        "objects and classes, fits"
                    )
            self._keep(name, arrays)

    def _keep(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def served(self) -> str:
        """The name of the way of predicting that the run serves."""
        return next(iter(self.predictions))

    def to_json(self) -> dict[str, Any]:
        """The record in JSON's types; probabilities keep seven digits, NaN becomes None."""
        found: dict[str, Any] = {"format": FORMAT}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in _PREDICTIONS:
                value = {name: _rounded(array) for name, array in value.items()}
            elif f.name in _ARRAYS and value is not None:
                value = value.tolist()
            found[f.name] = as_json(value)
        return found

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> FusionRecord:
        """The record that `to_json` wrote.

        Args:
            found (mapping): with the key "format" and the attributes of FusionRecord; other keys
                are left out.

        Returns:
            FusionRecord: as it was written.

        Raises:
            ValueError: it is of another format, an attribute is missing, or `FusionRecord` refuses.
        """
        if found.get("format") != FORMAT:
            raise ValueError(f"FusionRecord: format {found.get('format')!r}; this reads {FORMAT!r}")
        known = fields(FusionRecord)
        needed = [f.name for f in known if (f.default, f.default_factory) == (MISSING,) * 2]
        if missing := [name for name in needed if name not in found]:
            raise ValueError(f"FusionRecord: {', '.join(missing)} missing")
        return FusionRecord(**{f.name: found[f.name] for f in known if f.name in found})


def _rounded(array: NDArray[np.float64]) -> list[list[float]]:
    return [[float(f"{value:.{_DIGITS}g}") for value in row] for row in array.tolist()]


def write_record(path: str | os.PathLike[str], record: FusionRecord) -> None:
    """Write the record; the file that was there is replaced when the new one is complete.

    Args:
        path (path): of the JSON file; its folder must exist.
        record (FusionRecord): what is written.

    Raises:
        UserError: the file cannot be written.
    """
    write_json(path, record.to_json(), None)


def read_record(path: str | os.PathLike[str]) -> FusionRecord:
    """Read what `write_record` wrote.

    Args:
        path (path): of the JSON file.

    Returns:
        FusionRecord: the run.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    return read_json(path, FusionRecord.from_json, "record of a run of pyseq fusion")
