"""What changes over the steps of a training: loss, learning rate, speed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyseq.analysis.ceilings import Ceiling
from pyseq.analysis.plots.bars import Bits, value_of
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
    shortened,
    thinned,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = Sequence[Mapping[str, Any]]


def loss_chart(
    curve: Curve, ceiling: Ceiling, rows: Sequence[tuple[str, Bits]], model_name: str
) -> str:
    """Training and validation loss over steps, against the ceiling and the baselines.

    Args:
        curve (sequence of mappings): rows with step, and train_bits or val_bits or both.
        ceiling (Ceiling): drawn as a line.
        rows (sequence of (name, Interval or float)): bits per symbol of baselines, drawn as lines.
        model_name (str): the entry of `rows` that is the model itself and is left out.

    Returns:
        str: an svg element; empty where no row has a loss.
    """
    train, validation = series(curve, "train_bits"), series(curve, "val_bits")
    if train.size == 0 and validation.size == 0:
        return ""
    axes = new_axes(3.6)
    if train.size:
        x, y = thinned(train)
        axes.plot(x, y, color=QUIET, linewidth=1.2, label="training")
    if validation.size:
        x, y = thinned(validation)
        marker = "o" if x.size <= 40 else ""
        axes.plot(x, y, color=MAIN, linewidth=1.8, marker=marker, ms=3.5, label="validation")
    axes.axhline(
        ceiling.bits,
        color=SECOND,
        linewidth=1.4,
        linestyle="--",
        label=f"{ceiling.allowance} {ceiling.bits:.4f}",
    )
    # A baseline above the curve, as xz on noise, would only flatten it; the bars show it.
    top = max([ceiling.bits, *train[:, 1], *validation[:, 1]])
    levels = [(name, value_of(value)) for name, value in rows if name != model_name]
    levels = [(name, level) for name, level in levels if level <= top]
    for _, level in levels:
        axes.axhline(level, color=SOFT, linewidth=0.9, linestyle=":")
    _label_levels(axes, levels)
    add_legend(axes)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("bits/symbol")
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    return to_svg(axes, "loss")


def step_chart(curve: Curve, key: str, title: str, *, width: float = WIDTH / 2) -> str:
    """One quantity of a training over its steps, from zero.

    Args:
        curve (sequence of mappings): rows with step and, some of them, the key.
        key (str): of the quantity; what the ids of the picture begin with.
        title (str): its name with its unit.
        width (float): inches of 72 units; the page has room for 9 of them.

    Returns:
        str: an svg element; empty where no row has the key.
    """
    points = series(curve, key)
    if points.size == 0:
        return ""
    axes = new_axes(1.9, width=width)
    x, y = thinned(points)
    marker = "o" if x.size == 1 else ""
    axes.plot(x, y, color=MAIN, linewidth=1.4, marker=marker, ms=3.5)
    axes.set_title(title, loc="left", fontsize=10, color=SOFT)
    axes.set_ylim(0, 1.08 * max(float(y.max()), 1e-12))
    axes.locator_params(axis="y", nbins=5)
    axes.set_xlabel("optimiser step")
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    return to_svg(axes, key.replace("_", "-"))


def _label_levels(axes: Axes, levels: list[tuple[str, float]]) -> None:
    """Names in the right margin, moved apart where levels lie too close to be told apart."""
    low, high = axes.get_ylim()
    gap = 0.055 * (high - low)
    at = -math.inf
    for name, level in sorted(levels, key=lambda pair: pair[1]):
        at = max(level, at + gap)
        axes.annotate(
            f"{shortened(name)} {level:.3f}",
            xy=(1, level),
            xytext=(1.015, at),
            xycoords=axes.get_yaxis_transform(),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=9,
            color=SOFT,
        )
