"""What the charts draw, read from the coordinates and the text of their svg."""

import re

import numpy as np
import pytest

from pyseq.analysis.intervals import Interval
from pyseq.analysis.plots import (
    attention_chart,
    bits_chart,
    confusion_chart,
    grouped_bits_chart,
    step_chart,
)
from tests.analysis.evaluations import CEILING


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>(.*?)</text>", svg)


def cells(svg: str) -> dict[float, int]:
    """How many cells have each opacity, the strip of the colour scale left out."""
    found: dict[float, int] = {}
    paths = re.findall(r'<path d="([^"]*)"[^>]*style="fill: var\(--main\)([^"]*)"', svg)
    for path, style in paths:
        opacity = re.search(r"opacity: ([\d.]+)", style)
        key = float(opacity[1]) if opacity else 1.0
        found[key] = found.get(key, 0) + path.count("z")
    for shade in np.arange(1, 25) / 24:
        [key] = [k for k in found if k == pytest.approx(shade, abs=1e-6)]
        found[key] -= 1
    return {round(24 * key): count for key, count in found.items() if count}


def test_confusions_are_shaded_in_proportion_to_the_rows_shares():
    shares = [[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.0, 0.0, np.nan]]
    svg = confusion_chart(shares, ["a", "b", "c"], "c")
    assert cells(svg) == {12: 1, 6: 2, 24: 1}
    assert svg.count("stroke: var(--second)") == 3  # frames of the diagonal
    assert "100 %" in texts(svg)


def test_whiskers_end_inside_the_axes():
    """The longest one belongs to the longest bar, with nothing drawn further to the right."""
    wide = Interval(4.0, 3.0, 5.0)
    for svg in (
        grouped_bits_chart([("next", Interval(2.0, 1.9, 2.1), wide)], "g"),
        bits_chart([("model", Interval(9.0, 8.0, 10.0))], CEILING, highlight="model"),
    ):
        drawn = re.findall(r'<path d="([^"]*)" clip-path', svg)
        ends = [float(x) for path in drawn for x in re.findall(r"L ([\d.]+) ", path)]
        [clip] = set(re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg))
        assert max(ends) < sum(map(float, clip)) + 0.5


def test_the_scale_of_small_shares_ends_near_the_largest():
    svg = confusion_chart(np.full((4, 4), 0.04), list("abcd"), "c")
    assert "5 %" in texts(svg)
    assert cells(svg) == {20: 16}  # 0.04 / 0.05 of 24, rounded up


def test_many_bins_have_labels_that_can_be_read():
    labels = [str(1000 * k) for k in range(64)]
    shown = [label for label in texts(confusion_chart(np.eye(64), labels, "c")) if label in labels]
    assert len(shown) <= 2 * 16
    assert shown[:2] == ["0", "4000"]


def test_attention_has_a_cell_for_each_head_and_band():
    rows = [("block 1", "head 1"), ("block 1", "head 2"), ("even weights", "")]
    shares = [[1.0, 0.0], [0.5, 0.25], [0.5, 0.5]]
    beside = ("memory", [0.0, 0.25, 0.0])
    svg = attention_chart(shares, ["0", "1"], rows, unit="patches", name="a", beside=beside)
    assert cells(svg) == {24: 1, 12: 3, 6: 2}
    found = texts(svg)
    for expected in ("block 1, head 1", "head 2", "even weights", "memory"):
        assert expected in found
    assert "distance back, patches" in found
    assert attention_chart([], [], [], unit="symbols", name="a") == ""


def test_many_heads_are_named_by_their_layers_only():
    rows = [(f"block {k // 16}", f"head {k % 16}") for k in range(128)]
    svg = attention_chart(np.full((128, 9), 0.1), list("abcdefghi"), rows, unit="symbols", name="a")
    named = [text for text in texts(svg) if "head" in text and "weight" not in text]
    assert named == [f"block {k}, head 0" for k in range(8)]


def test_groups_stand_beside_the_marginal_and_their_ceilings():
    groups = [("next symbol", Interval(2.0, 1.8, 2.2), 4.0), ("2 ahead", 3.0, 4.0)]
    svg = grouped_bits_chart(groups, "heads", ceilings=[3.5, 3.5])
    for expected in ("2.0000", "3.0000", "next symbol", "2 ahead", "independent symbols allow"):
        assert expected in texts(svg)
    assert texts(svg).count("4.0000") == 2
    main = re.findall(r'<path d="([^"]*)"[^>]*style="fill: var\(--main\)"', svg)
    lengths = [np.ptp([float(n) for n in re.findall(r"[ML] ([\d.]+) ", path)]) for path in main[:2]]
    assert lengths[1] / lengths[0] == pytest.approx(1.5, abs=0.01)
    assert "independent symbols allow" not in texts(grouped_bits_chart(groups, "heads"))
    assert grouped_bits_chart([], "heads") == ""


def test_long_names_keep_their_ends():
    name = "a very long name of a predictor whose settings are all spelled out: beta"
    svg = bits_chart([("model", 2.0), (name, 3.0)], CEILING, highlight="model")
    [shown] = [text for text in texts(svg) if text.startswith("a very")]
    assert len(shown) < 45
    assert shown.endswith("out: beta")


def test_a_quantity_that_no_row_has_is_not_drawn():
    curve = [{"step": 1, "lr": None}, {"step": 2, "memory_mib": 5.0}]
    assert step_chart(curve, "lr", "learning rate") == ""
    assert "peak memory, MiB" in texts(step_chart(curve, "memory_mib", "peak memory, MiB"))
