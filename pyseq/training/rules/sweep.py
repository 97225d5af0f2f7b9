"""Trainings over all combinations of some settings, one run folder for each."""

import dataclasses
import itertools
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from pyseq.analysis.rules import RunRecord, read_record, select_best, select_minimum_loss
from pyseq.errors import UserError
from pyseq.models.rules import MODELS
from pyseq.training.rules.config import RulesConfig
from pyseq.training.rules.run import (
    RECORD,
    has_more_steps,
    refuse_other_settings,
    train_rules,
)

# The settings that --sizes and --dropouts vary, by model.
SIZES = {"transformer": "width", "lstm": "hidden", "linear": "embedding"}
DROPOUTS = {"transformer": "dropout", "lstm": "dropout"}
# Each combination has its own of these.
_OWN = ("out", "resume", "max_time")


@dataclass(frozen=True)
class Trial:
    """One combination of settings.

    Attributes:
        name (str): settings and values, such as "lr=0.001,hidden=64"; also its folder's name.
        config (RulesConfig): resolved, with its own folder and share of the time.
    """

    name: str
    config: RulesConfig

    def record(self) -> RunRecord | None:
        """What it left, or None if it has not ended."""
        path = Path(str(self.config.out)) / RECORD
        return read_record(path) if path.is_file() else None


def parse_varied(model: str, lists: Sequence[tuple[str, str]]) -> dict[str, list[Any]]:
    """Values of settings from comma-separated texts.

    Args:
        model (str): whose settings "sizes" and "dropouts" stand for.
        lists (sequence of (str, str)): a setting, "sizes", "dropouts" or "lrs", and its values; a
            setting that comes twice has the values of both.

    Returns:
        dict str -> list: as numbers where they look like numbers.

    Raises:
        UserError: the model has no such setting, or a value is missing.
    """
    found: dict[str, list[Any]] = {}
    for name, text in lists:
        if name == "lrs":
            name = "lr"
        elif name in ("sizes", "dropouts"):
            known = SIZES if name == "sizes" else DROPOUTS
            if model not in known:
                raise UserError(f"--{name}: --model {model} has none; known: {', '.join(known)}")
            name = f"{model}.{known[model]}"
        values = [_value(part.strip()) for part in text.split(",")]
        if "" in values:
            raise UserError(f"{name} {text!r} lacks a value; such as 10,20 fits")
        held = found.setdefault(name, [])
        held += [value for value in values if value not in held]
    return found


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def trials(base: RulesConfig, varied: dict[str, list[Any]], budget: float | None) -> list[Trial]:
    """All combinations, each resolved and checked before any is trained.

    Args:
        base (RulesConfig): what they share; its folder holds theirs.
        varied (dict str -> list): settings by their flags' names.
        budget (float | None): minutes for all; each gets an equal share.

    Returns:
        list of Trial: in the order of the values, the last setting fastest.

    Raises:
        UserError: there is no such setting, or a combination does not fit.
    """
    models = varied.get("model", [base.model])
    for name in varied:
        outer = name.partition(".")[0]
        if outer in _OWN:
            raise UserError(f"{outer} cannot be varied: each combination has its own")
        if outer in MODELS and outer not in models:
            raise UserError(f"{name} is no setting of --model {base.model}, which would not change")
    combinations = list(itertools.product(*varied.values()))
    minutes = base.max_time if budget is None else budget / len(combinations)
    folder = Path(base.out or f"sweep-{base.resolved().out}")
    made = []
    for values in combinations:
        config = base
        for name, value in zip(varied, values, strict=True):
            config = _replaced(config, name, value)
        said = ",".join(f"{n.rpartition('.')[2]}={v}" for n, v in zip(varied, values, strict=True))
        name = said or "alone"
        config = dataclasses.replace(
            config, out=str(folder / name.replace("/", "-")), max_time=minutes, resume="auto"
        )
        made.append(Trial(name, config.resolved()))
    return made


def _replaced(config: Any, name: str, value: Any) -> Any:
    """A dataclass with one setting changed, which may be one of a dataclass inside it."""
    outer, _, inner = name.partition(".")
    known = [field.name for field in dataclasses.fields(config)]
    if outer not in known:
        raise UserError(f"there is no setting {name} to vary; known: {', '.join(sorted(known))}")
    held = getattr(config, outer)
    if inner:
        if not dataclasses.is_dataclass(held):
            raise UserError(f"{outer} has no setting {inner} to vary")
        return dataclasses.replace(config, **{outer: _replaced(held, inner, value)})
    kinds = [type(held)] if held is not None else _kinds(type(config), outer)
    if type(value) is int and float in kinds:
        value = float(value)
    if type(value) not in kinds:
        fitting = " or ".join(kind.__name__ for kind in kinds)
        raise UserError(f"{name} {value!r}; a value of type {fitting} fits")
    return dataclasses.replace(config, **{outer: value})


def _kinds(config: type, name: str) -> list[type]:
    """The types that a setting may have, which is None by default."""
    hint = get_type_hints(config)[name]
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return [kind for kind in kinds if kind is not types.NoneType]


def run_trials(
    chosen: Sequence[Trial], told: Callable[[str], None]
) -> list[tuple[Trial, RunRecord]]:
    """Train what has not ended yet, in order.

    Args:
        chosen (sequence of Trial): those that have left a record are not trained again, but go on
            where --max_steps ended them and is more now.
        told (Callable): is given a line about each.

    Returns:
        list of (Trial, RunRecord): of all.

    Raises:
        UserError: a folder holds a run with other settings.
    """
    for trial in chosen:  # before any of them is trained
        if record := trial.record():
            refuse_other_settings(record.config, trial.config, record.steps, "", "another --out")
    ended = []
    for number, trial in enumerate(chosen, 1):
        record = trial.record()
        if record and has_more_steps(record, trial.config):
            record = None
        told(f"{number}/{len(chosen)} {trial.name}: {'there already' if record else 'training'}")
        ended.append((trial, record or train_rules(trial.config)))
    return ended


def ranking(ended: Sequence[tuple[Trial, RunRecord]]) -> list[dict[str, Any]]:
    """The trials by their mean OOD R1 at the lowest validation loss, the highest first.

    Args:
        ended (sequence of (Trial, RunRecord)): of `run_trials`.

    Returns:
        list of dict: name, validation_loss (lowest), ood_rule_1 (there), best_ood_rule_1 (over the
        history), ood_finished (there), each the mean over seeds; steps, minutes.
    """
    rows = []
    for trial, record in ended:
        least = [select_minimum_loss(rows) for rows in record.histories]
        best = [select_best(rows) for rows in record.histories]
        rows.append(
            {
                "name": trial.name,
                "validation_loss": _mean(least, "validation_loss"),
                "ood_rule_1": _mean(least, "ood_rule_1"),
                "best_ood_rule_1": _mean(best, "ood_rule_1"),
                "ood_finished": _mean(least, "ood_finished"),
                "steps": record.steps,
                "minutes": record.seconds / 60,
            }
        )
    return sorted(rows, key=lambda row: -(row["ood_rule_1"] or 0))


def _mean(rows: Sequence[Any], name: str) -> float | None:
    values = [row[name] for row in rows if row.get(name) is not None]
    return sum(values) / len(values) if values else None
