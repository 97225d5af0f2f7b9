"""The parts that a page is put together from: its style, sections, tables and figures."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

import numpy as np

_MANY_COLUMNS = 6  # for the usual size of letters
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
h3 { font-size: .95rem; font-weight: 600; margin: 1.4rem 0 .4rem; }
section, .verdict { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 1.1rem 1.25rem; margin: 0 0 1rem; }
.verdict { border-left: 4px solid var(--main); font-size: 1.05rem; margin-bottom: 1.25rem;
  overflow-wrap: anywhere; }
.verdict div::first-letter { text-transform: uppercase; }
.verdict.found { border-left-color: var(--second); }
.verdict h2 { margin-bottom: .35rem; }
.pair { display: grid; gap: 0 1rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); }
p { margin: .6rem 0 0; color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-top: 1px solid var(--line);
  vertical-align: top; }
.facts th, .facts td { overflow-wrap: anywhere; }
th { font-weight: 500; color: var(--soft); }
tr:first-child > * { border-top: 0; }
td.number, th.number { text-align: right; padding-right: 0; padding-left: .9rem; }
td.number, .names th:first-child { white-space: nowrap; }
.number + .text { padding-left: 1.5rem; }
.wrapped .names th:first-child { white-space: normal; min-width: 10rem; }
a { color: var(--main); }
.wide { font-size: .87rem; }
.wide td.number, .wide th.number { padding-left: .7rem; }
small { color: var(--soft); white-space: nowrap; }
figure { margin: .75rem 0 0; overflow-x: auto; }
svg { display: block; width: 100%; height: auto;
  max-width: calc(var(--units) * 1.4px); min-width: calc(var(--units) * .75px); }
.pair svg { min-width: 0; }
details { margin-top: .75rem; }
summary { cursor: pointer; color: var(--main); }
pre { overflow-x: auto; background: var(--page); border: 1px solid var(--line); border-radius: 6px;
  padding: .75rem; margin: .6rem 0 0; font-size: 13px; white-space: pre-wrap; }
pre.row { white-space: pre; }
@media print { :root { color-scheme: light; --page: #fff; --card: #fff; --ink: #000; --soft: #444;
  --line: #ccc; --main: #2563a8; --second: #c2571a; --quiet: #8a94a0; }
  main { max-width: none; padding: 0; } svg { min-width: 0; }
  .wide { font-size: .66rem; }
  .wide .number.number, .wide .text { padding-left: .4rem; padding-right: 0; }
  h2, h3 { break-after: avoid; } tr, .verdict, figure { break-inside: avoid; } }
"""


def page(title: str, top: str, sections: Sequence[str]) -> str:
    """The whole page.

    Args:
        title (str): its heading.
        top (str): what stands on top, HTML: one `verdict_box` or several.
        sections (sequence of str): what `section` made; empty ones are left out.

    Returns:
        str: HTML that refers to nothing outside itself.
    """
    shown = [part for part in sections if part]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # The browser itself then sees to it that nothing is fetched.
        '<meta http-equiv="Content-Security-Policy" content="'
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        # The empty icon keeps browsers from asking for favicon.ico.
        '<link rel="icon" href="data:,">'
        f"<title>{escaped(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        f"<h1>{escaped(title)}</h1>\n"
        f"{top}\n" + "\n".join(shown) + "\n"
        "</main></body></html>\n"
    )


def verdict_box(sentence: str, *, question: str = "", found: bool = False) -> str:
    """The box of a verdict.

    Args:
        sentence (str): the verdict in full.
        question (str): what it answers, as a heading; none where the page has one verdict.
        found (bool): whether there is structure; it gives the box another colour, which only
            repeats what the sentence says.

    Returns:
        str: HTML.
    """
    above = f"<h2>{escaped(question)}</h2>" if question else ""
    looks = "verdict found" if found else "verdict"
    return f'<div class="{looks}">{above}<div>{escaped(sentence)}</div></div>'


def section(heading: str, *parts: str) -> str:
    """A section of the page; empty where all its parts are.

    Args:
        heading (str): plain text; the section's id is made of it.
        parts (str): HTML, from top to bottom.

    Returns:
        str: HTML.
    """
    body = "".join(parts)
    name = heading.lower().replace(" ", "-")
    return f'<section id="{name}"><h2>{heading}</h2>{body}</section>' if body else ""


def figure(svg: str) -> str:
    """A picture that scrolls sideways where the page is too narrow; empty without one."""
    return f"<figure>{svg}</figure>" if svg else ""


def side_by_side(*parts: str) -> str:
    """Parts in columns, where the page is wide enough; empty ones are left out."""
    inner = "".join(f"<div>{part}</div>" for part in parts if part)
    return f'<div class="pair">{inner}</div>' if inner else ""


def note(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escaped(text)}</p>" if text else ""


def wrapped(tables: str) -> str:
    """Tables whose first column holds long names, which may take several lines."""
    return f'<div class="wrapped">{tables}</div>' if tables else ""


def folded(summary: str, body: str) -> str:
    """HTML that a click unfolds; empty where there is none."""
    return f"<details><summary>{escaped(summary)}</summary>{body}</details>" if body else ""


def facts(rows: Sequence[tuple[str, object]]) -> str:
    """A table of names and what there is to say of them; empty without rows."""
    body = "".join(
        f"<tr><th>{escaped(name)}</th><td>{escaped(number(value))}</td></tr>"
        for name, value in rows
    )
    return f'<div class="scroll"><table class="facts">{body}</table></div>' if body else ""


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, text: Sequence[int] = ()
) -> str:
    """A table whose first column holds names.

    Args:
        head (sequence of str): the columns' headings, plain text.
        rows (iterable of sequences): a value for each column.
        text (sequence of int): other columns that hold words; the rest are set as numbers.

    Returns:
        str: HTML; empty without rows.
    """
    cell = _stacked if len(head) > 2 else _cell
    kinds = ["text" if k == 0 or k in text else "number" for k in range(len(head))]
    body = "".join(
        "<tr>" + "".join(map(cell, range(len(row)), row, kinds)) + "</tr>" for row in rows
    )
    if not body:
        return ""
    top = "".join(
        f'<th class="{kind}">{escaped(name)}</th>' for name, kind in zip(head, kinds, strict=True)
    )
    top = f"<tr>{top}</tr>" if any(head) else ""
    looks = "names wide" if len(head) > _MANY_COLUMNS else "names"
    return f'<div class="scroll"><table class="{looks}">{top}{body}</table></div>'


def _cell(column: int, value: object, kind: str) -> str:
    tag = "td" if column else "th"
    return f'<{tag} class="{kind}">{escaped(number(value))}</{tag}>'


def _stacked(column: int, value: object, kind: str) -> str:
    """A cell in which the ends of an interval stand below its middle, to keep the column narrow."""
    text = _cell(column, value, kind)
    if kind != "number" or not text.endswith("]</td>"):
        return text
    middle, _, ends = text.removesuffix("</td>").rpartition(" [")
    return f"{middle}<br><small>[{ends}</small></td>"


def number(value: object) -> str:
    """Integers with separators, floats with four decimals or five digits, the rest as it prints."""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}"
    if isinstance(value, (float, np.floating)):
        plain = float(value)
        if not math.isfinite(plain):
            return str(plain)
        return f"{plain:.4f}" if 0.1 <= abs(plain) < 100 else f"{plain:.5g}"
    return str(value)


def escaped(text: str) -> str:
    """The text as HTML shows it."""
    return html.escape(text, quote=True)
