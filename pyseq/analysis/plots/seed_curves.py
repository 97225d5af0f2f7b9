"""What changes over the steps of several trainings that differ in their seeds only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pyseq.analysis.plots.drawing import (
    LINE,
    MAIN,
    QUIET,
    SECOND,
    SOFT,
    WIDTH,
    add_legend,
    new_axes,
    series,
    thinned,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = Sequence[Mapping[str, Any]]
_STYLES = ("--", ":", "-.")


def seed_chart(
    histories: Sequence[Rows],
    key: str,
    title: str,
    *,
    levels: Sequence[tuple[str, float]] = (),
    logarithmic: bool = False,
    share: bool = False,
    width: float = WIDTH,
    height: float = 3.2,
    along: str = "optimiser step",
    each: str = "seed",
) -> str:
    """One quantity over the steps: a fine line for each seed, a strong one for their mean.

    The mean is over the seeds that still train, so it may jump where one ends.

    Args:
        histories (sequence of sequences of mappings): for each seed its rows, with step and, some
            of them, the key.
        key (str): of the quantity; what the ids of the picture begin with.
        title (str): its name with its unit.
        levels (sequence of (name, float)): what it is held against, drawn as lines.
        logarithmic (bool): whether the y axis is; values that are not positive are left out.
        share (bool): whether the y axis reaches from 0 to 1.
        width (float): inches of 72 units; the page has room for 9 of them.
        height (float): inches of 72 units.
        along (str): what the steps are, the title of the x axis.
        each (str): what one history is of; its plural has an s.

    Returns:
        str: an svg element; empty where no row has the key.
    """
    curves = [series(rows, key) for rows in histories]
    if logarithmic:
        curves = [points[points[:, 1] > 0] for points in curves]
    curves = [points for points in curves if points.size]
    if not curves:
        return ""
    axes = new_axes(height, width=width)
    for k, points in enumerate(curves):
        x, y = thinned(points)
        label = (f"{each}s" if len(curves) > 1 else each) if k == 0 else None
        axes.plot(x, y, color=QUIET, linewidth=0.9, marker="." if x.size < 3 else "", label=label)
    if len(curves) > 1:
        x, y = thinned(_mean(curves))
        axes.plot(x, y, color=MAIN, linewidth=1.9, marker="." if x.size < 3 else "", label="mean")
    for (name, level), style in zip(levels, _STYLES, strict=False):
        text = f"{name} {level:.3g}" if share else f"{name} {level:.5g}"
        axes.axhline(level, color=SECOND, linewidth=1.2, linestyle=style, label=text)
    if logarithmic:
        _make_logarithmic(axes)
    if share:
        axes.set_ylim(-0.03, 1.03)
    if width < WIDTH:
        axes.set_title(title, loc="left", fontsize=10, color=SOFT)
    else:
        axes.set_ylabel(title)
        add_legend(axes, columns=5)
    axes.set_xlabel(along)
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    return to_svg(axes, key.replace("_", "-"))


def _make_logarithmic(axes: Axes) -> None:
    """With labels in plain figures: powers as matplotlib writes them are markup, not text."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=7))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _mean(curves: Sequence[np.ndarray]) -> np.ndarray:
    """(N, 2): each step that any seed has, with the mean of the seeds that have it."""
    points = np.concatenate(curves)
    steps, place = np.unique(points[:, 0], return_inverse=True)
    return np.column_stack([steps, np.bincount(place, points[:, 1]) / np.bincount(place)])
