"""The table of techniques as a page, and its rows for other places."""

from collections.abc import Sequence
from pathlib import Path

from pyseq.analysis.fusion import (
    MissingRow,
    TechniqueRow,
    TechniqueRun,
    missing_rows,
    missing_texts,
    read_runs,
    technique_rows,
    technique_texts,
)
from pyseq.analysis.fusion.technique_table import NOTES, markdown
from pyseq.data.modalities import SyntheticLaw, find_data, locked_split
from pyseq.training.fusion import techniques


def technique_markdown(results: Path, command: str) -> str:
    """What each technique adds, as a page in Markdown.

    Args:
        results (Path): the folder of the lines; what is not there is said to be not run yet.
        command (str): that writes the page.

    Returns:
        str: tables of every data set, with what they must be read with.
    """
    parts = [
        "# What each technique of fusion training adds",
        f"Written by `{command}`. The baseline is one model that "
        "concatenates its modalities: "
        + ", ".join(
            f"{name.removeprefix('model.')} {value}" for name, value in techniques.BASELINE.items()
        )
        + ".",
        *NOTES,
        f"Not kept, as it takes four times as long: {', '.join(sorted(techniques.NOT_KEPT))}. "
        "Snapshots need cycles: alone they are added to the cyclic schedule, and held against it. "
        "An ensemble has a model of the baseline's width, one of three quarters and one of half; a "
        "super-ensemble has five fold models, these three, and one of all training objects.",
    ]
    for name in techniques.DATA:
        runs = read_runs(results / f"{name}.jsonl")
        rows = rows_of(runs, name)
        if not rows:
            parts.append(f"## {name}\n\nNot run yet.")
            continue
        machines = ", ".join(sorted({run.machine for run in runs}))
        minutes = sum(run.seconds for run in runs) / 60
        parts += [
            f"## {name}",
            f"{len(runs)} trainings, {minutes:.0f} minutes on {machines}; "
            f"{len(runs[0].hits)} test objects.",
            f"### {name}: alone",
            markdown(*technique_texts(rows, "alone")),
            f"### {name}: so far",
            markdown(*technique_texts(rows, "so far")),
            *_missing_tables(runs, name),
        ]
    return "\n\n".join(parts) + "\n"


def rows_of(runs: Sequence[TechniqueRun], data: str) -> list[TechniqueRow]:
    """Rows of one data set, in the order in which techniques were added."""
    return technique_rows(
        runs, data, techniques.NAMES, left_out=techniques.ALONE_ONLY | techniques.NOT_KEPT,
        upon=techniques.UPON,
    )  # fmt: skip


def missing_of(runs: Sequence[TechniqueRun], data: str) -> dict[str, list[MissingRow]]:
    """What a missing modality costs models that meet it otherwise than the baseline.

    Args:
        runs (sequence of TechniqueRun): of any data sets.
        data (str): whose rows are wanted.

    Returns:
        dict str -> list of MissingRow: by what is held against plain concatenation.
    """
    by_place: dict[tuple[str, str], list[TechniqueRun]] = {}
    for run in runs:
        if run.data == data:
            by_place.setdefault((run.place, run.technique), []).append(run)
    attention, dropout = techniques.NAMES[:2]
    found = {}
    for title, key in (
        ("cross-modal attention", ("alone", attention)),
        ("concatenation with modality dropout", ("alone", dropout)),
        ("cross-modal attention with modality dropout", ("so far", dropout)),
        ("super-ensemble", ("so far", techniques.NAMES[-1])),
    ):
        rows = missing_rows(by_place.get(key, []), by_place.get(("baseline", ""), []))
        if rows:
            found[title] = rows
    return found


def least_losses(name: str) -> dict[str, float]:
    """What a missing modality costs the best classifier that there can be.

    Args:
        name (str): of the data set.

    Returns:
        dict str -> float: accuracy lost on the test objects, a fraction, by modality; empty where
        the law of the data is not known.
    """
    if name != "synthetic":
        return {}
    data = find_data(name, seed=techniques.SPLIT_SEED, **techniques.DATA[name])
    test, law = data.subset(locked_split(data, techniques.SPLIT_SEED)[2]), SyntheticLaw()
    whole, _ = law.scored(test)
    return {each: whole - law.scored(test.without(each))[0] for each in data.names}


def _missing_tables(runs: Sequence[TechniqueRun], data: str) -> list[str]:
    parts = []
    least = least_losses(data)
    for title, rows in missing_of(runs, data).items():
        parts += [
            f"### {data}, a modality missing: {title}, against plain concatenation",
            markdown(*missing_texts(rows)),
        ]
    if parts and least:
        texts = [f"{name} {100 * loss:.1f}" for name, loss in least.items()]
        mean = 100 * sum(least.values()) / len(least)
        parts.append(
            "A missing modality takes information away, and the best classifier that there can be "
            f"loses, in points: {', '.join(texts)}; {mean:.1f} on average."
        )
    return parts
