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
    SOFT,
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
    side = WIDTH / (heads + 1.6)
    grid = new_grid(layers, heads + 1, layers * (side + 0.02) + 0.5, width=WIDTH)
    for k, axes in enumerate(grid):
        layer, head = divmod(k, heads + 1)
        _map(axes, shown[layer, head])
        for line in (axes.axhline, axes.axvline):
            line(prompt - 0.5, color=SOFT, linewidth=0.5, linestyle=":")
        axes.set_xlim(-0.5, length - 0.5)
        axes.set_ylim(length - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.spines[:].set_visible(True)
        axes.tick_params(length=0)
        last = layer == layers - 1
        size = min(8.0, 72 * side / length * 0.75)
        axes.set_xticks(range(length), tokens if last else [])
        axes.set_yticks(range(length), tokens if head == 0 else [])
        axes.tick_params(labelsize=size, pad=1.5)
        if layer == 0:
            axes.set_title("mean" if head == 0 else f"head {head}", fontsize=9, color=SOFT)
        if head == 0:
            axes.set_ylabel(f"layer {layer + 1}", fontsize=9, color=INK)
    return to_svg(grid[0], name)


def _map(axes: Axes, weights: NDArray[np.floating]) -> None:
    """Weights (T, T) as cells, their opacity in proportion: one path for each of 12 shades."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    levels = 12
    level = np.rint(levels * np.clip(np.nan_to_num(weights), 0, 1)).astype(int)
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (0, 0)])
    codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY]
    for shade in range(1, levels + 1):
        rows, columns = np.nonzero(level == shade)
        if rows.size == 0:
            continue
        vertices = (np.column_stack([columns, rows])[:, None] + corners).reshape(-1, 2)
        path = Path(vertices, codes * rows.size)
        axes.add_patch(PathPatch(path, facecolor=MAIN, alpha=shade / levels, linewidth=0))
