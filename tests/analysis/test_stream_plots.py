"""What the charts of a stream draw, read from the coordinates and the text of their svg."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from pyseq.analysis.intervals import Interval
from pyseq.analysis.plots import (
    band_chart,
    band_multiples,
    code_length_chart,
    evidence_chart,
    has_points,
    leaves_band,
    p_value_chart,
)
from pyseq.analysis.plots.bands import LOOKS, MOST_MULTIPLES
from pyseq.analysis.plots.evidence import MOST_ROWS, count_in_words
from pyseq.analysis.stream_analysis import Pictures
from tests.analysis.stream_analyses import band
from tests.analysis.test_plots import texts


def marked(svg: str) -> int:
    """How many points are marked in the colour of what lies outside, the legend's left out."""
    uses = re.findall(r"<use [^>]*>", svg)
    found = sum("fill: var(--second)" in use for use in uses)
    return found - ("outside" in texts(svg))


def test_every_picture_has_a_look():
    assert set(LOOKS) == set(Pictures.__dataclass_fields__)
    with pytest.raises(ValueError, match="no kind of curve is called 'spectra'; there are"):
        band_chart("spectra", [])


@pytest.mark.parametrize("kind", LOOKS)
def test_what_leaves_the_band_is_marked_and_named(kind):
    values = np.full(64, 0.001)
    inside = band_chart(kind, [band("symbols", values, 0.01)])
    assert "outside" not in texts(inside)
    assert marked(inside) == 0
    assert "symbols" in texts(inside)
    assert sum(text.startswith("99 of 100 streams of") for text in texts(inside)) == 1
    values[[3, 40]] = 0.05
    found = band_chart(kind, [band("symbols", values, 0.01)])
    assert "outside" in texts(found)
    assert marked(found) == 2
    assert LOOKS[kind].x in texts(found)
    assert LOOKS[kind].y in texts(found)


def test_thinning_hides_no_point_that_lies_outside():
    values = np.zeros(100_000)
    values[77_777] = 1.0
    for svg in (
        band_chart("cumulated_spectrum", [band("symbols", values, 0.1)]),
        band_multiples("cumulated_spectrum", [band("a", [0.0], 0.1), band("b", values, 0.1)]),
    ):
        assert marked(svg) == 1
        assert len(svg) < 60_000


def test_a_line_far_above_the_band_gets_a_logarithmic_axis():
    values = np.full(100, 5.0)
    values[20] = 5000.0
    assert "1000" in texts(band_chart("spectrum", [band("s", values, 17.0, low=0.0)]))
    values[20] = 30.0
    assert "30" in texts(band_chart("spectrum", [band("s", values, 17.0, low=0.0)]))
    # Nor where the values are no powers.
    assert "0.10" in texts(band_chart("autocorrelation", [band("s", [0.0, 0.1], 1e-4)]))


@pytest.mark.parametrize(
    ("y", "low", "high", "leaves"),
    [
        ([0.0, 0.5], -1.0, 1.0, False),
        ([0.0, -1.5], -1.0, 1.0, True),
        ([5.0], -np.inf, 1.0, True),
        ([-5.0], -np.inf, 1.0, False),
        ([1.0], 1.0, 1.0, False),
        ([1.1], 1.0, 1.0, True),
        ([np.nan, 0.0], -1.0, 1.0, False),
        ([np.inf], -1.0, 1.0, False),  # no point that can be drawn
        ([], -1.0, 1.0, False),
        ([0.5, 2.0], np.array([0.0, 1.0]), np.array([1.0, 3.0]), False),
        ([1.5, 2.0], np.array([0.0, 1.0]), np.array([1.0, 3.0]), True),
    ],
)
def test_a_curve_leaves_its_band(y, low, high, leaves):
    curve = replace(band("s", y, 1.0), low=low, high=high)
    assert leaves_band(curve) == leaves
    svg = band_chart("autocorrelation", [curve])
    assert bool(svg) == has_points([curve]) == bool(np.isfinite(y).any())
    assert "NaN" not in svg
    assert "nan" not in re.sub(r"<text.*?</text>", "", svg)
    assert "inf" not in " ".join(texts(svg)).replace("information", "")


def test_the_first_curve_is_large_and_the_others_are_small():
    curves = [band(name, [0.0, 0.1], 1.0) for name in ("symbols", "high byte", "bit <3>")]
    assert "symbols" in texts(band_chart("autocorrelation", curves))
    assert "high byte" not in texts(band_chart("autocorrelation", curves))
    small = texts(band_multiples("autocorrelation", curves))
    assert {"high byte", "bit &lt;3&gt;"} <= set(small)
    assert "symbols" not in small
    assert band_multiples("autocorrelation", curves[:1]) == ""


def test_of_many_small_pictures_those_outside_are_drawn():
    curves = [band("main", [0.0], 1.0)]
    curves += [band(f"bit {k}", [0.5 + k / 1000, 0.0], 1.0) for k in range(60)]
    curves[7] = band("bit 6", [3.0, 0.0], 1.0)
    shown = [text for text in texts(band_multiples("autocorrelation", curves)) if "bit" in text]
    assert len(shown) == MOST_MULTIPLES
    assert shown == ["bit 6", *(f"bit {k}" for k in range(60 - MOST_MULTIPLES + 1, 60))]


def test_evidence_shows_its_lines_and_the_ends_of_its_paths():
    seen = np.array([0, 10, 1000, 1_000_000])
    svg = evidence_chart(
        [("mixture", seen, [0, 0.1, 3, 40]), ("high byte", seen, [0, -1, -20, -300])], 0.01
    )
    found = texts(svg)
    assert {"mixture", "high byte", "E = 1: nothing learned", "symbols seen"} <= set(found)
    assert "E = 100: chance takes at most 1 % of runs there" in found
    assert {"1,000", "1 million", "10^-100", "1", "10^10"} <= set(found)
    assert not any("$" in text for text in found)


@pytest.mark.parametrize(
    "path",
    [
        ([], []),
        ([0], [0.0]),
        ([10, 20], [np.nan, -np.inf]),
    ],
)
def test_evidence_without_a_point_is_not_drawn(path):
    assert evidence_chart([("mixture", *path)], 0.01) == ""


def test_evidence_of_one_point_is_drawn():
    assert "mixture" in texts(evidence_chart([("mixture", [5], [0.0])], 0.01))


def test_p_values_stand_beside_their_tests_in_figures():
    rows = [
        ("histogram", 0.5, 1.0, False),
        ("in $ and $", 1e-3, 0.003, True),
        ("line", 0.0, 0.0, True),
        ("none", math.nan, math.nan, False),
    ]
    found = texts(p_value_chart(rows, 0.01))
    assert {"histogram", "in $ and $", "0.003", "1", "&lt; 1e-300", "fired", "level 0.01"} <= set(
        found
    )
    assert "none" not in found
    calm = texts(p_value_chart(rows[:1], 0.01))
    assert "fired" not in calm
    assert p_value_chart([], 0.01) == ""


def test_a_small_p_value_stands_right_of_the_level_and_a_large_one_left():
    def at(svg):
        uses = re.findall(r'<use [^>]*x="([\d.]+)" y="[\d.]+" style="fill: var\(--main\)', svg)
        return max(map(float, uses))

    def level(svg):
        [x] = re.findall(r'd="M ([\d.]+) [^"]*"[^>]*style="[^"]*stroke-dasharray', svg)[:1]
        return float(x)

    for p, right in ((0.5, False), (0.011, False), (0.009, True), (1e-30, True)):
        svg = p_value_chart([("a", p, p, False)], 0.01)
        # The legend's mark, left above the axes, is the only other one of this colour.
        assert (at(svg) > level(svg)) == right, p


def test_of_many_p_values_the_smallest_are_drawn():
    rows = [(f"test {k}", (k + 1) / 200, 1.0, False) for k in range(100)][::-1]
    shown = [text for text in texts(p_value_chart(rows, 0.01)) if text.startswith("test ")]
    assert shown == [f"test {k}" for k in range(MOST_ROWS)][::-1]


def test_code_lengths_stand_beside_their_levels():
    rows = [("mixture", Interval(3.0, 2.9, 3.1)), ("xz -9e", 8.5), ("nothing", math.nan)]
    svg = code_length_chart(rows, [("guessing evenly", 8.0)], "codes", highlight=1)
    assert {"mixture", "xz -9e", "3.0000", "8.5000", "guessing evenly 8.0000"} <= set(texts(svg))
    assert "nothing" not in texts(svg)
    assert code_length_chart(rows[2:], [], "codes") == ""


@pytest.mark.parametrize(
    ("value", "words"),
    [(1, "1"), (10, "10"), (1e5, "100,000"), (1e6, "1 million"), (1e10, "10 billion"),
     (1e12, "1 trillion")],
)  # fmt: skip
def test_numbers_of_symbols_are_told_in_words(value, words):
    assert count_in_words(value) == words
