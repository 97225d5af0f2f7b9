"""From a matplotlib figure to inline SVG that takes its colours and font from its page.

matplotlib draws with stand-in colours, which are then replaced by the page's CSS variables
(--ink, --soft, --line, --main, --second, --quiet), so that one picture serves light, dark and
print, stays sharp, and its numbers can be searched and copied.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

# Colours that nobody would choose, each standing for a CSS variable.
INK, SOFT, LINE, MAIN, SECOND, QUIET = (f"#0101{k:02x}" for k in range(6))
_VARIABLES = {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
    MAIN: "var(--main)",
    SECOND: "var(--second)",
    QUIET: "var(--quiet)",
}
WIDTH = 9.0  # inches at 72 points: 648 units of the view box
_MOST_POINTS = 600  # of a curve; more cannot be seen at this width
_LONGEST_NAME = 44  # characters beside a chart; more would leave it no room


def new_axes(height: float, *, width: float = WIDTH) -> Axes:
    """Axes of a figure of their own, in the look that all charts share.

    Args:
        height (float): of the figure, inches of 72 units.
        width (float): of the figure, the same.

    Returns:
        Axes: whose figure makes room for what stands around them.
    """
    from matplotlib.figure import Figure

    axes = Figure(figsize=(width, height), layout="constrained").subplots()
    _dress(axes)
    return axes


def new_grid(rows: int, columns: int, height: float, *, width: float = WIDTH) -> list[Axes]:
    """Small axes beside and below one another, in the look that all charts share.

    Args:
        rows (int): how many stand below one another.
        columns (int): how many beside one another.
        height (float): of the whole figure, inches of 72 units.
        width (float): of the whole figure, the same.

    Returns:
        list of Axes: row by row; all of one figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    found = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in found:
        _dress(axes)
    return found


def _dress(axes: Axes) -> None:
    axes.set_facecolor("none")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(LINE)
    axes.tick_params(which="both", color=LINE, labelcolor=SOFT, labelsize=9)
    axes.xaxis.label.set_color(SOFT)
    axes.yaxis.label.set_color(SOFT)


def series(curve: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    """The rows that have the key, as (N, 2) of step and value; what is not finite is left out."""
    points = np.array(
        [(row["step"], row[key]) for row in curve if row.get(key) is not None], dtype=np.float64
    ).reshape(-1, 2)
    return points[np.isfinite(points).all(axis=1)]


def thinned(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values, averaged over neighbours where there are more than can be seen."""
    every = math.ceil(len(points) / _MOST_POINTS)
    starts = np.arange(0, len(points), every)
    sizes = np.diff(starts, append=len(points))[:, None]
    means = np.add.reduceat(points, starts, axis=0) / sizes
    return means[:, 0], means[:, 1]


def shortened(name: str, longest: int = _LONGEST_NAME) -> str:
    """The name, its middle left out where it is too long to stand beside a chart."""
    if len(name) <= longest:
        return name
    half = (longest - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def add_legend(axes: Axes, *, columns: int = 3, handles: Sequence[Artist] | None = None) -> None:
    """A legend above the axes, in so many columns; of what has a label, or of the handles."""
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=columns,
        frameon=False,
        labelcolor=INK,
        borderaxespad=0.3,
        handlelength=1.8,
    )


def to_svg(axes: Axes, name: str) -> str:
    """The figure of the axes as an svg element.

    Args:
        axes (Axes): of `new_axes` or `new_grid`, drawn in this module's stand-in colours only.
        name (str): what the ids inside begin with; no two pictures of a page may share it.

    Returns:
        str: an svg element whose colours are the page's variables and whose text is text.
    """
    from matplotlib import rc_context
    from matplotlib.text import Text

    figure = axes.get_figure(root=True)
    assert figure is not None
    for part in figure.axes:
        part.get_xticklabels()  # makes the labels that are set below
        part.get_yticklabels()
    for label in figure.findobj(Text):
        assert isinstance(label, Text)
        label.set_parse_math(False)  # a dollar in a name is a dollar
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "pyseq"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # Inside HTML an svg needs no namespaces, and its own style sheet would style the whole page.
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg, count=2)
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    width = 72 * figure.get_figwidth()
    svg = svg.replace("<svg", f'<svg style="--units: {width:.0f}"', 1)
    # A hundredth of a unit is finer than any screen.
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)
    svg = re.sub(r"font-family:[^;\"]*;", "font-family: inherit;", svg)
    svg = svg.replace("xlink:href=", "href=")
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg
