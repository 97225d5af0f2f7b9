"""Bars of bits per symbol: beside the baselines, and for each head or scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pyseq.analysis.ceilings import Ceiling
from pyseq.analysis.intervals import Interval
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

Bits = Interval | float


def bits_chart(rows: Sequence[tuple[str, Bits]], ceiling: Ceiling, *, highlight: str) -> str:
    """Horizontal bars of bits per symbol, with intervals and the ceiling's lines.

    Args:
        rows (sequence of (name, Interval or float)): bits per symbol, drawn from top to bottom.
        ceiling (Ceiling): drawn as a line at its bits, and a fainter one at uniform_bits.
        highlight (str): the name whose bar takes the main colour.

    Returns:
        str: an svg element.
    """
    axes = new_axes(0.34 * len(rows) + 0.95)
    values = [value_of(bits) for _, bits in rows]
    colours = [MAIN if name == highlight else QUIET for name, _ in rows]
    axes.barh(np.arange(len(rows)), values, height=0.62, color=colours)
    for y, (_, bits) in enumerate(rows):
        _whisker(axes, y, bits)
        _number(axes, y, bits)
    even = f"guessing evenly {ceiling.uniform_bits:.4f}"
    axes.axvline(ceiling.uniform_bits, color=SOFT, linewidth=1.2, linestyle=":", label=even)
    allowed = f"{ceiling.allowance} {ceiling.bits:.4f}"
    axes.axvline(ceiling.bits, color=SECOND, linewidth=1.4, linestyle="--", label=allowed)
    ends = [_end_of(bits) for _, bits in rows]
    axes.set_xlim(0, 1.03 * max(*ends, ceiling.uniform_bits, 1e-9))
    _finish(axes, [name for name, _ in rows])
    return to_svg(axes, "bits")


def grouped_bits_chart(
    groups: Sequence[tuple[str, Bits, Bits]],
    name: str,
    *,
    ceilings: Sequence[float] | None = None,
) -> str:
    """For each group the model's bits per symbol above the marginal's.

    Args:
        groups (sequence of (name, Interval or float, Interval or float)): of each group the bits
            per symbol of the model and of the marginal, drawn from top to bottom.
        name (str): what the ids of the picture begin with.
        ceilings (sequence of float or None): bits per symbol that independent symbols allow, one
            for each group, drawn as a line across its bars.

    Returns:
        str: an svg element; empty without a group.
    """
    if not groups:
        return ""
    axes = new_axes(0.58 * len(groups) + 0.95)
    at = np.arange(len(groups))
    sides = (("model", MAIN, [of for _, of, _ in groups]),
             ("marginal", QUIET, [of for _, _, of in groups]))  # fmt: skip
    for above, (label, colour, bits) in zip((-0.18, 0.18), sides, strict=True):
        axes.barh(at + above, [value_of(b) for b in bits], height=0.32, color=colour, label=label)
        for y, found in zip(at + above, bits, strict=True):
            _whisker(axes, y, found)
            _number(axes, y, found)
    if ceilings is not None:
        label = "independent symbols allow"
        axes.vlines(ceilings, at - 0.42, at + 0.42, color=SECOND, lw=1.6, ls="--", label=label)
    shown = [_end_of(bits) for _, *both in groups for bits in both]
    axes.set_xlim(0, 1.03 * max(*shown, *(ceilings or ()), 1e-9))
    _finish(axes, [group[0] for group in groups])
    return to_svg(axes, name)


def code_length_chart(
    rows: Sequence[tuple[str, Bits]],
    lines: Sequence[tuple[str, float]],
    name: str,
    *,
    highlight: int = 0,
) -> str:
    """Horizontal bars of what predictors and compressors needed, with levels to compare with.

    Args:
        rows (sequence of (name, Interval or float)): bits/symbol, drawn from top to bottom; those
            that are not finite are left out.
        lines (sequence of (name, float)): levels in bits/symbol, such as the alphabet's log2.
        name (str): what the ids of the picture begin with.
        highlight (int): how many rows, from the top, take the main colour.

    Returns:
        str: an svg element; empty without a row.
    """
    coloured = [(*row, MAIN if k < highlight else QUIET) for k, row in enumerate(rows)]
    coloured = [row for row in coloured if math.isfinite(value_of(row[1]))]
    if not coloured:
        return ""
    axes = new_axes(0.34 * len(coloured) + 0.95 + 0.2 * len(lines[::2]))
    values = [value_of(bits) for _, bits, _ in coloured]
    at = np.arange(len(coloured))
    axes.barh(at, values, height=0.62, color=[colour for *_, colour in coloured])
    for y, (_, bits, _) in enumerate(coloured):
        _whisker(axes, y, bits)
        _number(axes, y, bits)
    styles = ((SECOND, "--"), (SOFT, ":"), (INK, "-."))
    for (label, level), (colour, style) in zip(lines, styles, strict=False):
        axes.axvline(
            level, color=colour, linewidth=1.3, linestyle=style, label=f"{label} {level:.4f}"
        )
    ends = [_end_of(bits) for _, bits, _ in coloured]
    axes.set_xlim(0, 1.03 * max(*ends, *(level for _, level in lines), 1e-9))
    _finish(axes, [row for row, *_ in coloured], columns=2)
    return to_svg(axes, name)


def value_of(bits: Bits) -> float:
    """The estimate without its interval."""
    return bits.value if isinstance(bits, Interval) else bits


def _end_of(bits: Bits) -> float:
    """How far to the right it is drawn."""
    if isinstance(bits, Interval) and math.isfinite(bits.high):
        return bits.high
    return value_of(bits)


def _whisker(axes: Axes, y: float, bits: Bits) -> None:
    """The interval, where there is a finite one."""
    if isinstance(bits, Interval) and 0 < bits.half_width < math.inf:
        axes.plot([bits.low, bits.high], [y, y], color=INK, linewidth=1.6)


def _number(axes: Axes, y: float, bits: Bits) -> None:
    """The estimate in figures, right of the axes."""
    beside = axes.get_yaxis_transform()
    text = f"{value_of(bits):.4f}"
    axes.text(1.01, y, text, va="center", fontsize=9, color=INK, transform=beside)


def _finish(axes: Axes, names: Sequence[str], columns: int = 3) -> None:
    """Names, from top to bottom, legend and the axis of bits."""
    axes.set_yticks(np.arange(len(names)), [shortened(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    add_legend(axes, columns=columns)
    axes.set_xlabel("bits/symbol, less is better")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
