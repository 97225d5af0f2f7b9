import re

import numpy as np

from pyseq.analysis.fusion import fusion_report, paired_gain, scores, write_fusion_report
from pyseq.analysis.fusion.technique_table import percent
from pyseq.analysis.plots import gain_chart
from tests.analysis.fusion.records import record

SECTIONS = (
    "scores", "other-classifiers", "calibration", "confusions", "what-each-modality-is-worth",
    "worse-data-at-test-time", "training", "this-run",
)  # fmt: skip


def section(text, name):
    return re.search(rf'<section id="{name}">(.*?)</section>', text, re.DOTALL)[1]


def test_the_page_says_what_was_scored_how_and_by_what(tmp_path):
    made = record()
    text = fusion_report(made)
    found = scores(made.predictions["a single model"], made.label)
    top = text[: text.index("<section")]
    assert f"Accuracy {percent(found.accuracy)} % of 200 objects, by a single model" in top
    assert "scored by locked split" in top
    assert "The best that any classifier can expect on them is 97.00 %" in top
    for name in SECTIONS:
        assert section(text, name)
    assert "Choices were made on validation loss" in section(text, "scores")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    references = re.findall(r"""(?:href|src)="([^"]*)"|url\(([^)]*)\)""", text)
    assert all(name.startswith(("#", "data:")) for name in map("".join, references))
    write_fusion_report(tmp_path / "report.html", made)
    assert (tmp_path / "report.html").read_text() == text


def test_a_modality_is_needed_when_hiding_it_shows():
    made = record()
    part = section(fusion_report(made), "what-each-modality-is-worth")
    rows = dict(re.findall(r'<th class="text">(\w+)</th>(.*?)</tr>', part))
    assert "needed" in rows["voice"]
    assert "no difference that the data can show" in rows["shadow"]
    lost = paired_gain(made.predictions["a single model"], made.without["voice"], made.label)
    assert f"+{100 * lost.interval.value:.1f}"[:3] in rows["voice"]


def test_a_peer_is_held_against_the_same_version_of_the_objects():
    made = record()
    part = section(fusion_report(made), "other-classifiers")
    clean = paired_gain(made.predictions["a single model"], made.peers["SVC"], made.label)
    noisy = paired_gain(made.corrupted["noise"], made.peers["SVC, noise"], made.label)
    row = re.search(r"a single model over SVC</th>(.*?)</tr>", part)[1]
    assert clean.verdict in row
    row = re.search(r"a single model, noise over SVC, noise</th>(.*?)</tr>", part)[1]
    assert noisy.verdict == "helps"
    assert "helps" in row


def test_nested_cross_validation_is_said_and_its_folds_are_in_the_intervals():
    made = record(protocol="nested cross-validation", fold=np.arange(200) % 5)
    text = fusion_report(made)
    assert "scored by nested cross-validation" in text
    assert "over folds and objects" in section(text, "other-classifiers")


def test_a_run_with_nothing_but_predictions_has_a_page():
    made = record(
        without={}, corrupted={}, peers={}, histories={}, snapshots=(), bayes_accuracy=None
    )
    text = fusion_report(made)
    for name in ("other-classifiers", "what-each-modality-is-worth", "training"):
        assert f'id="{name}"' not in text
    assert "The best that any" not in text


def test_overconfidence_is_said():
    made = record()
    sure = made.predictions["a single model"] ** 6
    sure /= sure.sum(-1, keepdims=True)
    said = "not those of a calibrated model"
    assert said in fusion_report(record(predictions={"it": sure}))
    # What chance allows is known of independent objects only.
    grouped = fusion_report(record(predictions={"it": sure}, group=np.arange(200) // 4))
    assert said not in grouped
    assert "95 times in 100, were no two objects of one group" in grouped


def test_groups_are_in_the_sentence():
    made = record(group=np.arange(200) // 4)
    assert "200 objects in 50 groups" in fusion_report(made)


def test_gains_without_a_row_have_no_picture():
    assert gain_chart([], "gain", "none") == ""
