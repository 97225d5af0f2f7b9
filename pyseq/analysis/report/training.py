"""Sections on the training: curves, speed, what the model is made of, its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyseq.analysis import plots
from pyseq.analysis.ablation import Component, to_tsv
from pyseq.analysis.evaluation import Evaluation
from pyseq.analysis.report import page
from pyseq.analysis.report.page import (
    escaped,
    figure,
    folded,
    note,
    section,
    side_by_side,
    table,
)

Curve = Sequence[Mapping[str, Any]]
_STATES = {True: "on", False: "off", None: ""}


def curve_section(curve: Curve, evaluation: Evaluation) -> str:
    """Loss and learning rate over the steps."""
    rows = list(evaluation.bits.items())
    loss = plots.loss_chart(curve, evaluation.ceiling, rows, "model")
    rate = plots.step_chart(curve, "lr", "learning rate", width=9.0)
    text = (
        "Symbols that are seen again can be learned by heart, which takes the training's curve "
        "below what independent symbols allow; only symbols that were never seen show whether "
        "anything was found."
    )
    return section("Training", figure(loss), note(text) if loss else "", figure(rate))


def speed_section(curve: Curve, flops_per_symbol: int | None) -> str:
    """What the training made of the machine, over the steps."""
    charts = {
        "symbols_per_second": "symbols per second",
        "gflop_per_second": "GFLOP/s reached",
        "data_wait_percent": "time spent waiting for data, %",
        "memory_mib": "peak memory, MiB",
    }
    rows = [_measured(row, flops_per_symbol) for row in curve]
    drawn = [figure(plots.step_chart(rows, key, title)) for key, title in charts.items()]
    text = ""
    if flops_per_symbol is not None:
        text = (
            f"GFLOP/s: {flops_per_symbol / 1e6:,.1f} MFLOP per symbol of a training step, counted "
            "from the model's matrices and attention, times symbols per second."
        )
    shown = side_by_side(*drawn)
    return section("Speed", shown, note(text) if shown else "")


def _measured(row: Mapping[str, Any], flops_per_symbol: int | None) -> dict[str, Any]:
    """The row with what follows from it."""
    found = dict(row)
    if row.get("data_wait_share") is not None:
        found["data_wait_percent"] = 100 * row["data_wait_share"]
    if flops_per_symbol is not None and row.get("symbols_per_second") is not None:
        found["gflop_per_second"] = flops_per_symbol * row["symbols_per_second"] / 1e9
    return found


def components_section(components: Sequence[Component], row: Mapping[str, Any]) -> str:
    """What is switched on and how large it is, and the run as a row for a table of runs."""
    rows = (
        (part.name, _STATES[part.on], _settings(part), part.parameters or "") for part in components
    )
    found = table(("component", "", "settings", "parameters"), rows, text=(1, 2))
    copied = ""
    if row:
        copied = (
            "<h3>As a row of a table</h3>"
            + note("A heading and one line; the lines of several runs fit under one heading.")
            + f'<pre class="row">{escaped(to_tsv(row))}</pre>'
        )
    return section("Components", found, copied)


def _settings(part: Component) -> str:
    if part.on is False:
        return ""
    return ", ".join(f"{name} {_setting(value)}" for name, value in part.settings.items())


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value)


def facts_section(facts: Sequence[tuple[str, object]], config: str | None) -> str:
    """Where the numbers come from."""
    settings = folded("Configuration", f"<pre>{escaped(config)}</pre>") if config else ""
    return section("This run", page.facts(facts), settings)
