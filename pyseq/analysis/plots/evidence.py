"""How strong the evidence is: its growth over the symbols, and the p-values of all tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyseq.analysis.plots.drawing import (
    INK,
    LINE,
    MAIN,
    QUIET,
    SECOND,
    SOFT,
    add_legend,
    new_axes,
    shortened,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_NAMES = 10  # beside the ends of lines; more would not fit below one another
MOST_ROWS = 60  # of p-values; with more the smallest ones are drawn
_DECADES = 10.0  # of p-values; beyond it a test has fired however it is counted


def evidence_chart(paths: Sequence[tuple[str, ArrayLike, ArrayLike]], level: float) -> str:
    """Evidence over the symbols seen, on logarithmic axes.

    Args:
        paths (sequence of (name, array (M,), array (M,))): symbols seen, and log10 of the evidence
            E after them; the first is drawn bold. Points that are not finite, or lie before the
            first symbol, are left out.
        level (float): a line is drawn at E = 1 / level; in (0, 1).

    Returns:
        str: an svg element; empty without a point.
    """
    lines = [(name, *_points(x, y)) for name, x, y in paths]
    lines = [line for line in lines if line[1].size]
    if not lines:
        return ""
    bound = -math.log10(level)
    axes = new_axes(3.6)
    low = min(0.0, *(float(y.min()) for _, _, y in lines))
    high = max(bound, *(float(y.max()) for _, _, y in lines))
    _scale_evidence(axes, low, high, bound)
    axes.axhline(0, color=SOFT, linewidth=1.0, linestyle=":", label="E = 1: nothing learned")
    often = f"E = {1 / level:,.4g}: chance takes at most {100 * level:.3g} % of runs there"
    axes.axhline(bound, color=SECOND, linewidth=1.4, linestyle="--", label=often)
    for k, (_, x, y) in reversed(list(enumerate(lines))):
        colour, width = (MAIN, 2.0) if k == 0 else (QUIET, 1.0)
        marker = "o" if x.size == 1 else ""
        axes.plot(x, y, color=colour, linewidth=width, marker=marker, ms=3, zorder=4 - (k > 0))
    axes.set_xscale("log")
    first = min(float(x[0]) for _, x, _ in lines)
    last = max(float(x[-1]) for _, x, _ in lines)
    axes.set_xlim(first if first < last else first / 2, last if first < last else 2 * last)
    axes.xaxis.set_major_formatter(lambda value, _: count_in_words(value))
    axes.xaxis.set_minor_formatter(lambda *_: "")
    _name_ends(axes, lines[:_MOST_NAMES])
    add_legend(axes, columns=2)
    axes.set_xlabel("symbols seen")
    axes.set_ylabel("evidence E against the null")
    return to_svg(axes, "evidence")


def p_value_chart(
    rows: Sequence[tuple[str, float, float, bool]], level: float, name: str = "p-values"
) -> str:
    """The p-values of all tests, before and after correction, further right where smaller.

    Args:
        rows (sequence of (name, p-value, corrected p-value, whether it fired)): drawn from top to
            bottom; of more than `MOST_ROWS` the ones with the smallest p-values are drawn.
        level (float): a line is drawn at it; in (0, 1).
        name (str): what the ids of the picture begin with.

    Returns:
        str: an svg element; empty without a test.
    """
    rows = [row for row in rows if not (math.isnan(row[1]) or math.isnan(row[2]))]
    if len(rows) > MOST_ROWS:
        smallest = np.argsort([row[1] for row in rows], kind="stable")[:MOST_ROWS]
        rows = [rows[k] for k in sorted(smallest)]
    if not rows:
        return ""
    dense = len(rows) > 25
    axes = new_axes((0.165 if dense else 0.24) * len(rows) + 1.3)
    at = np.arange(len(rows))
    end = max(_DECADES, 2 - 1.5 * math.log10(level))
    raw = _decades([row[1] for row in rows], end)
    corrected = _decades([row[2] for row in rows], end)
    fired = np.array([row[3] for row in rows])
    axes.hlines(at, 0, raw, color=LINE, linewidth=0.9)
    alone = "the test alone"
    axes.scatter(raw, at, s=14, facecolor="none", edgecolor=QUIET, linewidth=1.0, label=alone)
    together = "corrected for the number of tests"
    axes.scatter(corrected[~fired], at[~fired], s=18, color=MAIN, label=together, zorder=3)
    if fired.any():
        axes.scatter(
            corrected[fired], at[fired], s=30, color=SECOND, marker="D", label="fired", zorder=3
        )
    bound = -math.log10(level)
    label = f"level {level:.3g}"
    axes.axvline(bound, color=SECOND, linewidth=1.4, linestyle="--", label=label)
    beside = axes.get_yaxis_transform()
    size = 7.5 if dense else 9
    for y, (_, _, p, _) in enumerate(rows):
        text = "< 1e-300" if p < 1e-300 else f"{p:.2g}"
        axes.text(1.01, y, text, va="center", fontsize=size, color=INK, transform=beside)
    axes.set_yticks(at, [shortened(row[0]) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-0.15, end + 0.15)
    ticks = np.arange(0, end + 1e-9, 2)
    marks = ["1" if tick == 0 else f"{10.0**-tick:.0e}".replace("e-0", "e-") for tick in ticks]
    marks[-1] = f"{marks[-1]} or less"
    axes.set_xticks(ticks, marks)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=size)
    add_legend(axes, columns=2)
    axes.set_xlabel("p-value: how often chance alone gives as much; the corrected one in figures")
    return to_svg(axes, name)


def count_in_words(value: float) -> str:
    """A round number of symbols: 1,000; 100,000; 1 million; 10 billion."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:,.4g} {word}"
    return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def _points(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What can be drawn on a logarithmic axis of symbols."""
    seen, found = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    kept = np.isfinite(seen) & np.isfinite(found) & (seen >= 1)
    return seen[kept], found[kept]


def _decades(p_values: Sequence[float], end: float) -> NDArray[np.float64]:
    """-log10, ended where the axis ends."""
    with np.errstate(divide="ignore"):
        return np.minimum(-np.log10(np.asarray(p_values, dtype=np.float64)), end) + 0.0


def _scale_evidence(axes: Axes, low: float, high: float, bound: float) -> None:
    """An axis of powers of ten: even steps near E = 1, where both lines are, coarser beyond."""
    near = math.ceil(bound + 1)
    axes.set_yscale("symlog", linthresh=near, linscale=1.0)
    ends = [10.0**k for k in range(1, 16) if 10.0**k > near]
    ticks = [-t for t in reversed(ends)] + [-near, -near // 2, 0, near // 2, near] + ends
    top, bottom = high + 0.15 * max(high, near), low - 0.15 * max(-low, near)
    shown = [float(tick) for tick in ticks if bottom <= tick <= top]
    axes.set_yticks(shown, ["1" if tick == 0 else f"10^{tick:,.0f}" for tick in shown])
    axes.minorticks_off()
    axes.set_ylim(bottom, top)


def _name_ends(axes: Axes, lines: Sequence[tuple[str, NDArray, NDArray]]) -> None:
    """Names right of the ends of the lines, moved apart where these lie too close."""
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = [float(to_axes.transform((x[-1], y[-1]))[1]) for _, x, y in lines]
    order = sorted(range(len(lines)), key=lambda k: ends[k])
    gap = 0.075
    places = np.array([max(ends[k], 0.08) for k in order])  # above the axis and its numbers
    for k in range(1, len(order)):
        places[k] = max(places[k], places[k - 1] + gap)
    # The pile may have grown past the top; it is pushed down as a whole.
    places -= max(0.0, float(places[-1]) - 1.0)
    for place, k in zip(places, order, strict=True):
        colour = INK if k == 0 else SOFT
        axes.text(
            1.01, place, shortened(lines[k][0], 26), va="center", fontsize=9, color=colour,
            transform=axes.transAxes,
        )  # fmt: skip
