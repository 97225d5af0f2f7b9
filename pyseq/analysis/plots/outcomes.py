"""What became of prompts: which completions keep a rule, and how far the others miss it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pyseq.analysis.plots.drawing import (
    INK,
    LINE,
    MAIN,
    QUIET,
    SECOND,
    WIDTH,
    add_legend,
    new_axes,
    new_grid,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

Outcome = Literal["kept", "broken", "unfinished"]
# Shapes differ too, for those who see no difference between the colours.
_LOOKS: dict[Outcome, tuple[str, float, float, str]] = {
    "kept": (MAIN, 0.9, 0.86, "rule 1 kept"),
    "broken": (SECOND, 0.9, 0.3, "rule 1 broken"),
    "unfinished": (QUIET, 0.34, 0.34, "never finished"),
}
_SHADES = 12  # of attention; weights below a 24th are left blank
_COLUMNS = 64  # prompts beside one another; at 9 inches their letters can still be read


def outcome_chart(
    prompts: Sequence[str], outcomes: Sequence[Sequence[Outcome]], rows: Sequence[str]
) -> str:
    """A cell for each prompt and seed, in as many bands as it takes.

    Args:
        prompts (sequence of P str): from left to right, then in the next band.
        outcomes (sequence of R sequences of P of "kept", "broken", "unfinished"): for each seed.
        rows (sequence of R str): what the rows are called.

    Returns:
        str: an svg element; empty without a prompt or a row.
    """
    if not prompts or not rows:
        return ""
    columns = min(_COLUMNS, len(prompts))
    bands = math.ceil(len(prompts) / columns)
    height = bands * (0.15 * len(rows) + 0.12 + 0.065 * max(map(len, prompts))) + 0.4
    width = min(WIDTH, 1.6 + 0.125 * max(columns, 24))
    grid = new_grid(bands, 1, height, width=width)
    for band, axes in enumerate(grid):
        part = slice(band * columns, (band + 1) * columns)
        _cells(axes, [row[part] for row in outcomes])
        names = prompts[part]
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.tick_params(axis="x", labelsize=6.5, pad=1)
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(axis="y", labelsize=7)
        axes.tick_params(length=0)
        axes.set_xlim(-0.6, columns - 0.4)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.spines[:].set_visible(False)
    add_legend(grid[0], handles=_legend())
    return to_svg(grid[0], "outcomes")


def _cells(axes: Axes, outcomes: Sequence[Sequence[Outcome]]) -> None:
    """One path for all cells of an outcome."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY]
    for kind, (colour, width, height, _) in _LOOKS.items():
        found = [(x, y) for y, row in enumerate(outcomes) for x, o in enumerate(row) if o == kind]
        if not found:
            continue
        w, h = width / 2, height / 2
        corners = np.array([(-w, -h), (w, -h), (w, h), (-w, h), (0, 0)])
        vertices = (np.array(found, dtype=float)[:, None] + corners).reshape(-1, 2)
        axes.add_patch(PathPatch(Path(vertices, codes * len(found)), facecolor=colour, lw=0))


def _legend() -> list[Artist]:
    from matplotlib.patches import Patch

    return [Patch(facecolor=colour, label=text) for colour, _, _, text in _LOOKS.values()]


def balance_chart(differences: Sequence[int], title: str) -> str:
    """How many finished completions miss a balance by how much.

    Args:
        differences (sequence of int): one for each completion; 0 is balanced.
        title (str): what the difference is, such as "#a - #b".

    Returns:
        str: an svg element; empty without a completion.
    """
    if not differences:
        return ""
    values, counts = np.unique(np.asarray(differences, dtype=np.int64), return_counts=True)
    axes = new_axes(2.4)
    colours = [MAIN if value == 0 else SECOND for value in values]
    axes.bar(values, counts, width=0.84, color=colours)
    reach = max(4, int(np.abs(values).max()))
    axes.set_xlim(-reach - 0.6, reach + 0.6)
    axes.set_xlabel(f"{title} of prompt and completion; 0 is balanced")
    axes.set_ylabel("completions")
    axes.locator_params(integer=True)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    return to_svg(axes, "balance")


def attention_maps(weights: NDArray[np.floating], tokens: str, name: str, *, prompt: int) -> str:
    """Where each layer looks: its heads' mean first, then head by head.

    Args:
        weights (array (L, H, T, T), float): of layer, head, query and key, in [0, 1].
        tokens (str of T characters): what was read.
        name (str): what the ids of the picture begin with.
        prompt (int): how many of the tokens were given; a fine line parts them from the others.

    Returns:
        str: an svg element; empty without a layer.
    """
    if weights.size == 0:
        return ""
    layers, heads, length, _ = weights.shape
    shown = np.concatenate([weights.mean(1, keepdims=True), weights], axis=1)  # (L, 1 + H, T, T)
    # All maps share one pair of axes: a pair for each would take seconds to lay out.
    pitch = length + 1.0 + length / 12
    side = (WIDTH - 0.5) / (heads + 1)  # inches from map to map
    axes = new_axes(layers * side + 0.5)
    _cells_of_maps(axes, shown, pitch)
    low, high = -0.5, length - 0.5
    x = np.array([low, high, high, low, low, np.nan, low, high, np.nan, *[prompt - 0.5] * 2])
    y = np.array([low, low, high, high, low, np.nan, *[prompt - 0.5] * 2, np.nan, low, high])
    down, right = np.divmod(np.arange(layers * (heads + 1)), heads + 1)
    for parts, style in ((slice(0, 5), "-"), (slice(6, None), ":")):
        # NaN between the maps lifts the pen.
        frames_x = [np.append(x[parts] + pitch * k, np.nan) for k in right]
        frames_y = [np.append(y[parts] + pitch * k, np.nan) for k in down]
        axes.plot(np.concatenate(frames_x), np.concatenate(frames_y), color=QUIET, lw=0.6, ls=style)
    size = min(8.0, 72 * side / pitch * 0.8)
    place = np.arange(length)
    axes.set_yticks(np.concatenate([place + pitch * k for k in range(layers)]), [*tokens] * layers)
    axes.set_xticks(
        np.concatenate([place + pitch * k for k in range(heads + 1)]), [*tokens] * (heads + 1)
    )
    axes.tick_params(labelsize=size, length=0, pad=1.5)
    for k in range(layers):
        axes.text(
            -0.035, pitch * k + length / 2, f"layer {k + 1}", transform=axes.get_yaxis_transform(),
            rotation=90, ha="right", va="center", fontsize=9, color=INK,
        )  # fmt: skip
    for k in range(heads + 1):
        name_of = "mean" if k == 0 else f"head {k}"
        axes.text(pitch * k + length / 2, -1.0, name_of, ha="center", fontsize=9, color=INK)
    axes.set_xlim(-1, heads * pitch + length)
    axes.set_ylim((layers - 1) * pitch + length, -1)
    axes.spines[:].set_visible(False)
    return to_svg(axes, name)


def _cells_of_maps(axes: Axes, weights: NDArray[np.floating], pitch: float) -> None:
    """Weights (L, H, T, T) as cells, their opacity in proportion: one path for each shade."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    level = np.rint(_SHADES * np.clip(np.nan_to_num(weights), 0, 1)).astype(int)
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (0, 0)])
    codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY]
    for shade in range(1, _SHADES + 1):
        layer, head, query, key = np.nonzero(level == shade)
        if layer.size == 0:
            continue
        centres = np.column_stack([key + pitch * head, query + pitch * layer])
        path = Path((centres[:, None] + corners).reshape(-1, 2), codes * layer.size)
        axes.add_patch(PathPatch(path, facecolor=MAIN, alpha=shade / _SHADES, linewidth=0))
