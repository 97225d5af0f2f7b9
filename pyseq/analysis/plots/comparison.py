"""Our shares beside published ones, with their spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pyseq.analysis.plots.drawing import (
    INK,
    LINE,
    MAIN,
    QUIET,
    SECOND,
    add_legend,
    new_axes,
    shortened,
    to_svg,
)


class Mark(NamedTuple):
    """One line of the picture.

    Attributes:
        name (str): what stands beside it.
        ours (tuple of two floats or None): mean and standard deviation, shares from 0 to 1.
        published (tuple of two floats or None): the same of the paper.
        second (float or None): our mean by another selection.
    """

    name: str
    ours: tuple[float, float] | None
    published: tuple[float, float] | None
    second: float | None = None


def comparison_chart(marks: Sequence[Mark], chance: float | None, name: str) -> str:
    """Means and deviations over seeds, ours and published, from top to bottom.

    Args:
        marks (sequence of Mark): what is drawn.
        chance (float or None): a share drawn as a line across all.
        name (str): what the ids of the picture begin with.

    Returns:
        str: an svg element; empty without a mark.
    """
    if not marks:
        return ""
    axes = new_axes(0.36 * len(marks) + 1.2)
    if chance is not None:
        axes.axvline(chance, color=SECOND, lw=1.2, ls="--", label=f"chance {chance:.3f}")
    kinds = (
        ("published", QUIET, "s", 0.16, [mark.published for mark in marks]),
        ("ours, best over history", MAIN, "o", -0.16, [mark.ours for mark in marks]),
    )
    for label, colour, shape, shift, pairs in kinds:
        drawn = [(k + shift, *pair) for k, pair in enumerate(pairs) if pair is not None]
        if drawn:
            y, means, deviations = np.transpose(drawn)
            # A share lies between 0 and 1, which mean and deviation do not know.
            ends = [
                means - np.clip(means - deviations, 0, 1),
                np.clip(means + deviations, 0, 1) - means,
            ]
            axes.errorbar(means, y, xerr=ends, fmt=shape, color=colour, ms=5, lw=1.6, label=label)
    seconds = [(mark.second, k - 0.16) for k, mark in enumerate(marks) if mark.second is not None]
    if seconds:
        x, y = np.transpose(seconds)
        axes.plot(x, y, "|", color=INK, ms=9, mew=1.6, label="ours, at least loss")
    axes.set_yticks(range(len(marks)), [shortened(mark.name) for mark in marks])
    axes.set_ylim(len(marks) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("OOD R1: share of finished completions that keep the first rule")
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    add_legend(axes, columns=2)  # names on the left take room from the third
    return to_svg(axes, name)
