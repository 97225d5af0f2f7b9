"""Whether predictions come true as often as they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from pyseq.analysis.calibration import PredictionGroup, Reliability
from pyseq.analysis.intervals import Interval, binomial_interval
from pyseq.analysis.plots.drawing import LINE, MAIN, QUIET, SOFT, new_axes, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    hits = np.rint(table.accuracy * table.count).astype(int)
    spreads = [binomial_interval(int(k), int(n)) for k, n in zip(hits, table.count, strict=True)]
    largest = max(float(table.confidence.max()), float(table.accuracy.max()))
    axes = _diagonal(min(1.0, 1.3 * max(largest, 1e-9)))
    _draw(axes, table.confidence, table.accuracy, spreads)
    axes.set_xlabel("mean confidence")
    axes.set_ylabel("accuracy")
    return to_svg(axes, "reliability")


def entropy_chart(groups: Sequence[PredictionGroup]) -> str:
    """Bits per symbol over the mean entropy of the predictions, with the diagonal.

    Args:
        groups (sequence of PredictionGroup): drawn with the intervals of their bits.

    Returns:
        str: an svg element.
    """
    entropy = np.array([group.entropy for group in groups])
    bits = np.array([group.bits.value for group in groups])
    axes = _diagonal(1.1 * max(float(entropy.max()), float(bits.max()), 1e-9))
    _draw(axes, entropy, bits, [group.bits for group in groups])
    axes.set_xlabel("mean entropy of the predictions, bits")
    axes.set_ylabel("bits/symbol")
    return to_svg(axes, "entropy")


def _diagonal(end: float) -> Axes:
    """A square with its diagonal, on which both measures agree."""
    axes = new_axes(4.2, width=4.5)
    axes.plot([0, end], [0, end], color=SOFT, linewidth=1.0, linestyle=":")
    margin = 0.02 * end
    limits = (-margin, end + margin)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.locator_params(nbins=5)
    axes.grid(color=LINE, linewidth=0.6)
    return axes


def _draw(axes: Axes, x: ArrayLike, y: ArrayLike, spreads: Sequence[Interval]) -> None:
    """Points with their intervals, where these are finite."""
    lows, highs = [spread.low for spread in spreads], [spread.high for spread in spreads]
    axes.vlines(x, lows, highs, color=QUIET, lw=1.6)
    axes.scatter(x, y, s=24, color=MAIN, zorder=3)
