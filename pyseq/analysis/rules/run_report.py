"""One run of rule extrapolation as a page: scores, curves, prompts that fail and how, attention."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from pyseq.analysis import plots
from pyseq.analysis.report import page
from pyseq.analysis.rules.examination import Examination, balance, outcome
from pyseq.analysis.rules.published import LENGTH, REMARKS, Spread
from pyseq.analysis.rules.run_record import RUNNING, RunRecord
from pyseq.analysis.rules.scores import METRICS, Completion, score, select_minimum_loss
from pyseq.analysis.rules.table import NOTES, TITLES, TableRow, spread_text, summarise
from pyseq.data.durable_file import replace_file
from pyseq.data.grammars import Grammar, find_grammar

_SMALL = ("id_rule_1", "id_rule_2", "ood_rule_2_completion", "ood_finished", "id_finished")
_SIGNS = {"kept": "✓", "broken": "✗", "unfinished": "…"}


def rules_report(record: RunRecord, examination: Examination | None = None) -> str:
    """The page of a run.

    Args:
        record (RunRecord): the run, which may still be going on.
        examination (Examination or None): what the stack makes of the prompts; without it the page
            ends with the curves.

    Returns:
        str: HTML that refers to nothing outside itself.
    """
    grammar = find_grammar(record.grammar)
    row = next((row for row in summarise([record]) if row.seeds), None)
    label = f"{grammar.name} ({grammar.label})" if grammar.label else grammar.name
    variant = f", {record.variant}" if record.variant else ""
    sections = [
        _scores(row, record, grammar, examination) if row else "",
        _curves(record),
    ]
    if examination is not None:
        sections += [_prompts(record, grammar, examination), _attention(examination)]
    sections.append(_facts(record, grammar))
    title = f"{record.model}{variant} on {label}, words of up to {record.max_length} symbols"
    return page.page(title, page.verdict_box(_statement(row)), sections)


def write_rules_report(
    path: str | os.PathLike[str], record: RunRecord, examination: Examination | None = None
) -> None:
    """Write the page of a run, which replaces what was there when it is complete.

    Args:
        path (path): of the HTML file; its folder must exist.
        record (RunRecord): the run.
        examination (Examination or None): as of `rules_report`.

    Raises:
        UserError: the file cannot be written.
    """
    text = rules_report(record, examination)
    replace_file(Path(path), lambda temporary: temporary.write_text(text, "utf-8"))


def _statement(row: TableRow | None) -> str:
    """OOD rule 1 in a sentence, with everything that it must be read with."""
    cell = row.cells["ood_rule_1"] if row else None
    if row is None or cell is None:
        return "Nothing was validated yet."
    if cell.best is None:
        return "No prompt is out of distribution, and no rule to be extrapolated."
    rate = row.cells["ood_finished"].best
    seeds = f"{cell.best.n} seed{'s' if cell.best.n > 1 else ''}"
    said = (
        f"OOD R1 is {spread_text(cell.best)} over {seeds} at the best of each history and "
        f"{spread_text(cell.least_loss)} at the least validation loss, of finished completions, "
        f"which were {spread_text(rate)} at the best."
    )
    if cell.published is not None:
        said += f" Published: {spread_text(cell.published)} over {cell.published.n} seeds; "
        said += cell.verdict
        said += f" ({row.settings})." if row.settings else "."
    return f"{said} {row.remark[0].upper()}{row.remark[1:]}." if row.remark else said


def _scores(
    row: TableRow, record: RunRecord, grammar: Grammar, examination: Examination | None
) -> str:
    head = ["", "best", "at least loss", "published", "verdict", "chance", "EOS at once"]
    lines = []
    for metric in ("validation_loss", *METRICS):
        cell = row.cells[metric]
        digits = 4 if metric == "validation_loss" else 3
        spreads = (cell.best, cell.least_loss)
        lines.append(
            [
                TITLES[metric],
                *(spread_text(spread, digits=digits) for spread in spreads),
                spread_text(cell.published),
                cell.verdict,
                *(f"{r[metric]:.3f}" if metric in r else "" for r in (row.chance, row.eos_at_once)),
            ]
        )
    notes = [*NOTES[:3], *([REMARKS[record.model]] if record.model in REMARKS else [])]
    return page.section(
        "Scores",
        page.table(head, lines, text=(4,)),
        page.folded("Seed by seed", _seed_table(record)),
        page.folded("How to read this", "".join(map(page.note, notes))),
        _scores_now(grammar, examination) if examination is not None else "",
    )


def _scores_now(grammar: Grammar, examination: Examination) -> str:
    """The scores of the completions that the page shows."""
    pairs = zip(examination.in_distribution, examination.out_of_distribution, strict=True)
    now = [score(grammar, *pair) for pair in pairs]
    together = score(grammar, *examination.ensemble) if examination.ensemble else None
    head = ["", "mean over seeds", *(["seeds averaged"] if together else [])]
    lines = [
        [
            TITLES[metric],
            _mean([getattr(scores, metric) for scores in now]),
            *([f"{getattr(together, metric):.3f}"] if together else []),
        ]
        for metric in METRICS
        if not math.isnan(getattr(now[0], metric))
    ]
    text = "Averaged: all seeds as one model, their probabilities averaged at every token."
    heading = "<h3>The weights whose completions this page shows</h3>"
    return heading + page.table(head, lines) + (page.note(text) if together else "")


def _mean(values: Sequence[float]) -> str:
    mean = sum(values) / len(values)
    squares = sum((value - mean) ** 2 for value in values)
    return spread_text(Spread(mean, (squares / max(len(values) - 1, 1)) ** 0.5, len(values)))


def _seed_table(record: RunRecord) -> str:
    """Each seed where its validation loss is least."""
    head = ("seed", "ended by", "last step", "step of least loss", "validation loss", "OOD R1")
    lines = []
    stops = record.stops or [RUNNING] * len(record.seeds)
    for seed, rows, stop in zip(record.seeds, record.histories, stops, strict=True):
        least = select_minimum_loss(rows)
        lines.append(
            (
                str(seed),
                stop.replace("_", " "),
                rows[-1]["step"] if rows else "",
                least.get("step", ""),
                least.get("validation_loss", ""),
                f"{least['ood_rule_1']:.3f}" if least.get("ood_rule_1") is not None else "",
            )
        )
    return page.table(head, lines, text=(1,))


def _curves(record: RunRecord) -> str:
    floors = [("floor", record.floor)] if record.floor else []
    references = [
        (name, scores["ood_rule_1"])
        for name, scores in (("chance", record.chance), ("EOS at once", record.eos_at_once))
        if "ood_rule_1" in scores
    ]
    loss = plots.seed_chart(
        record.histories,
        "validation_loss",
        "validation loss, nats per target",
        levels=floors,
        logarithmic=True,
    )
    rule = plots.seed_chart(
        record.histories, "ood_rule_1", TITLES["ood_rule_1"], levels=references, share=True
    )
    small = [
        plots.seed_chart(record.histories, key, TITLES[key], share=True, width=4.5, height=1.9)
        for key in _SMALL
    ]
    titles = {
        "train_loss": "training loss, nats per target",
        "grad_norm": "norm of the gradient",
        "lr": "learning rate",
    }
    small += [
        plots.seed_chart(
            record.histories, key, title, logarithmic=key != "lr", width=4.5, height=1.9
        )
        for key, title in titles.items()
    ]
    text = "The floor is what a perfect model of the words reaches; it says nothing about prompts "
    text += "that no word begins with."
    if record.config.get("pad_targets") == "ignore":
        text += " Both losses count PAD targets, which this training ignores: they may rise while "
        text += "it learns the words."
    return page.section(
        "Training",
        page.figure(loss),
        page.note(text) if loss and floors else "",
        page.figure(rule),
        page.side_by_side(*map(page.figure, small)),
    )


def _prompts(record: RunRecord, grammar: Grammar, examination: Examination) -> str:
    """Which prompts out of distribution fail, in a picture, a histogram and a table."""
    rows = [_by_prompt(completions) for completions in examination.out_of_distribution]
    names = [str(seed) for seed in record.seeds[: len(rows)]]
    if len(names) != len(rows):
        names = [str(k) for k in range(len(rows))]
    if examination.ensemble is not None:
        rows.append(_by_prompt(examination.ensemble[1]))
        names.append("all")
    if not rows or not rows[0]:
        return ""
    prompts = sorted(rows[0], key=lambda prompt: _order(grammar, prompt))
    outcomes = [[outcome(grammar, row[prompt]) for prompt in prompts] for row in rows]
    picture = plots.outcome_chart(
        prompts, outcomes, [f"seed {name}" if name != "all" else "averaged" for name in names]
    )
    finished = [
        balance(grammar, each.whole)
        for completions in examination.out_of_distribution
        for each in completions
        if each.finished
    ]
    balances = [found for found in finished if found is not None]
    histogram = plots.balance_chart([n for _, n in balances], balances[0][0]) if balances else ""
    table = page.table(
        ["prompt", *names],
        [[prompt, *(_told(grammar, row[prompt]) for row in rows)] for prompt in prompts],
        text=range(1, len(names) + 1),
    )
    inside = [_by_prompt(completions) for completions in examination.in_distribution]
    inner = page.table(
        ["prompt", *names[: len(inside)]],
        [[prompt, *(_told(grammar, row[prompt]) for row in inside)] for prompt in inside[0]],
        text=range(1, len(inside) + 1),
    )
    signs = "✓ rule 1 kept, ✗ broken, … never finished; a12 is twelve a's."
    return page.section(
        "Prompts out of distribution",
        page.note(
            f"Rule 1: {grammar.rules[0]}. Rule 2, which each prompt breaks: {grammar.rules[1]}."
        ),
        page.figure(picture),
        "<h3>How far the finished completions are from balance</h3>" if histogram else "",
        page.figure(histogram),
        page.folded("Completions, out of distribution", page.note(signs) + table),
        page.folded("Completions, in distribution", page.note(signs) + inner if inner else ""),
    )


def _by_prompt(completions: Sequence[Completion]) -> dict[str, Completion]:
    """Some grammars draw a prompt several times; its completion is the same each time."""
    return {each.prompt: each for each in completions}


def _order(grammar: Grammar, prompt: str) -> tuple[int, str]:
    """Prompts by how far they are from balance, so that what fails alike stands together."""
    found = balance(grammar, prompt)
    return (found[1] if found else 0, prompt)


def _told(grammar: Grammar, completion: Completion) -> str:
    return f"{_SIGNS[outcome(grammar, completion)]} {run_lengths(completion.text)}"


def run_lengths(text: str, longest: int = 48) -> str:
    """The text with repetitions counted, "aaab" as "a3 b", cut where it is long.

    Args:
        text (str): symbols.
        longest (int): characters of the result, but for the sign of a cut.

    Returns:
        str: runs of three and more as symbol and count, the rest as it is.
    """
    parts: list[str] = []
    for symbol, run in itertools.groupby(text):
        n = len(list(run))
        if n > 2:
            parts.append(f" {symbol}{n} ")
        else:
            parts.append(symbol * n)
    told = "".join(parts).replace("  ", " ").strip()
    return told if len(told) <= longest else f"{told[:longest]} …"


def _attention(examination: Examination) -> str:
    parts = []
    words = {"kept": "rule 1 kept", "broken": "rule 1 broken", "unfinished": "never finished"}
    for k, found in enumerate(examination.attention):
        where = "In distribution" if k == 0 else "Out of distribution"
        told = f"{where}, {words[found.outcome]}: {found.completion.prompt} → "
        told += run_lengths(found.completion.text) or "nothing"
        parts.append(f"<h3>{page.escaped(told)}</h3>")
        name = f"attention-{k}"
        picture = plots.attention_maps(found.weights, found.tokens, name, prompt=found.given)
        parts.append(page.figure(picture))
    if parts:
        text = "The first seed. Each row is a token that looks, each column one that is looked at, "
        text += "full colour is all of the row's weight; dotted lines end the prompt."
        parts.insert(0, page.note(text))
    return page.section("Where attention looks", *parts)


def _facts(record: RunRecord, grammar: Grammar) -> str:
    floor = "" if record.floor is None else f"{record.floor:.5f}"
    if record.floor_error:
        floor += f" ± {record.floor_error:.5f}"
    length = str(record.max_length)
    if record.max_length != LENGTH:
        length += f"; {LENGTH} in the paper"
    rows: list[tuple[str, object]] = [
        ("language", grammar.language),
        ("longest word, symbols", length),
        ("seeds", ", ".join(map(str, record.seeds))),
        ("parameters of one seed", record.parameters or ""),
        ("loss floor, nats per target", floor),
        ("minutes", round(record.seconds / 60, 1)),
        ("device", record.device),
        *record.facts.items(),
    ]
    config = yaml.safe_dump(dict(record.config), sort_keys=False) if record.config else ""
    settings = page.folded("Configuration", f"<pre>{page.escaped(config)}</pre>" if config else "")
    return page.section("This run", page.facts([row for row in rows if row[1] != ""]), settings)
