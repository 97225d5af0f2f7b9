import csv
import io
import math
import os
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from pyseq.analysis.evaluation import Evaluation
from pyseq.analysis.intervals import Interval
from pyseq.analysis.report import Report, class_names, write_report
from pyseq.analysis.scales import Confusion
from pyseq.data.binning import Binning
from pyseq.errors import UserError
from pyseq.models.checkpoint import ModelCard
from tests.analysis import evaluations
from tests.analysis.evaluations import CEILING, CHANCE, COMPONENTS

_VOID = {"meta", "link", "br", "hr", "img", "input"}
SECTIONS = [
    "bits-per-symbol",
    "held-out-metrics",
    "heads",
    "scales",
    "confusions",
    "calibration-of-the-top-prediction",
    "entropy-of-the-predictions",
    "where-attention-looks",
    "training",
    "speed",
    "components",
    "this-run",
]


class _Page(HTMLParser):
    """The page's text, references, ids and whether every element was closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.references, self.ids, self.words = [], [], [], [], []
        self.sections = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "section":
            self.sections.append(dict(attrs)["id"])
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


def _curve():
    curve = [{"step": 0, "val_bits": 7.9}]
    curve += [
        {
            "step": step,
            "train_bits": 2.5 + 5 * math.exp(-step / 100),
            "lr": 1e-3,
            "symbols_per_second": 40_000.0,
            "data_wait_share": 0.02,
            "memory_mib": 512.0,
        }
        for step in range(1, 3000)
    ]
    curve.append({"step": 3000, "train_bits": math.nan, "val_bits": 2.61, "lr": None})
    return curve


def _report(**changes):
    report = Report(
        title="supercharged on speech",
        evaluation=evaluations.evaluation(),
        facts=[("stream", "speech.u16"), ("symbols", 3_712_345), ("compiled", True)],
        analysis=evaluations.analysis(),
        class_names=[str(k) for k in range(6)],
        curve=_curve(),
        flops_per_symbol=25_000_000,
        components=COMPONENTS,
        row={"model": "supercharged", "memory": 20, "fourier": False, "bits": 2.3521, "note": None},
        config="training:\n  lr: 0.001\n",
    )
    return replace(report, **changes)


def _written(tmp_path, report):
    path = tmp_path / "report.html"
    write_report(path, report)
    assert os.listdir(tmp_path) == ["report.html"]
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A page with everything on it."""
    return _written(tmp_path_factory.mktemp("page"), _report())


def test_shows_everything_it_was_given(text):
    report, page = _report(), _Page(text)
    assert page.sections == SECTIONS
    for expected in (
        report.title,
        report.evaluation.verdict.sentence,
        "lr: 0.001",
        "3,712,345",
        "yes",
        "58.1 % [57.6 %, 58.6 %]",
        "2.352 [2.307, 2.395]",
        "4.518 [4.471, 4.564]",
        "2.6133",
        "1.7237",
        f"independent symbols allow about {CEILING.bits:.4f}",
        "either side of these averages, and symbols with other frequencies further off",
        f"{CEILING.nats:.4f}",
        f"{CEILING.uniform_bits:.4f}",
        CEILING.reason,
        "43.6 %",  # top-1 of the ceiling: 900 of 2064
        "1.23 %; of a perfectly calibrated model below 1.71 % in 95 of 100 such samples",
        "3,000 predictions",
        "mean entropy of the predictions, bits",
        "learning rate",
        "symbols per second",
        "GFLOP/s reached",
        "25.0 MFLOP per symbol",
        "time spent waiting for data, %",
        "peak memory, MiB",
        "validation",
    ):
        assert expected in page.text, expected


def test_shows_the_predictions_taken_apart(text):
    page = _Page(text)
    for expected in (
        "next symbol structure 2.10",
        "2 ahead structure 2.20",
        "The heads predict 1 to 2 symbols ahead.",
        "6 classes structure 1.5",
        "3 bins structure 1.5",
        "level of 98.75 % each",
        "3 bins, named by their first symbols",
        "2000",  # a bin's first symbol beside the confusions
        "block 1: hard, head 1",
        "inside the patch 1: cosine, head 1",
        "distance back, patches",
        "distance back, symbols",
        "even weights",
        "8 windows of 64 symbols",
        "Mixed without weights: after block 3: Fourier mixing",
        "3.0 patches 1.25 50.0 % 20.0 %",
    ):
        assert expected in page.text, expected


def test_tokens_have_mistakes_and_no_scales(tmp_path):
    names = ["' '", "'e'", "'<b>'", "'&'", "x", "'y'"]
    report = _report(analysis=evaluations.of_tokens(), class_names=names)
    page = _Page(_written(tmp_path, report))
    assert page.sections == SECTIONS
    assert "'<b>' '&' 41 25.0 %" in page.text
    assert "' ' 'y' 7 12.5 %" in page.text
    assert "Tokens have no neighbours." in page.text
    assert "The model has one head." in page.text
    assert "named by their first symbols" not in page.text


@pytest.mark.parametrize(
    ("missing", "sections"),
    [
        ({"analysis": None}, {"heads", "scales", "confusions", "where-attention-looks"}),
        (
            {"curve": (), "components": (), "row": {}, "facts": (), "config": None},
            {"training", "speed", "components", "this-run"},
        ),
    ],
)
def test_leaves_out_what_there_is_no_data_for(tmp_path, missing, sections):
    page = _Page(_written(tmp_path, _report(**missing)))
    assert page.sections == [name for name in SECTIONS if name not in sections]


def test_a_bare_report_is_a_page(tmp_path):
    page = _Page(_written(tmp_path, Report("bare", evaluations.evaluation())))
    assert page.sections == [
        *SECTIONS[:2], "calibration-of-the-top-prediction", "entropy-of-the-predictions",
    ]  # fmt: skip


@pytest.mark.parametrize("make", [evaluations.analysis, evaluations.of_tokens])
def test_at_chance_no_part_of_the_page_finds_anything(tmp_path, text, make):
    found = evaluations.evaluation(CHANCE)
    report = _report(evaluation=found, analysis=make(CHANCE), class_names=list("abcdef"))
    page = _Page(_written(tmp_path, report))
    words = page.text.split(report.title)[-1]
    assert words.split("Bits per symbol")[0].strip() == CHANCE.sentence
    # The sentence on the verdicts' level names what is not found.
    assert words.count("structure") == words.count("is said to show structure")
    for name in ("Confusions", "Calibration of the top prediction", "Entropy of the predictions"):
        assert "The model is at chance" in words.split(name)[1][:3000], name
    assert words.count("The model is at chance") == 3
    assert "The model is at chance" not in text


def test_symbols_that_were_trained_on_get_no_verdict(tmp_path):
    report = _report(evaluation=evaluations.evaluation(CHANCE, held_out=False))
    page = _Page(_written(tmp_path, report))
    assert page.text.count("no verdict: the scored range holds symbols that the model was") == 1
    for word in ("structure", "at chance", "held-out", "Held-out", "level of"):
        assert word not in page.text
    assert "metrics-of-symbols-trained-on" in page.sections


def test_components_say_what_is_on_and_the_row_can_be_copied(text):
    page = _Page(text)
    assert "memory tokens on memory 20, memory_read prefix 1,280" in page.text
    assert "Fourier mixing off" in page.text
    assert "the rest scale_bins 16 64 70" in page.text
    copied = re.search(r'<pre class="row">(.*?)</pre>', text, re.DOTALL)[1]
    [row] = csv.DictReader(io.StringIO(copied), dialect="excel-tab")
    assert row == {
        "model": "supercharged", "memory": "20", "fourier": "off", "bits": "2.3521", "note": "",
    }  # fmt: skip


def test_needs_no_network_and_no_other_file(text):
    page = _Page(text)
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert "script" not in page.seen
    assert all(ref.startswith(("#", "data:")) for ref in page.references)
    assert all(ref.startswith("#") for ref in re.findall(r"url\(([^)]*)\)", text))


def test_references_inside_the_page_are_met_and_ids_are_unique(text):
    page = _Page(text)
    assert len(page.ids) == len(set(page.ids))
    used = {ref[1:] for ref in page.references if ref.startswith("#")}
    used |= {ref[1:] for ref in re.findall(r"url\(([^)]*)\)", text)}
    assert used
    assert used <= set(page.ids)


def test_pictures_take_their_colours_from_the_page(text):
    pictures = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    # Bits, heads, scales, 2 of confusions, calibration, entropy, 2 of attention, loss, rate, 4 of
    # speed.
    assert len(pictures) == 15
    for picture in pictures:
        assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]+)", picture)) == set()
    assert "prefers-color-scheme: dark" in text
    declared = set(re.findall(r"(--\w+):", text))
    assert set(re.findall(r"var\((--\w+)\)", text)) <= declared


def test_escapes_what_it_is_given(tmp_path):
    hostile = '</title><script>alert("$x$ & y")</script>'
    taken_apart = evaluations.analysis(
        attention=replace(
            evaluations.analysis().attention,
            layers=(evaluations.layer(hostile, 1),),
            weightless=(hostile,),
        ),
        about_scales=hostile,
        about_horizons=hostile,
        confusions=(Confusion(0, 1, 2, 0.5),),
    )
    verdict = replace(evaluations.FOUND, sentence=hostile)
    bits = {"model": 3.0, hostile: 2.0, "cost in $ and $": 3.0, r"$\frac{": 1.0}
    report = _report(
        title=hostile,
        evaluation=evaluations.evaluation(verdict, bits=bits | {"model": Interval(3, 2.9, 3.1)}),
        analysis=taken_apart,
        class_names=[hostile] * 6,
        facts=[(hostile, hostile)],
        components=(replace(COMPONENTS[0], name=hostile, settings={hostile: hostile}),),
        row={hostile: hostile},
        config=hostile,
    )
    page = _Page(_written(tmp_path, report))
    assert "script" not in page.seen
    # Title twice, verdict, baseline in bars, table and curve, both clauses, two class names, the
    # layer's numbers and what has none, component, setting and its value, row twice, facts twice,
    # config; the layer's name is shortened beside the picture.
    assert page.text.count(hostile) == 20
    assert page.text.count("cost in $ and $") == 3
    assert r"$\frac{" in page.text


@pytest.mark.parametrize(
    "curve",
    [
        [{"step": 5, "val_bits": 3.0}],
        [{"step": 5, "train_bits": 3.0, "lr": 0.0}],
        [{"step": 5, "lr": 1e-3}],
        [{"step": 5, "val_bits": math.inf}],
        [{"step": 5, "data_wait_share": 0.0, "memory_mib": 0.0, "symbols_per_second": 0.0}],
    ],
)
def test_draws_curves_of_a_single_point_or_key(tmp_path, curve):
    page = _Page(_written(tmp_path, _report(curve=curve, analysis=None)))
    assert "structure" in page.text


def test_draws_a_predictor_that_is_never_right_and_an_unbounded_interval(tmp_path):
    scores = replace(
        evaluations.scores(1),
        confidence=np.full(1, 0.001),
        hits=np.zeros((1, 3), dtype=bool),
        bits=np.zeros(1),
        entropy=np.zeros(1),
    )
    found = evaluations.evaluation(scores=scores, bits={"model": Interval(3, -math.inf, math.inf)})
    assert (
        "3.000 [-inf, inf]"
        in _Page(_written(tmp_path, _report(evaluation=found, analysis=None))).text
    )


def test_the_same_report_is_the_same_page(tmp_path, text):
    assert _written(tmp_path, _report()) == text


def test_a_long_curve_stays_a_small_page(tmp_path):
    curve = [{"step": k, "train_bits": 3.0 + (k * 7919 % 13) / 50} for k in range(100_000)]
    assert len(_written(tmp_path, _report(curve=curve, analysis=None))) < 150_000


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old", encoding="utf-8")

    def full_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(UserError, match="no space"):
        write_report(path, _report(analysis=None, curve=()))
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"missing/report.html cannot be written"):
        write_report(tmp_path / "missing" / "report.html", _report(analysis=None, curve=()))


@pytest.mark.parametrize(
    ("binning", "kind", "names"),
    [
        (Binning.uniform(10, 3), "values", ["0..3", "4..6", "7..9"]),
        (Binning(3), "tokens", ["0", "1", "2"]),
        (Binning(256), "values", [str(k) for k in range(256)]),
        (Binning(256), "tokens", [repr(bytes([k]))[1:] for k in range(256)]),
    ],
)
def test_classes_are_named_as_people_know_them(binning, kind, names):
    assert class_names(ModelCard("baseline", {}, binning, kind, seq_len=8)) == names


def test_the_flat_metrics_are_numbers_and_words():
    flat = evaluations.evaluation().flat()
    assert flat["model_bits"] == 2.3521
    assert (flat["model_bits_low"], flat["model_bits_high"]) == (2.3071, 2.3952)
    assert flat["order_2_bits"] == 2.6133
    assert flat["top5_accuracy_high"] == 0.586
    assert flat["verdict"] == "structure"
    assert all(value is None or isinstance(value, (int, float, str)) for value in flat.values())
    unseen = evaluations.evaluation(held_out=False)
    assert isinstance(unseen, Evaluation)
    assert unseen.flat()["verdict"] is None
    assert unseen.flat().keys() == flat.keys()
