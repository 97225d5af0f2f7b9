"""Shares as shaded cells: what was predicted for what came, and where attention looks."""

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
    SECOND,
    SOFT,
    new_axes,
    shortened,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEVELS = 24  # of shading; neighbours are just not told apart
_GAP = 0.06  # between cells, in cells
_MOST_LABELS = 16  # along an axis of a square map
_MOST_ROWS_WITH_LABELS = 64
_TALL = 4.0  # inches: what stands below such a picture is out of sight


def confusion_chart(shares: ArrayLike, labels: Sequence[str], name: str) -> str:
    """Which coarse bin was predicted where which one came; the diagonal is framed.

    Args:
        shares (array (K, K), float): row i: of the symbols that came from bin i, the share whose
            prediction lay in each bin; a row without symbols holds zeros or NaN.
        labels (sequence of K str): names of the bins.
        name (str): what the ids of the picture begin with.

    Returns:
        str: an svg element.
    """
    values = np.nan_to_num(np.asarray(shares, dtype=np.float64))
    size = len(values)
    axes = new_axes(5.0, width=6.2)
    _cells(axes, values, np.arange(size), _scale_end(values))
    _frames(axes, size)
    every = math.ceil(size / _MOST_LABELS)
    at = range(0, size, every)
    names = [shortened(labels[k]) for k in at]
    axes.set_xticks(at, names, rotation=90 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(at, names)
    axes.set_xlim(-0.5 - _GAP, size - 0.5 + _GAP)
    axes.set_ylim(size - 0.5 + _GAP, -0.5 - _GAP)
    axes.set_aspect("equal")
    axes.set_xlabel("predicted (most likely)")
    axes.set_ylabel("came")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _colour_scale(axes, _scale_end(values), "share of the row")
    return to_svg(axes, name)


def attention_chart(
    shares: ArrayLike,
    bands: Sequence[str],
    rows: Sequence[tuple[str, str]],
    *,
    unit: str,
    name: str,
    beside: tuple[str, ArrayLike] | None = None,
) -> str:
    """How much of its weight each head puts on each band of distances.

    Args:
        shares (array (R, K), float): of each head, in [0, 1].
        bands (sequence of K str): distances, from near to far.
        rows (sequence of R (str, str)): layer and head; rows of one layer follow one another.
        unit (str): of the distances.
        name (str): what the ids of the picture begin with.
        beside (tuple of str and array (R,), or None): name and shares of a column set apart, such
            as the weight on memory tokens.

    Returns:
        str: an svg element; empty without a head.
    """
    values = np.nan_to_num(np.asarray(shares, dtype=np.float64))
    if values.size == 0:
        return ""
    at, names = np.arange(float(values.shape[1])), list(bands)
    if beside is not None:
        values = np.column_stack([values, np.nan_to_num(np.asarray(beside[1], dtype=np.float64))])
        at, names = np.append(at, at[-1] + 1.6), [*names, beside[0]]
    height = float(np.clip(7 / len(values), 0.1, 0.24))
    axes = new_axes(height * len(values) + 1.3)
    _cells(axes, values, at, _scale_end(values))
    first = [k == 0 or rows[k][0] != rows[k - 1][0] for k in range(len(rows))]
    for k, begins in enumerate(first):
        if begins and k:
            axes.axhline(k - 0.5, color=LINE, linewidth=0.8)
    shown = [k for k in range(len(rows)) if first[k] or len(rows) <= _MOST_ROWS_WITH_LABELS]
    ticks = [", ".join(filter(None, rows[k])) if first[k] else rows[k][1] for k in shown]
    axes.set_yticks(shown, [shortened(tick) for tick in ticks])
    turned = max(map(len, names)) * len(names) > 80
    axes.set_xticks(at, names, rotation=90 if turned else 0)
    axes.set_xlim(-0.5 - _GAP, at[-1] + 0.5 + _GAP)
    axes.set_ylim(len(rows) - 0.5 + _GAP, -0.5 - _GAP)
    axes.set_xlabel(f"distance back, {unit}")
    axes.tick_params(length=0)
    if len(values) * height > _TALL:
        axes.tick_params(axis="y", labelsize=7.5)
        axes.tick_params(axis="x", labeltop=True)
    axes.spines[:].set_visible(False)
    share = min(1.0, _TALL / (len(values) * height))
    _colour_scale(axes, _scale_end(values), "share of the head's weight", share)
    return to_svg(axes, name)


def _scale_end(values: NDArray[np.float64]) -> float:
    """The share that is drawn in full colour: the largest, rounded up to 1, 2 or 5 times 10^k."""
    most = max(float(values.max()), 1e-3)
    power = 10.0 ** math.floor(math.log10(most))
    return min(1.0, next(s * power for s in (1, 2, 5, 10) if s * power >= most * (1 - 1e-9)))


def _cells(
    axes: Axes, values: NDArray[np.float64], at: NDArray, end: float, gap: float = _GAP
) -> None:
    """A cell for each value, its opacity in proportion: one path for each level of shading."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    level = np.clip(np.ceil(_LEVELS * values / end - 1e-9), 0, _LEVELS).astype(int)
    half = (1 - gap) / 2
    corners = np.array([(-half, -half), (half, -half), (half, half), (-half, half), (0, 0)])
    codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY]
    for shade in range(1, _LEVELS + 1):
        rows, columns = np.nonzero(level == shade)
        if rows.size == 0:
            continue
        centres = np.column_stack([at[columns], rows])
        vertices = (centres[:, None] + corners).reshape(-1, 2)
        path = Path(vertices, codes * len(rows))
        axes.add_patch(PathPatch(path, facecolor=MAIN, alpha=shade / _LEVELS, linewidth=0))


def _frames(axes: Axes, size: int) -> None:
    """A frame around each cell of the diagonal."""
    from matplotlib.patches import Rectangle

    width = 1.0 if size <= _MOST_LABELS else 0.6
    for k in range(size):
        frame = Rectangle((k - 0.5, k - 0.5), 1, 1, fill=False, edgecolor=SECOND, linewidth=width)
        axes.add_patch(frame)


def _colour_scale(axes: Axes, end: float, title: str, share: float = 1.0) -> None:
    """A strip beside the upper `share` of the axes that says what each shade stands for."""
    strip = axes.inset_axes((1.03, 1 - share, 0.03, share))
    steps = (np.arange(_LEVELS) + 1.0)[:, None] / _LEVELS
    _cells(strip, steps, np.zeros(1), 1.0, gap=0)
    strip.set(xlim=(-0.5, 0.5), ylim=(-0.5, _LEVELS - 0.5), facecolor="none")
    strip.set_xticks([])
    ticks = np.linspace(0, 1, 5)
    strip.yaxis.tick_right()
    strip.set_yticks(ticks * _LEVELS - 0.5, [f"{100 * end * tick:.3g} %" for tick in ticks])
    strip.tick_params(length=0, labelcolor=SOFT, labelsize=9)
    strip.spines[:].set_color(LINE)
    strip.yaxis.set_label_position("right")
    strip.set_ylabel(title, color=INK, fontsize=9)
