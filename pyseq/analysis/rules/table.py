"""The paper's table with our runs beside it: rows to print, Markdown, and a page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pyseq.analysis.rules.published import (
    CHANCE,
    GRAMMARS_OF_THE_PAPER,
    JUDGED,
    LEAST_SEEDS,
    LENGTH,
    MODELS,
    PUBLISHED,
    REMARKS,
    PublishedRow,
    Spread,
    best_published,
    finished_rate_of,
    short_name,
    verdict,
)
from pyseq.analysis.rules.run_record import ENDED, HistoryRow, RunRecord
from pyseq.analysis.rules.scores import METRICS, select_best, select_minimum_loss

TITLES: Mapping[str, str] = {
    "validation_loss": "validation loss",
    "id_rule_1": "ID R1",
    "id_rule_2": "ID R2",
    "ood_rule_1": "OOD R1",
    "ood_rule_2": "OOD R2, whole",
    "ood_rule_2_completion": "OOD R2, completion",
    "id_finished": "ID finished",
    "ood_finished": "OOD finished",
    "id_grammatical": "ID grammatical",
    "ood_grammatical": "OOD grammatical",
}
NOTES = (
    "Shares are of finished completions, 0 where none finished; the rate of finished ones stands "
    "beside. Mean and sample standard deviation are over seeds.",
    "Best: for each seed the best of its history, for each metric by itself, as the paper's tables "
    "have it. That favours noisy metrics and many validations, and the finished rate may be of "
    "another validation. At least loss: all metrics at the validation whose loss is least.",
    "Reached: the mean of the best lies within two published standard deviations of the published "
    "mean; where that deviation is 0, within .05 of a share and .0015 nats of a loss. Above and "
    "below are about the number; of a loss, below is better. None finished: our share is of no "
    "completions, and the published one is not.",
    f"In the published runs words had up to {LENGTH} symbols. A row of another length, or of other "
    "settings than the published, is told against the same numbers, and is no reproduction.",
    "Chance: completions drawn evenly among symbols and EOS, as measured with a run, else as "
    "published. EOS at once: the prompt itself.",
)

# By strategy, which prompts a model has seen with completions.
_ON_TESTED = "the tested prompts"
_TRAINED_ON: Mapping[str, str] = {
    "oracle": _ON_TESTED,
    "adversarial": _ON_TESTED,
    "progressive": "other prompts out of distribution",
}


@dataclass(frozen=True)
class Cell:
    """One metric of one row.

    Attributes:
        best (Spread or None): over seeds, of the best of each history; None where nothing was run.
        least_loss (Spread or None): over seeds, where each seed's validation loss is least.
        published (Spread or None): of the paper; None where it has none.
        verdict (str): of `published.verdict` on `best`; empty where there is nothing published, or
            the metric gets no verdict.
    """

    best: Spread | None
    least_loss: Spread | None
    published: Spread | None
    verdict: str


@dataclass(frozen=True)
class TableRow:
    """The seeds of one model on one grammar at one length under the same settings.

    Attributes:
        grammar (str): its name.
        model (str): its name.
        variant (str): as of RunRecord; empty for the published settings.
        max_length (int): symbols of a word at most; the published length where nothing was run.
        seeds (tuple of int): those that were validated at least once.
        ended (int): how many of them have ended by their own rules.
        cells (mapping metric -> Cell): for validation_loss and each field of RuleScores.
        floor (float or None): nats per target that a perfect model reaches.
        floor_error (float): its standard error.
        chance (mapping metric -> float): of random completions.
        eos_at_once (mapping metric -> float): of the completion that ends at once.
        trained_on (str): which of the prompts it was trained on; empty for none, as it should be.
    """

    grammar: str
    model: str
    variant: str
    max_length: int
    seeds: tuple[int, ...]
    ended: int
    cells: Mapping[str, Cell]
    floor: float | None
    floor_error: float
    chance: Mapping[str, float]
    eos_at_once: Mapping[str, float]
    trained_on: str = ""

    @property
    def comparable(self) -> bool:
        """Whether length and settings are the published ones."""
        return self.max_length == LENGTH and not self.variant

    @property
    def settings(self) -> str:
        """What length and settings are not the published ones; empty where all are."""
        said = [self.variant] if self.variant else []
        return ", ".join(said + ["another length"] * (self.max_length != LENGTH))

    @property
    def remark(self) -> str:
        """What weakens the row whatever it is held against; empty where nothing does."""
        said = [f"trained on {self.trained_on}"] if self.trained_on else []
        rate = self.cells["ood_finished"].best
        if rate is not None and rate.mean == 0:
            said.append("no OOD completion finished")
        if self.ended < len(self.seeds):
            said.append(f"{len(self.seeds) - self.ended} of {len(self.seeds)} seeds unfinished")
        if 0 < len(self.seeds) < LEAST_SEEDS:
            said.append("few seeds")
        return ", ".join(said)


def summarise(records: Iterable[RunRecord]) -> list[TableRow]:
    """The rows of the table: what was run, and of the paper what was not.

    Args:
        records (iterable of RunRecord): in any number; those of one grammar, model, variant and
            length are pooled, and of a seed that comes twice the later record counts.

    Returns:
        list of TableRow: by grammar and model, in the paper's order, others after it.
    """
    pools: dict[tuple[str, str, str, int], list[RunRecord]] = {}
    for record in records:
        key = (record.grammar, record.model, record.variant, record.max_length)
        pools.setdefault(key, []).append(record)
    run = {key: _row(pool) for key, pool in pools.items()}
    rows = [row for row in run.values() if row.seeds]
    present = {(row.grammar, row.model) for row in rows if row.comparable}
    rows += [_row_not_run(*key) for key in PUBLISHED if key not in present]
    return sorted(rows, key=_order)


def _row(pool: Sequence[RunRecord]) -> TableRow:
    histories: dict[int, tuple[Sequence[HistoryRow], str]] = {}
    for record in pool:
        stops = record.stops or [""] * len(record.seeds)
        for seed, rows, stop in zip(record.seeds, record.histories, stops, strict=True):
            if rows:
                histories[seed] = rows, stop
    newest = pool[-1]
    published = PUBLISHED.get((newest.grammar, newest.model), {})
    best = [select_best(rows) for rows, _ in histories.values()]
    least = [select_minimum_loss(rows) for rows, _ in histories.values()]
    cells = {
        metric: _cell(metric, _spread(best, metric), _spread(least, metric), published,
                      _spread(best, finished_rate_of(metric)))
        for metric in ("validation_loss", *METRICS)
    }  # fmt: skip
    return TableRow(
        grammar=newest.grammar,
        model=newest.model,
        variant=newest.variant,
        max_length=newest.max_length,
        seeds=tuple(sorted(histories)),
        ended=sum(stop in ENDED for _, stop in histories.values()),
        cells=cells,
        floor=newest.floor,
        floor_error=newest.floor_error,
        chance=newest.chance or CHANCE.get(newest.grammar, {}),
        eos_at_once=newest.eos_at_once,
        trained_on=next(
            (told for name, told in _TRAINED_ON.items() if newest.config.get(name)), ""
        ),
    )


def _row_not_run(grammar: str, model: str) -> TableRow:
    published = PUBLISHED[grammar, model]
    cells = {
        metric: _cell(metric, None, None, published, None)
        for metric in ("validation_loss", *METRICS)
    }
    chance = CHANCE.get(grammar, {})
    return TableRow(grammar, model, "", LENGTH, (), 0, cells, None, 0.0, chance, {})


def _cell(
    metric: str,
    best: Spread | None,
    least_loss: Spread | None,
    published: PublishedRow,
    finished: Spread | None,
) -> Cell:
    theirs = published.get(metric)
    if metric not in JUDGED or theirs is None:
        return Cell(best, least_loss, theirs, "")
    ended = published.get(finished_rate_of(metric))
    nothing = finished is not None and finished.mean == 0 and ended is not None and ended.mean > 0
    mean = best.mean if best else None
    return Cell(best, least_loss, theirs, verdict(metric, mean, theirs, none_finished=nothing))


def _spread(rows: Sequence[Mapping[str, float]], metric: str) -> Spread | None:
    """Of the seeds that have the metric; None where none has."""
    values = [row[metric] for row in rows if row.get(metric) is not None]
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return Spread(mean, math.sqrt(squares / max(len(values) - 1, 1)), len(values))


def _order(row: TableRow) -> tuple:
    place = partial(_place, names=GRAMMARS_OF_THE_PAPER)
    return (place(row.grammar), _place(row.model, MODELS), row.variant, -row.max_length)


def _place(name: str, names: Sequence[str]) -> tuple[int, str]:
    return (names.index(name) if name in names else len(names), name)


def metric_table(
    rows: Sequence[TableRow], metric: str
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """One metric of all rows as text, for a terminal, Markdown or a page.

    Args:
        rows (sequence of TableRow): of `summarise`.
        metric (str): "validation_loss" or a field of RuleScores.

    Returns:
        tuple: the headings, and for each row a text for each heading.
    """
    beside: tuple[str, ...]
    if metric == "validation_loss":
        beside = ("floor",)
    else:
        beside = ("chance", "EOS at once", "finished, ours", "finished, published")
    head = ("grammar", "model", "length", "seeds", "best", "at least loss", "published", "verdict")
    return (*head, *beside, "remark"), [_texts(row, metric) for row in rows]


def _texts(row: TableRow, metric: str) -> tuple[str, ...]:
    cell = row.cells[metric]
    # A loss needs the digits in which models differ.
    digits = 4 if metric == "validation_loss" else 3
    show = partial(spread_text, digits=digits)
    if metric == "validation_loss":
        floor = "" if row.floor is None else f"{row.floor:.{digits + 1}f}"
        beside = [f"{floor} ± {row.floor_error:.{digits + 1}f}" if row.floor_error else floor]
    else:
        rate = row.cells[finished_rate_of(metric)]
        beside = [_number(row.chance.get(metric)), _number(row.eos_at_once.get(metric))]
        beside += [show(rate.best), show(rate.published)]
    published = cell.published
    return (
        short_name(row.grammar),
        row.model,
        str(row.max_length) if row.seeds else "",
        str(len(row.seeds)),
        show(cell.best),
        show(cell.least_loss),
        f"{spread_text(published)} (n {published.n})" if published else "",
        f"{cell.verdict} ({row.settings})" if cell.verdict and row.settings else cell.verdict,
        *beside,
        row.remark,
    )


def spread_text(spread: Spread | None, *, digits: int = 3) -> str:
    """Mean and deviation as text, the mean alone where there is no deviation; empty for None."""
    if spread is None:
        return ""
    mean = f"{spread.mean:.{digits}f}"
    if spread.n < 2 or math.isnan(spread.deviation):
        return mean
    return f"{mean} ± {spread.deviation:.{digits}f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def best_table(rows: Sequence[TableRow]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """For each grammar of the paper the best published OOD rule 1, and the best of ours.

    A model that was trained on the tested prompts is none of ours here.

    Args:
        rows (sequence of TableRow): of `summarise`.

    Returns:
        tuple: the headings, and for each grammar a text for each heading.
    """
    head: tuple[str, ...]
    head = ("grammar", "best published", "OOD R1", "our best", "length", "seeds", "ours", "verdict")
    found: list[tuple[str, ...]] = []
    for grammar in GRAMMARS_OF_THE_PAPER:
        theirs = best_published(grammar)
        assert theirs is not None, "each of these grammars has published rows"
        model, published = theirs
        ours = [
            (row, cell.best)
            for row, cell in _cells_of(rows, grammar, "ood_rule_1")
            if cell.best and row.trained_on != _ON_TESTED
        ]
        texts: tuple[str, ...] = ("", "", "", "", "not run")
        if ours:
            row, best = max(ours, key=lambda pair: pair[1].mean)
            name = f"{row.model}, {row.variant}" if row.variant else row.model
            beaten = "beaten" if best.mean > published.mean else "not beaten"
            length = "another length" if row.max_length != LENGTH else ""
            beaten = ", ".join(filter(None, [beaten, length, row.remark]))
            texts = (name, str(row.max_length), str(best.n), spread_text(best), beaten)
        found.append((short_name(grammar), model, spread_text(published), *texts))
    return head, found


def _cells_of(
    rows: Sequence[TableRow], grammar: str, metric: str
) -> Iterable[tuple[TableRow, Cell]]:
    return ((row, row.cells[metric]) for row in rows if row.grammar == grammar)


def statement(rows: Sequence[TableRow]) -> str:
    """How far the reproduction has come, in one or two sentences.

    Args:
        rows (sequence of TableRow): of `summarise`.

    Returns:
        str: counts of cells under the published settings, and of rows that are of others.
    """
    cells = [row.cells[metric] for row in rows if row.comparable for metric in JUDGED]
    verdicts = [cell.verdict for cell in cells]
    run = len(verdicts) - verdicts.count("not run")
    others = sum(not row.comparable for row in rows)
    said = (
        f"Of the {len(PUBLISHED) * len(JUDGED)} published cells {run} were run at the published "
        f"length and settings: {verdicts.count('reached')} reached, {verdicts.count('above')} "
        f"above, {verdicts.count('below')} below"
    )
    unfinished = verdicts.count("none finished")
    said += f", {unfinished} of completions none of which finished." if unfinished else "."
    return f"{said} {others} rows are of another length or other settings." if others else said


def table_markdown(rows: Sequence[TableRow], *, metrics: Sequence[str] = JUDGED) -> str:
    """The whole table as Markdown.

    Args:
        rows (sequence of TableRow): of `summarise`.
        metrics (sequence of str): a table for each.

    Returns:
        str: the statement, a table for each metric, the best of each grammar, and the notes.
    """
    parts = [statement(rows)]
    for metric in metrics:
        parts += [f"## {TITLES[metric]}", _markdown(*metric_table(rows, metric))]
    parts += ["## Best OOD R1 of each grammar", _markdown(*best_table(rows))]
    parts += ["## How to read this", *NOTES, *REMARKS.values()]
    return "\n\n".join(parts) + "\n"


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [[name.strip() for name in head], ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
