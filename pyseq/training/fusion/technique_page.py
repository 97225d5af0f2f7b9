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
        "super-ensemble has five fold models, these three, and one of all training objects. Each "
        "of these three ways takes the place of the one before it: so far, the gain of the "
        "ensemble is over the fold models, and that of the super-ensemble over the ensemble. A "
        "single model learns from the training part and keeps the epoch that the validation part "
        "likes best; the three learn from both parts by turns, so what they gain may in part be "
        "what more data give.",
    ]
    for name in techniques.DATA:
        runs, others = runs_of(results, name)
        rows = rows_of(runs, name)
        left_out = [left_out_text(others)] if others else []
        if not rows:
            parts += [f"## {name}", "Not run yet.", *left_out]
            continue
        machines = ", ".join(sorted({run.machine for run in runs}))
        minutes = sum(run.seconds for run in runs) / 60
        parts += [
            f"## {name}",
            f"{len(runs)} results, {minutes:.0f} minutes on {machines}; "
            f"{len(runs[0].hits)} test objects.",
            *left_out,
            f"### {name}: alone",
            markdown(*technique_texts(rows, "alone")),
            f"### {name}: so far",
            markdown(*technique_texts(rows, "so far")),
            *_missing_tables(runs, name),
        ]
    return "\n\n".join(parts) + "\n"


def runs_of(results: Path, data: str) -> tuple[list[TechniqueRun], int]:
    """Runs of a data set's file that belong to this table.

    Args:
        results (Path): the folder of the lines.
        data (str): a key of techniques.DATA.

    Returns:
        tuple (list of TechniqueRun, int): the runs, and how many more are of other settings.
    """
    found = read_runs(results / f"{data}.jsonl")
    runs = techniques.of_this_table(found, data)
    return runs, len(found) - len(runs)


def left_out_text(others: int) -> str:
    """A sentence about lines of other settings."""
    lines = "1 line is" if others == 1 else f"{others} lines are"
    return f"{lines} of other settings than this table's and left out."


def rows_of(runs: Sequence[TechniqueRun], data: str) -> list[TechniqueRow]:
    """Rows of one data set, in the order in which techniques were added."""
    return technique_rows(
        runs, data, techniques.NAMES, left_out=techniques.ALONE_ONLY | techniques.NOT_KEPT,
        upon=techniques.UPON,
    )  # fmt: skip


def missing_of(runs: Sequence[TechniqueRun], data: str) -> dict[str, list[MissingRow]]:
    """What a missing modality costs models, beside what it costs a concatenation.

    Args:
        runs (sequence of TechniqueRun): of any data sets.
        data (str): whose rows are wanted.

    Returns:
        dict str -> list of MissingRow: by what is held against which concatenation. Both with
        modality dropout show what attention does of it, the others what both do together.
    """
    by_place: dict[tuple[str, str], list[TechniqueRun]] = {}
    for run in runs:
        if run.data == data:
            by_place.setdefault((run.place, run.technique), []).append(run)
    attention, dropout = techniques.NAMES[:2]
    plain, hiding, both = ("baseline", ""), ("alone", dropout), ("so far", dropout)
    found = {}
    for title, key, reference in (
        ("cross-modal attention, against plain concatenation", ("alone", attention), plain),
        ("concatenation with modality dropout, against plain concatenation", hiding, plain),
        ("cross-modal attention with modality dropout, against plain concatenation", both, plain),
        ("both with modality dropout, cross-modal attention against concatenation", both, hiding),
        ("super-ensemble, against plain concatenation", ("so far", techniques.NAMES[-1]), plain),
    ):
        rows = missing_rows(by_place.get(key, []), by_place.get(reference, []))
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
            f"### {data}, a modality missing: {title}",
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
