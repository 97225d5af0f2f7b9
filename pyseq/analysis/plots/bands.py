"""Measured curves with the band in which independent draws would keep them.

Of several curves of one kind (the symbols, their bytes, their bits) the first is drawn large by
`band_chart` and the others small, each on axes of its own, by `band_multiples`: laid over one
another they would hide which one leaves its band.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pyseq.analysis.plots.drawing import (
    INK,
    LINE,
    MAIN,
    QUIET,
    SECOND,
    SOFT,
    add_legend,
    new_axes,
    new_grid,
    shortened,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pyseq.analysis.stream_analysis import Band

_MOST_POINTS = 600  # of a large picture; more cannot be seen at its width
_MOST_SMALL_POINTS = 150
_MOST_STEMS = 150
_COLUMNS = 4  # of small pictures
MOST_MULTIPLES = 24  # small pictures; with more the page is scrolled, not read
_MUCH = 20.0  # times the band's end: beyond it a linear axis shows only the largest value


@dataclass(frozen=True)
class Look:
    """How one kind of curve is drawn.

    Attributes:
        x (str): what the x axis shows, with its unit.
        y (str): what the y axis shows, with its unit.
        marks ("line" | "stems" | "steps"): how the values are drawn.
        inside (str): after "99 of 100 ", what the band means.
        base (float): where the stems stand, and a fine line is drawn.
        factor (float): what the values are multiplied by, such as 100 for percent.
        may_be_logarithmic (bool): whether values far beyond the band make the y axis logarithmic.
        doublings (bool): whether the x axis is logarithmic, by doublings.
    """

    x: str
    y: str
    marks: Literal["line", "stems", "steps"]
    inside: str = "streams of independent draws stay inside"
    base: float = 0.0
    factor: float = 1.0
    may_be_logarithmic: bool = False
    doublings: bool = False


LOOKS: Mapping[str, Look] = {
    "cumulated_spectrum": Look(
        "frequency, cycles/symbol", "share of power, less an even share", "line"
    ),
    "spectrum": Look(
        "frequency, cycles/symbol (0.5: a pattern of 2 symbols, 0.1: of 10)",
        "largest power / mean power",
        "stems",
        "streams of independent draws stay below its end",
        may_be_logarithmic=True,
    ),
    "autocorrelation": Look("distance (lag), symbols", "correlation, from -1 to 1", "stems"),
    "lag_information": Look(
        "distance (lag), symbols", "mutual information, bits", "stems", doublings=True
    ),
    "histogram": Look(
        "symbol",
        "count / expected count",
        "steps",
        "streams of the declared law stay inside",
        base=1.0,
    ),
    "lag_accuracy": Look(
        "distance (lag), symbols", "symbols equal to the earlier one, %", "stems", factor=100.0
    ),
}


def band_chart(kind: str, bands: Sequence[Band]) -> str:
    """The first curve of a kind, large, with its band; what leaves the band is marked.

    Args:
        kind (str): a key of `LOOKS`, which are the fields of `Pictures`.
        bands (sequence of Band): only the first one that has a finite point is drawn.

    Returns:
        str: an svg element; empty where no curve has a finite point.

    Raises:
        ValueError: there is no such kind.
    """
    look = _look(kind)
    drawn = [band for band in bands if _finite(band).any()]
    if not drawn:
        return ""
    axes = new_axes(3.2)
    _draw(axes, drawn[0], look, _MOST_POINTS)
    share = f"{100 * (1 - drawn[0].level):.4g} of 100"
    _name_marks(axes, drawn[0], f"{share} {look.inside}")
    axes.set_xlabel(look.x)
    axes.set_ylabel(look.y)
    return to_svg(axes, kind.replace("_", "-"))


def band_multiples(kind: str, bands: Sequence[Band]) -> str:
    """All curves of a kind but the first, each small, with its band.

    Args:
        kind (str): a key of `LOOKS`.
        bands (sequence of Band): as of `band_chart`. Of more than `MOST_MULTIPLES` others those
            are drawn that come closest to leaving their bands, or leave them furthest.

    Returns:
        str: an svg element; empty where no other curve has a finite point.

    Raises:
        ValueError: there is no such kind.
    """
    look = _look(kind)
    drawn = [band for band in bands if _finite(band).any()][1:]
    if len(drawn) > MOST_MULTIPLES:
        reach = [float(np.nanmax(_excursion(band)[_finite(band)])) for band in drawn]
        kept = sorted(np.argsort(np.negative(reach), kind="stable")[:MOST_MULTIPLES])
        drawn = [drawn[k] for k in kept]
    if not drawn:
        return ""
    columns = min(_COLUMNS, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    grid = new_grid(rows, columns, 1.35 * rows + 0.1, width=2.25 * columns)
    for axes, band in zip(grid, drawn, strict=False):
        _draw(axes, band, look, _MOST_SMALL_POINTS)
        colour = SECOND if leaves_band(band) else INK
        axes.set_title(shortened(band.name, 24), loc="left", fontsize=8, color=colour)
        axes.tick_params(labelsize=7)
        axes.locator_params(axis="x", nbins=3)
        if axes.get_yscale() == "linear":
            axes.locator_params(axis="y", nbins=3)
    for axes in grid[len(drawn) :]:
        axes.set_visible(False)
    return to_svg(grid[0], f"{kind.replace('_', '-')}-others")


def has_points(bands: Sequence[Band]) -> bool:
    """Whether any of the curves has a finite point, so that there is a picture of them."""
    return any(_finite(band).any() for band in bands)


def leaves_band(band: Band) -> bool:
    """Whether any finite point of the curve lies outside its band."""
    return bool(np.any(_excursion(band)[_finite(band)] > 1))


def _look(kind: str) -> Look:
    if kind not in LOOKS:
        raise ValueError(f"no kind of curve is called {kind!r}; there are {', '.join(LOOKS)}")
    return LOOKS[kind]


def _ends(band: Band) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both ends of the band at every point."""
    shape = np.shape(band.y)
    low = np.broadcast_to(np.asarray(band.low, dtype=np.float64), shape)
    high = np.broadcast_to(np.asarray(band.high, dtype=np.float64), shape)
    return low, high


def _finite(band: Band) -> NDArray[np.bool_]:
    return np.isfinite(band.x) & np.isfinite(band.y)


def _excursion(band: Band) -> NDArray[np.float64]:
    """How far each point lies from the band's middle, in half widths; beyond 1 it is outside."""
    low, high = _ends(band)
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.abs(band.y - (low + high) / 2) / ((high - low) / 2)
    # An end at infinity bounds nothing, and a band without width holds what lies on it.
    outside = (band.y > high) | (band.y < low)
    return np.where(np.isfinite(reach), np.where(outside, np.maximum(reach, 1 + 1e-9), reach),
                    np.where(outside, np.inf, 0.0))  # fmt: skip


def _kept(band: Band, most: int) -> NDArray[np.intp]:
    """Which points are drawn: of neighbours the one furthest out, so that none is hidden."""
    at = np.flatnonzero(_finite(band))
    if at.size <= most:
        return at
    reach = _excursion(band)[at]
    parts = np.array_split(np.arange(at.size), most)
    return at[[part[np.argmax(reach[part])] for part in parts]]


def _draw(axes: Axes, band: Band, look: Look, most: int) -> None:
    """The band, the curve, and what lies outside."""
    at = _kept(band, most)
    x, y = band.x[at], look.factor * band.y[at]
    low, high = (look.factor * end[at] for end in _ends(band))
    outside = _excursion(band)[at] > 1
    logarithmic = look.may_be_logarithmic and bool(
        y.max() > _MUCH * np.max(high, initial=0, where=np.isfinite(high)) > 0
    )
    base = look.base
    if look.doublings:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda *_: "")
        base = max(min(1.0, float(np.min(y, initial=1.0, where=y > 0))), 1e-12)
        low, y = np.maximum(low, base), np.maximum(y, base)
    _draw_band(axes, x, low, high)
    axes.axhline(base, color=LINE, linewidth=0.8)
    if look.marks == "stems" and at.size <= _MOST_STEMS:
        _draw_stems(axes, x, y, base)
    else:
        style = "steps-mid" if look.marks == "steps" and at.size <= _MOST_STEMS else "default"
        marker = "o" if at.size == 1 else ""
        axes.plot(x, y, color=MAIN, linewidth=1.3, drawstyle=style, marker=marker, ms=3, zorder=3)
    if outside.any():
        size = 12 if most == _MOST_POINTS else 5
        axes.scatter(x[outside], y[outside], s=size, color=SECOND, zorder=4)
    axes.margins(x=0.02)


def _draw_stems(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], base: float) -> None:
    """Upright bars from the base: one path, which a collection of lines would not be."""
    gaps = np.full_like(x, np.nan)
    upright = np.column_stack([x, x, gaps]).ravel()
    heights = np.column_stack([np.full_like(y, base), y, gaps]).ravel()
    axes.plot(upright, heights, color=MAIN, linewidth=min(3.0, 200 / x.size), zorder=3)


def _draw_band(
    axes: Axes, x: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> None:
    """A shaded band with fine edges, which show where it is thinner than a line."""
    if x.size == 1:  # a point has no width to shade
        half = 0.02 * abs(float(x[0])) + 0.5
        x = np.array([x[0] - half, x[0] + half])
        low, high = np.repeat(low, 2), np.repeat(high, 2)
    elif np.ptp(low) == 0 == np.ptp(high):
        x, low, high = x[[0, -1]], low[[0, -1]], high[[0, -1]]
    if (np.isfinite(low) & np.isfinite(high)).any():
        axes.fill_between(x, low, high, color=QUIET, alpha=0.28, linewidth=0)
    for end in (low, high):
        if np.isfinite(end).any():
            axes.plot(x, end, color=SOFT, linewidth=0.7)


def _name_marks(axes: Axes, band: Band, inside: str) -> None:
    """A legend for the curve, its band and, where there is any, what lies outside."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    marks: list[Line2D | Patch] = [
        Line2D([], [], color=MAIN, linewidth=1.6, label=shortened(band.name, 24)),
        Patch(facecolor=QUIET, alpha=0.28, edgecolor=SOFT, linewidth=0.7, label=inside),
    ]
    if leaves_band(band):
        marks.append(Line2D([], [], color=SECOND, linestyle="", marker="o", ms=4, label="outside"))
    add_legend(axes, handles=marks)
