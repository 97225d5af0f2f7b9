"""Charts as inline SVG that takes its colours and font from the page it stands in.

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

from pyseq.analysis.calibration import Reliability
from pyseq.analysis.ceilings import Ceiling
from pyseq.analysis.intervals import Interval, binomial_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that nobody would choose, each standing for a CSS variable.
_INK, _SOFT, _LINE, _MAIN, _SECOND, _QUIET = (f"#0101{k:02x}" for k in range(6))
_VARIABLES = {
    _INK: "var(--ink)",
    _SOFT: "var(--soft)",
    _LINE: "var(--line)",
    _MAIN: "var(--main)",
    _SECOND: "var(--second)",
    _QUIET: "var(--quiet)",
}
_WIDTH = 9.0  # inches at 72 points: 648 units of the view box
_MOST_POINTS = 600  # of a curve; more cannot be seen at this width


def bits_chart(
    rows: Sequence[tuple[str, Interval | float]], ceiling: Ceiling, *, highlight: str
) -> str:
    """Horizontal bars of bits per symbol, with intervals and the ceiling's lines.

    Args:
        rows (sequence of (name, Interval or float)): bits per symbol, drawn from top to bottom.
        ceiling (Ceiling): drawn as a line at its bits, and a fainter one at uniform_bits.
        highlight (str): the name whose bar takes the main colour.

    Returns:
        str: an svg element.
    """
    estimates = [_as_interval(value) for _, value in rows]
    figure = _figure(0.34 * len(rows) + 0.95)
    axes = figure.subplots()
    at = np.arange(len(rows))
    values = np.array([estimate.value for estimate in estimates])
    colours = [_MAIN if name == highlight else _QUIET for name, _ in rows]
    axes.barh(at, values, height=0.62, color=colours)
    furthest = max(float(values.max()), ceiling.uniform_bits, 1e-9)
    beside = axes.get_yaxis_transform()
    for y, estimate in enumerate(estimates):
        if math.isfinite(estimate.half_width) and estimate.half_width > 0:
            axes.plot([estimate.low, estimate.high], [y, y], color=_INK, linewidth=1.6)
        axes.text(1.01, y, f"{estimate.value:.4f}", va="center", color=_INK, transform=beside)
    axes.set_yticks(at, [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.03 * furthest)
    even = f"guessing evenly {ceiling.uniform_bits:.4f}"
    axes.axvline(ceiling.uniform_bits, color=_SOFT, linewidth=1.2, linestyle=":", label=even)
    allowed = f"{ceiling.allowance} {ceiling.bits:.4f}"
    axes.axvline(ceiling.bits, color=_SECOND, linewidth=1.4, linestyle="--", label=allowed)
    _legend(axes)
    axes.set_xlabel("bits/symbol, less is better")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=_INK)
    axes.grid(axis="x", color=_LINE, linewidth=0.6)
    return _svg(figure, "bits")


def loss_chart(
    curve: Sequence[Mapping[str, Any]],
    ceiling: Ceiling,
    rows: Sequence[tuple[str, Interval | float]],
    model_name: str,
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
    train, validation = _series(curve, "train_bits"), _series(curve, "val_bits")
    if train.size == 0 and validation.size == 0:
        return ""
    figure = _figure(3.6)
    axes = figure.subplots()
    if train.size:
        x, y = _thinned(train)
        axes.plot(x, y, color=_QUIET, linewidth=1.2, label="training")
    if validation.size:
        x, y = _thinned(validation)
        marker = "o" if x.size <= 40 else ""
        axes.plot(x, y, color=_MAIN, linewidth=1.8, marker=marker, ms=3.5, label="validation")
    axes.axhline(
        ceiling.bits,
        color=_SECOND,
        linewidth=1.4,
        linestyle="--",
        label=f"{ceiling.allowance} {ceiling.bits:.4f}",
    )
    # A baseline above the curve, as xz on noise, would only flatten it; the bars show it.
    top = max([ceiling.bits, *train[:, 1], *validation[:, 1]])
    levels = [(name, _as_interval(value).value) for name, value in rows if name != model_name]
    levels = [(name, level) for name, level in levels if level <= top]
    for _, level in levels:
        axes.axhline(level, color=_SOFT, linewidth=0.9, linestyle=":")
    _label_levels(axes, levels)
    _legend(axes)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("bits/symbol")
    axes.grid(axis="y", color=_LINE, linewidth=0.6)
    return _svg(figure, "loss")


def speed_chart(curve: Sequence[Mapping[str, Any]]) -> str:
    """Learning rate and speed over steps, side by side.

    Args:
        curve (sequence of mappings): rows with step, and lr or symbols_per_second or both.

    Returns:
        str: an svg element; empty where no row has either.
    """
    panels = [
        (title, _series(curve, key))
        for key, title in (("lr", "learning rate"), ("symbols_per_second", "tokens per second"))
    ]
    panels = [(title, points) for title, points in panels if points.size]
    if not panels:
        return ""
    figure = _figure(1.9)
    for axes, (title, points) in zip(figure.subplots(1, 2, squeeze=False)[0], panels, strict=False):
        x, y = _thinned(points)
        axes.plot(x, y, color=_MAIN, linewidth=1.4)
        axes.set_title(title, loc="left", fontsize=10, color=_SOFT)
        axes.set_ylim(0, 1.08 * max(float(y.max()), 1e-12))
        axes.set_xlabel("optimiser step")
        axes.grid(axis="y", color=_LINE, linewidth=0.6)
    for axes in figure.axes[len(panels) :]:
        axes.set_visible(False)
    return _svg(figure, "speed")


def reliability_chart(table: Reliability) -> str:
    """Accuracy over confidence, with the diagonal of perfect calibration.

    The axes end a little past the largest value, so that a model whose confidences are all near
    one in a thousand is seen as well as one that is sure.

    Args:
        table (Reliability): the groups; each with its exact 95 % interval, had the predictions
            been independent.

    Returns:
        str: an svg element.
    """
    figure = _figure(4.2, width=4.5)
    axes = figure.subplots()
    end = min(1.0, 1.3 * max(float(table.confidence.max()), float(table.accuracy.max()), 1e-9))
    axes.plot([0, end], [0, end], color=_SOFT, linewidth=1.0, linestyle=":")
    hits = np.rint(table.accuracy * table.count).astype(int)
    spreads = [binomial_interval(int(k), int(n)) for k, n in zip(hits, table.count, strict=True)]
    lows, highs = [spread.low for spread in spreads], [spread.high for spread in spreads]
    axes.vlines(table.confidence, lows, highs, color=_QUIET, lw=1.6)
    axes.scatter(table.confidence, table.accuracy, s=24, color=_MAIN, zorder=3)
    margin = 0.02 * end
    axes.set(xlim=(-margin, end + margin), ylim=(-margin, end + margin), aspect="equal")
    axes.locator_params(nbins=5)
    axes.set_xlabel("mean confidence")
    axes.set_ylabel("accuracy")
    axes.grid(color=_LINE, linewidth=0.6)
    return _svg(figure, "reliability")


def _as_interval(value: Interval | float) -> Interval:
    return value if isinstance(value, Interval) else Interval(value, value, value)


def _series(curve: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    """The rows that have the key, as (N, 2) of step and value; what is not finite is left out."""
    points = np.array(
        [(row["step"], row[key]) for row in curve if row.get(key) is not None], dtype=np.float64
    ).reshape(-1, 2)
    return points[np.isfinite(points).all(axis=1)]


def _thinned(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values, averaged over neighbours where there are more than can be seen."""
    every = math.ceil(len(points) / _MOST_POINTS)
    starts = np.arange(0, len(points), every)
    sizes = np.diff(starts, append=len(points))[:, None]
    means = np.add.reduceat(points, starts, axis=0) / sizes
    return means[:, 0], means[:, 1]


def _label_levels(axes: Axes, levels: list[tuple[str, float]]) -> None:
    """Names in the right margin, moved apart where levels lie too close to be told apart."""
    low, high = axes.get_ylim()
    gap = 0.055 * (high - low)
    at = -math.inf
    for name, level in sorted(levels, key=lambda pair: pair[1]):
        at = max(level, at + gap)
        axes.annotate(
            f"{name} {level:.3f}",
            xy=(1, level),
            xytext=(1.015, at),
            xycoords=axes.get_yaxis_transform(),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=9,
            color=_SOFT,
        )


def _legend(axes: Axes) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=3,
        frameon=False,
        labelcolor=_INK,
        borderaxespad=0.3,
        handlelength=1.8,
    )


def _figure(height: float, *, width: float = _WIDTH) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Figure, name: str) -> str:
    """The figure as an svg element whose ids begin with `name` and whose colours are variables."""
    from matplotlib import rc_context

    for axes in figure.axes:
        axes.set_facecolor("none")
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for spine in axes.spines.values():
            spine.set_color(_LINE)
        axes.tick_params(color=_LINE, labelcolor=_SOFT, labelsize=9)
        axes.xaxis.label.set_color(_SOFT)
        axes.yaxis.label.set_color(_SOFT)
        for label in (*axes.texts, *axes.get_yticklabels()):
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
    svg = re.sub(r"font-family:[^;\"]*;", "font-family: inherit;", svg)
    svg = svg.replace("xlink:href=", "href=")
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg
