import json
import math

import numpy as np
import pytest

from pyseq.analysis.fusion import read_record, write_record
from pyseq.errors import UserError
from tests.analysis.fusion.records import guesses, record


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"protocol": "nested cross-validation", "fold": np.arange(200) % 5},
        {"group": np.arange(200) // 2},
    ],
)
def test_a_record_comes_back_from_its_file(tmp_path, changes):
    path = tmp_path / "record.json"
    made = record(**changes)
    write_record(path, made)
    found = read_record(path)
    assert found.to_json() == made.to_json()
    assert found.served == "a single model"
    np.testing.assert_array_equal(found.label, made.label)
    for name, array in made.predictions.items():
        np.testing.assert_allclose(found.predictions[name], array, rtol=1e-6)


def test_numbers_that_are_not_finite_come_back_as_none(tmp_path):
    path = tmp_path / "record.json"
    write_record(path, record(histories={"one": [{"epoch": 1, "lr": math.nan}]}))
    assert read_record(path).histories == {"one": [{"epoch": 1, "lr": None}]}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"protocol": "best of four on the test set"}, "known are locked split and nested"),
        ({"protocol": "nested cross-validation"}, "a nested cross-validation without fold"),
        ({"fold": np.zeros(200, int)}, "a locked split with fold"),
        ({"predictions": {}}, "no prediction"),
        ({"group": np.zeros(3, int)}, r"group \(3,\); \(200,\) fits"),
        (
            {"without": {"voice": np.ones((200, 2)) / 2}},
            r"without of 'voice' are \(200, 2\); \(200, 3\)",
        ),
    ],
)
def test_a_record_that_does_not_fit_itself_is_refused(changes, why):
    with pytest.raises(ValueError, match=why):
        record(**changes)


def small(**changes):
    label = np.array([0, 1])
    only = {"label": label, "predictions": {"it": guesses(label, 1, 1)}}
    return record(**(only | {"without": {}, "corrupted": {}, "peers": {}} | changes)).to_json()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": "pyseq fusion run, version 9"}, "version 9"),
        ({"data": None, "predictions": []}, "no record of a run"),
        ({"label": "no"}, "no record of a run"),
    ],
)
def test_other_files_are_refused_in_one_sentence(tmp_path, change, why):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(small() | change))
    with pytest.raises(UserError, match=why) as refusal:
        read_record(path)
    assert "\n" not in str(refusal.value)


def test_what_is_missing_is_named(tmp_path):
    path = tmp_path / "record.json"
    found = small()
    del found["label"]
    path.write_text(json.dumps(found))
    with pytest.raises(UserError, match="label missing"):
        read_record(path)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_record(tmp_path / "none.json")
