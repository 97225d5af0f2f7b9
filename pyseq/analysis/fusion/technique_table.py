"""What each technique adds, alone and after the others, with intervals and verdicts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pyseq.analysis.fusion.gains import Gain, gain_of, mean_interval, verdict
from pyseq.analysis.fusion.technique_runs import TechniqueRun, as_numbers, runs_by_place
from pyseq.analysis.intervals import Interval

LEAST_SEEDS = 5
Runs = Mapping[int, TechniqueRun]
NOTES = (
    "Every gain is a difference between two ways of training with the same seeds, scored on the "
    "same test objects; more is better, NLL is what it fell by, in nats. Its 95 % interval is for "
    "other seeds and other test objects, given the training data; where it leaves out zero the "
    "technique helps or hurts, else the data cannot tell. Of forty techniques that do nothing one "
    "is said to help.",
    "Alone: added to the baseline. So far: added to everything above it that was kept; gains of "
    "this column add up, those of the other need not.",
    "ECE has no interval: it is biased upward by chance, and its bootstrap more so. NLL, which "
    "calibration moves too, has one.",
)


@dataclass(frozen=True)
class TechniqueRow:
    """One technique.

    Attributes:
        technique (str): its name; "" for the baseline.
        alone (mapping metric -> Gain): over the baseline, or the technique that it is upon, by
            "accuracy" and "nll"; empty where it was not run.
        so_far (mapping metric -> Gain): over all that come before it.
        total (mapping metric -> Gain): of it and all that come before it, over the baseline.
        accuracy (Interval or None): with it and all that come before it.
        ece (tuple of two float or None): mean over the seeds, alone, and so far.
        seeds (int): the fewest that any of these has.
    """

    technique: str
    alone: Mapping[str, Gain]
    so_far: Mapping[str, Gain]
    total: Mapping[str, Gain]
    accuracy: Interval | None
    ece: tuple[float | None, float | None]
    seeds: int


def technique_rows(
    runs: Iterable[TechniqueRun],
    data: str,
    techniques: Sequence[str],
    *,
    left_out: Collection[str] = (),
    upon: Mapping[str, str] | None = None,
) -> list[TechniqueRow]:
    """Rows of the table.

    Args:
        runs (iterable of TechniqueRun): of any data sets.
        data (str): whose rows are wanted.
        techniques (sequence of str): in the order in which they were added.
        left_out (collection of str): those that later ones were not added to.
        upon (mapping str -> str, or None): techniques that alone were added to another one, which
            is then what they are held against in place of the baseline.

    Returns:
        list of TechniqueRow: the baseline, then the techniques of which there is a run. A gain is
        over the seeds that both sides have.
    """
    places = runs_by_place(runs, data)
    baseline = places.get(("baseline", ""), {})
    if not baseline:
        return []
    upon = upon or {}
    rows = [
        TechniqueRow("", {}, {}, {}, _accuracy(baseline), (None, _ece(baseline)), len(baseline))
    ]
    before = baseline
    for name in techniques:
        alone, so_far = places.get(("alone", name), {}), places.get(("so far", name), {})
        reference = places.get(("alone", upon[name]), {}) if name in upon else baseline
        counts = [len(found) for found in (alone, so_far) if found]
        if counts:
            rows.append(
                TechniqueRow(
                    name,
                    _gains(alone, reference),
                    _gains(so_far, before),
                    _gains(so_far, baseline),
                    _accuracy(so_far),
                    (_ece(alone), _ece(so_far)),
                    min(counts),
                )
            )
        if name not in left_out:
            # Without its own run nothing can be said to be added to it.
            before = so_far
    return rows


def _gains(runs: Runs, others: Runs) -> dict[str, Gain]:
    seeds = sorted(runs.keys() & others.keys())
    if not seeds:
        return {}
    group = runs[seeds[0]].group
    hit = _stacked([runs[s].hit - others[s].hit for s in seeds])
    nat = _stacked([np.subtract(others[s].nats, runs[s].nats) for s in seeds])
    return {
        "accuracy": gain_of(hit, "accuracy", group=group),
        "nll": gain_of(nat, "nll", group=group),
    }


def _accuracy(runs: Runs) -> Interval | None:
    if not runs:
        return None
    hit = _stacked([run.hit for run in runs.values()])
    group = next(iter(runs.values())).group
    found = mean_interval(hit, group=group, rare=True)
    return Interval(found.value, max(found.low, 0.0), min(found.high, 1.0))


def _ece(runs: Runs) -> float | None:
    return float(np.mean([run.ece for run in runs.values()])) if runs else None


def _stacked(rows: Sequence[NDArray]) -> NDArray[np.float64]:
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        raise ValueError(
            f"technique_rows: runs of {sorted(lengths)} test objects; all must be of the same ones"
        )
    return np.stack(rows)


@dataclass(frozen=True)
class MissingRow:
    """What a modality that is missing at test time costs two models, in accuracy.

    Attributes:
        modality (str): which one; "any one" for the mean over all.
        loss (Interval): what the model loses, a fraction.
        reference_loss (Interval): what the other one loses.
        margin (Interval): half of what the other one loses, less what the model loses.
        verdict (str): whether the model loses less than half.
    """

    modality: str
    loss: Interval
    reference_loss: Interval
    margin: Interval

    @property
    def verdict(self) -> Literal["less than half", "not less than half", "cannot be told"]:
        """Whether the interval of the margin leaves zero out, and on which side."""
        said = verdict(self.margin)
        if said == "helps":
            return "less than half"
        return "not less than half" if said == "hurts" else "cannot be told"


def missing_rows(
    model: Sequence[TechniqueRun], reference: Sequence[TechniqueRun]
) -> list[MissingRow]:
    """The table of missing modalities.

    Args:
        model (sequence of TechniqueRun): of one technique, such as attention, a run for each seed.
        reference (sequence of TechniqueRun): of another one, such as concatenation.

    Returns:
        list of MissingRow: for each modality that both were scored without, over the seeds that
        both have, and for any one of them; empty where there is none.

    Raises:
        ValueError: the runs are of different test objects.
    """
    ours, theirs = ({run.seed: run for run in runs} for runs in (model, reference))
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return []
    every = [run.without for s in seeds for run in (ours[s], theirs[s])]
    names = [name for name in every[0] if all(name in without for without in every)]
    if not names:
        return []
    group = ours[seeds[0]].group
    loss = {name: _stacked([_lost(ours[s], name) for s in seeds]) for name in names}
    other = {name: _stacked([_lost(theirs[s], name) for s in seeds]) for name in names}
    if len(names) > 1:
        for part in (loss, other):
            part["any one"] = np.mean([part[name] for name in names], axis=0)

    def interval(values: NDArray[np.float64]) -> Interval:
        return mean_interval(values, group=group, rare=True)

    return [
        MissingRow(
            name,
            interval(loss[name]),
            interval(other[name]),
            interval(other[name] / 2 - loss[name]),
        )
        for name in loss
    ]


def _lost(run: TechniqueRun, modality: str) -> NDArray[np.float64]:
    return run.hit - as_numbers(run.without[modality])


def percent(interval: Interval | None, *, signed: bool = False) -> str:
    """A fraction in per cent with its interval, as text; empty for None."""
    if interval is None:
        return ""
    scaled = points(interval)
    return _signed(scaled) if signed else str(scaled)


def points(interval: Interval) -> Interval:
    """A fraction in per cent."""
    return Interval(100 * interval.value, 100 * interval.low, 100 * interval.high)


def _signed(interval: Interval) -> str:
    text = str(interval)
    return f"+{text}" if interval.value > 0 else text


def technique_texts(
    rows: Sequence[TechniqueRow], place: Literal["alone", "so far"]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """One half of the table as text, for a terminal, Markdown or a page.

    Args:
        rows (sequence of TechniqueRow): of `technique_rows`.
        place ("alone" | "so far"): which gains.

    Returns:
        tuple: the headings, and for each row a text for each heading.
    """
    head = ["technique", "seeds", "accuracy, points", "verdict", "NLL, nats", "verdict", "ECE, %"]
    if place == "so far":
        head += ["accuracy so far, %", "all so far, points"]
    lines = []
    for row in rows:
        gains, ece = (row.alone, row.ece[0]) if place == "alone" else (row.so_far, row.ece[1])
        if row.technique and not gains:
            continue
        if not row.technique:
            ece = row.ece[1]
        # Of the pairs: either side alone may have been run with more seeds.
        seeds = gains["accuracy"].seeds if gains else row.seeds
        cells = [row.technique or "baseline", f"{seeds}{' (few)' if seeds < LEAST_SEEDS else ''}"]
        for metric in ("accuracy", "nll"):
            gain = gains.get(metric)
            cells += [_gain_text(gain), _short(gain)]
        cells.append("" if ece is None else f"{100 * ece:.2f}")
        if place == "so far":
            cells += [percent(row.accuracy), _gain_text(row.total.get("accuracy"))]
        lines.append(tuple(cells))
    return tuple(head), lines


def _gain_text(gain: Gain | None) -> str:
    if gain is None:
        return ""
    if gain.metric == "accuracy":
        return percent(gain.interval, signed=True)
    return _signed(gain.interval)


def _short(gain: Gain | None) -> str:
    """The verdict, for a column: the long one is in the notes."""
    if gain is None:
        return ""
    return gain.verdict if gain.verdict in ("helps", "hurts") else "cannot tell"


def missing_texts(rows: Sequence[MissingRow]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The table of missing modalities as text.

    Args:
        rows (sequence of MissingRow): of `missing_rows`.

    Returns:
        tuple: the headings, and for each row a text for each heading.
    """
    head = ("missing at test time", "lost, points", "concatenation loses", "less than half of it?")
    lines: list[tuple[str, ...]] = [
        (row.modality, percent(row.loss), percent(row.reference_loss), row.verdict) for row in rows
    ]
    return head, lines


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
