import math
import os
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from pyseq.analysis.ceilings import ceiling
from pyseq.analysis.intervals import Interval
from pyseq.analysis.report import Report, write_report

_VOID = {"meta", "link", "br", "hr", "img", "input"}


class _Page(HTMLParser):
    """The page's text, references, ids and whether every element was closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.references, self.ids, self.words = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in _VOID:
            self.open.append(tag)
        self._note(attrs)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)
        self._note(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    def _note(self, attrs):
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "action", "data", "srcset", "poster"}:
                self.references.append(value)
            if name == "id":
                self.ids.append(value)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def _report():
    rng = np.random.default_rng(0)
    confidence = rng.random(3000)
    curve = [{"step": 0, "val_bits": 7.9}]
    curve += [
        {
            "step": step,
            "train_bits": 2.5 + 5 * math.exp(-step / 100),
            "lr": 1e-3,
            "symbols_per_second": 40_000.0,
        }
        for step in range(1, 3000)
    ]
    curve.append({"step": 3000, "train_bits": math.nan, "val_bits": 2.61, "lr": None})
    return Report(
        title="baseline on text",
        verdict="structure: the model needs 2.3521 bits/symbol",
        ceiling=ceiling(np.array([900, 500, 300, 200, 100, 64])),
        facts=[("model", "d256 x 4"), ("parameters", 3_712_345), ("compiled", True)],
        baselines=[
            ("model", Interval(2.3521, 2.3071, 2.3952)),
            ("marginal", Interval(4.5178, 4.4711, 4.5642)),
            ("order-2", 2.6133),
            ("xz", 1.7237),
        ],
        curve=curve,
        confidence=confidence,
        correct=rng.random(3000) < confidence,
        metrics=[
            ("top-1", "58.1 % [57.6 %, 58.6 %]"),
            ("perplexity", Interval(5.31, 5.22, 5.4)),
            ("mean entropy", 2.4137),
            ("symbols", 200_000),
        ],
        config="training:\n  lr: 0.001\n",
    )


def _written(tmp_path, report):
    path = tmp_path / "report.html"
    write_report(path, report)
    assert os.listdir(tmp_path) == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_shows_everything_it_was_given(tmp_path):
    report = _report()
    page = _Page(_written(tmp_path, report))
    for expected in (
        report.title,
        report.verdict,
        "lr: 0.001",
        "3,712,345",
        "d256 x 4",
        "yes",
        "200,000",
        "2.4137",
        "58.1 % [57.6 %, 58.6 %]",
        "5.310 [5.220, 5.400]",
        "2.352 [2.307, 2.395]",
        "4.518 [4.471, 4.564]",
        "2.6133",
        "1.7237",
        f"independent symbols allow about {report.ceiling.bits:.4f}",
        "either side of these averages, and symbols with other frequencies further off",
        f"{report.ceiling.nats:.4f}",
        f"{report.ceiling.uniform_bits:.4f}",
        report.ceiling.reason,
        "43.6 %",  # top-1 of the ceiling: 900 of 2064
        "Expected calibration error",
        "learning rate",
        "tokens per second",
        "validation",
        "3,000 predictions",
    ):
        assert expected in page.text, expected
    assert page.seen.count("svg") == 4


def test_needs_no_network_and_no_other_file(tmp_path):
    text = _written(tmp_path, _report())
    page = _Page(text)
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert "script" not in page.seen
    assert all(ref.startswith(("#", "data:")) for ref in page.references)
    assert all(ref.startswith("#") for ref in re.findall(r"url\(([^)]*)\)", text))


def test_references_inside_the_page_are_met_and_ids_are_unique(tmp_path):
    text = _written(tmp_path, _report())
    page = _Page(text)
    assert len(page.ids) == len(set(page.ids))
    used = {ref[1:] for ref in page.references if ref.startswith("#")}
    used |= {ref[1:] for ref in re.findall(r"url\(([^)]*)\)", text)}
    assert used
    assert used <= set(page.ids)


def test_pictures_take_their_colours_from_the_page(tmp_path):
    text = _written(tmp_path, _report())
    for picture in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]+)", picture)) == set()
    assert "prefers-color-scheme: dark" in text
    declared = set(re.findall(r"(--\w+):", text))
    assert set(re.findall(r"var\((--\w+)\)", text)) <= declared


def test_escapes_what_it_is_given(tmp_path):
    hostile = '</title><script>alert("$x$ & y")</script>'
    report = replace(
        _report(),
        title=hostile,
        verdict=hostile,
        facts=[(hostile, hostile)],
        metrics=[(hostile, hostile)],
        baselines=[(hostile, 2.0), ("cost in $ and $", 3.0), (r"$\frac{", 1.0)],
        config=hostile,
    )
    page = _Page(_written(tmp_path, report))
    assert "script" not in page.seen
    # Title twice, verdict, facts and metrics, baseline in table, bars and curve, config.
    assert page.text.count(hostile) == 11
    assert page.text.count("cost in $ and $") == 3
    assert r"$\frac{" in page.text


def test_leaves_out_what_there_is_no_data_for(tmp_path):
    bare = Report(title="bare", verdict="at chance", ceiling=ceiling([50, 50]))
    page = _Page(_written(tmp_path, bare))
    assert "svg" not in page.seen
    assert "Calibration" not in page.text
    assert "Training" not in page.text
    assert "1.0000" in page.text


@pytest.mark.parametrize(
    "curve",
    [
        [{"step": 5, "val_bits": 3.0}],
        [{"step": 5, "train_bits": 3.0, "lr": 0.0}],
        [{"step": 5, "lr": 1e-3}],
        [{"step": 5, "val_bits": math.inf}],
    ],
)
def test_draws_curves_of_a_single_point_or_key(tmp_path, curve):
    page = _Page(_written(tmp_path, replace(_report(), curve=curve)))
    assert "structure" in page.text


def test_draws_a_predictor_that_is_never_right_and_an_unbounded_interval(tmp_path):
    report = replace(
        _report(),
        confidence=np.full(50, 0.001),
        correct=np.zeros(50),
        baselines=[("model", Interval(3.0, -math.inf, math.inf))],
    )
    assert "3.000 [-inf, inf]" in _Page(_written(tmp_path, report)).text


def test_the_same_report_is_the_same_page(tmp_path):
    assert _written(tmp_path, _report()) == _written(tmp_path, _report())


def test_a_long_curve_stays_a_small_page(tmp_path):
    curve = [{"step": k, "train_bits": 3.0 + (k * 7919 % 13) / 50} for k in range(100_000)]
    assert len(_written(tmp_path, replace(_report(), curve=curve))) < 200_000


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old", encoding="utf-8")

    def full_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_report(path, _report())
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path / "missing" / "report.html", _report())
