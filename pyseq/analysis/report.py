"""One run as one page: report.html, which needs no network and no file beside it."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pyseq.analysis import plots
from pyseq.analysis.calibration import calibration_error, reliability_table
from pyseq.analysis.ceilings import Ceiling, format_percent
from pyseq.analysis.intervals import Interval

_STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #ffffff; --ink: #1c1e21;
  --soft: #62676e; --line: #dfe1e4; --main: #2563a8; --second: #c2571a; --quiet: #9aa4b0; }
@media (prefers-color-scheme: dark) { :root { --page: #15171a; --card: #1d2024; --ink: #e7e9ec;
  --soft: #9ba2ab; --line: #343940; --main: #6aa9ee; --second: #f0975c; --quiet: #6d7680; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 940px; margin: 0 auto; padding: 2rem 1.25rem 3rem; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 .75rem; }
section, .verdict { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 1.1rem 1.25rem; margin: 0 0 1rem; }
.verdict { border-left: 4px solid var(--main); font-size: 1.05rem; margin-bottom: 1.25rem;
  overflow-wrap: anywhere; }
.verdict::first-letter { text-transform: uppercase; }
.pair { display: grid; gap: 0 1rem; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); }
p { margin: .6rem 0 0; color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-top: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 500; color: var(--soft); }
tr:first-child > * { border-top: 0; }
td.number, th.number { text-align: right; padding-right: 0; padding-left: .9rem; }
figure { margin: .75rem 0 0; overflow-x: auto; }
svg { display: block; width: 100%; min-width: 34rem; height: auto; }
.pair svg { min-width: 0; }
details { margin-top: .75rem; }
summary { cursor: pointer; color: var(--main); }
pre { overflow-x: auto; background: var(--page); border: 1px solid var(--line); border-radius: 6px;
  padding: .75rem; margin: .6rem 0 0; font-size: 13px; white-space: pre-wrap; }
@media print { :root { color-scheme: light; --page: #fff; --card: #fff; --ink: #000; --soft: #444;
  --line: #ccc; --main: #2563a8; --second: #c2571a; --quiet: #8a94a0; }
  main { max-width: none; padding: 0; } svg { min-width: 0; }
  section, .verdict, figure { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Report:
    """What the page shows; a part without data is left out.

    Attributes:
        title (str): heading of the page.
        verdict (str): the sentence on top.
        ceiling (Ceiling): what independent symbols allow, of the binning that was scored.
        facts (sequence of (name, value)): model, parameters, data, device and the like.
        baselines (sequence of (name, Interval or float)): bits per symbol, the model included.
        curve (sequence of mappings): rows of metrics.jsonl: step, train_bits, val_bits, lr,
            symbols_per_second; any key but step may be missing from a row.
        confidence (array (N,), float): probability of each top prediction, in [0, 1].
        correct (array (N,), bool or 0/1): whether it came true.
        metrics (sequence of (name, Interval, number or str)): further results.
        model_name (str): the entry of `baselines` that is drawn in the main colour.
        config (str or None): the run's resolved configuration, as YAML text.
    """

    title: str
    verdict: str
    ceiling: Ceiling
    facts: Sequence[tuple[str, object]] = ()
    baselines: Sequence[tuple[str, Interval | float]] = ()
    curve: Sequence[Mapping[str, Any]] = ()
    confidence: ArrayLike = field(default=(), repr=False)
    correct: ArrayLike = field(default=(), repr=False)
    metrics: Sequence[tuple[str, Interval | float | str]] = ()
    model_name: str = "model"
    config: str | None = None


def write_report(path: str | os.PathLike[str], report: Report) -> None:
    """Write the page, under a temporary name that is renamed when it is complete.

    Args:
        path (path): of the HTML file; its folder must exist.
        report (Report): what the page shows.

    Raises:
        OSError: the page cannot be written; what was there before is left as it was.
        ValueError: confidence and correct do not fit each other.
    """
    text = _page(report)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _page(report: Report) -> str:
    sections = [
        _bits_section(report),
        _metrics_section(report),
        _curve_section(report),
        _calibration_section(report),
        _facts_section(report),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # The empty icon keeps browsers from asking for favicon.ico.
        '<link rel="icon" href="data:,">'
        f"<title>{_text(report.title)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        f"<h1>{_text(report.title)}</h1>\n"
        f'<div class="verdict">{_text(report.verdict)}</div>\n'
        + "\n".join(section for section in sections if section)
        + "\n</main></body></html>\n"
    )


def _bits_section(report: Report) -> str:
    ceiling = report.ceiling
    shown = [*report.baselines, (ceiling.allowance, ceiling.bits)]
    shown.append(("guessing evenly", ceiling.uniform_bits))
    chart = ""
    if report.baselines:
        chart = plots.bits_chart(report.baselines, ceiling, highlight=report.model_name)
    notes = (
        f"On independent symbols of this law no predictor can on average need fewer than "
        f"{_number(ceiling.bits)} bits/symbol ({_number(ceiling.nats)} nats) or exceed top-1 "
        f"{format_percent(ceiling.top1)}, top-3 {format_percent(ceiling.top3)}, top-5 "
        f"{format_percent(ceiling.top5)}: {ceiling.reason}."
    )
    notes += " A finite sample can come out on either side of these averages"
    if ceiling.law == "marginal":
        notes += ", and symbols with other frequencies further off"
    notes += "; whether the model found something is for the verdict to say."
    body = _figure(chart) + _table(("", "bits/symbol"), shown) + f"<p>{_text(notes)}</p>"
    return _section("Bits per symbol", body)


def _metrics_section(report: Report) -> str:
    return _section("Held-out metrics", _table(("", "value"), report.metrics))


def _curve_section(report: Report) -> str:
    loss = plots.loss_chart(report.curve, report.ceiling, report.baselines, report.model_name)
    speed = plots.speed_chart(report.curve)
    return _section("Training", _figure(loss) + _figure(speed))


def _calibration_section(report: Report) -> str:
    if np.size(report.confidence) == 0:
        return ""
    # Groups with too few hits show only noise: some 20 in each, on average.
    bins = int(np.clip(np.sum(report.correct) // 20, 1, 12))
    table = reliability_table(report.confidence, report.correct, bins=bins)
    error = calibration_error(report.confidence, report.correct)
    rows = "".join(
        f'<tr><td>{format_percent(float(sure))}</td><td class="number">'
        f'{format_percent(float(hit))}</td><td class="number">{int(count):,}</td></tr>'
        for sure, hit, count in zip(table.confidence, table.accuracy, table.count, strict=True)
    )
    note = (
        f"Expected calibration error {format_percent(error)} over {int(table.count.sum()):,} "
        "predictions. On the diagonal, a confidence of 30 % comes true 30 times in 100."
    )
    body = (
        f'<div class="pair"><div>{_figure(plots.reliability_chart(table))}</div>'
        '<div class="scroll"><table><tr><th>mean confidence</th><th class="number">accuracy</th>'
        f'<th class="number">predictions</th></tr>{rows}</table></div></div><p>{_text(note)}</p>'
    )
    return _section("Calibration of the top prediction", body)


def _facts_section(report: Report) -> str:
    body = _table(("", ""), report.facts)
    if report.config:
        pre = f"<pre>{_text(report.config)}</pre>"
        body += f"<details><summary>Configuration</summary>{pre}</details>"
    return _section("This run", body)


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{heading}</h2>{body}</section>" if body else ""


def _figure(svg: str) -> str:
    return f"<figure>{svg}</figure>" if svg else ""


def _table(head: tuple[str, str], rows: Sequence[tuple[str, object]]) -> str:
    """Two columns; the heading row is left out where both headings are empty."""
    if not rows:
        return ""
    top = f'<tr><th>{head[0]}</th><th class="number">{head[1]}</th></tr>' if any(head) else ""
    kind = ' class="number"' if any(head) else ""
    body = "".join(
        f"<tr><th>{_text(name)}</th><td{kind}>{_text(_number(value))}</td></tr>"
        for name, value in rows
    )
    return f'<div class="scroll"><table>{top}{body}</table></div>'


def _number(value: object) -> str:
    """Integers with separators, floats with four decimals or five digits, the rest as it prints."""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}"
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if not math.isfinite(number):
            return str(number)
        return f"{number:.4f}" if 0.1 <= abs(number) < 100 else f"{number:.5g}"
    return str(value)


def _text(value: str) -> str:
    return html.escape(value, quote=True)
