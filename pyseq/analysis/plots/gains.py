"""Gains with their intervals, and where zero lies."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pyseq.analysis.intervals import Interval
from pyseq.analysis.plots.drawing import (
    INK,
    LINE,
    MAIN,
    QUIET,
    SECOND,
    SOFT,
    new_axes,
    shortened,
    to_svg,
)


def gain_chart(rows: Sequence[tuple[str, Interval]], title: str, name: str) -> str:
    """A point and a line for each interval, from top to bottom, coloured by which side it is on.

    Args:
        rows (sequence of (str, Interval)): what stands beside each, and its gain; an interval that
            is not finite is drawn as its point alone.
        title (str): of the axis, with its unit.
        name (str): what the ids of the picture begin with.

    Returns:
        str: an svg element; empty without a row.
    """
    if not rows:
        return ""
    axes = new_axes(0.3 * len(rows) + 0.8)
    axes.axvline(0, color=SOFT, linewidth=1.2)
    for y, (_, gain) in enumerate(rows):
        colour = MAIN if gain.low > 0 else SECOND if gain.high < 0 else QUIET
        if math.isfinite(gain.half_width):
            axes.plot([gain.low, gain.high], [y, y], color=colour, linewidth=2.4)
        axes.plot([gain.value], [y], "o", color=colour, ms=5)
        beside = axes.get_yaxis_transform()
        axes.text(1.01, y, str(gain), va="center", fontsize=9, color=INK, transform=beside)
    axes.set_yticks(range(len(rows)), [shortened(text) for text, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.margins(x=0.06)
    axes.set_xlabel(title)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    return to_svg(axes, name)
