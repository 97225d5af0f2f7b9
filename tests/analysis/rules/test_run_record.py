import json
import math
from dataclasses import replace

import pytest

from pyseq.analysis.rules import RunRecord, read_record, write_record
from pyseq.errors import UserError

RECORD = RunRecord(
    grammar="aNbN",
    model="transformer",
    max_length=64,
    seeds=[3, 5],
    histories=[[{"step": 250, "validation_loss": 0.25, "ood_rule_1": 0.5}], []],
    variant="10 heads",
    stops=["patience", "max_steps"],
    config={"lr": 2e-3, "betas": [0.9, 0.999]},
    floor=0.05331,
    chance={"ood_rule_1": 0.154},
    eos_at_once={"ood_rule_1": 0.275},
    parameters=123,
    seconds=4.5,
    device="cpu",
    facts={"torch": "2"},
)


def test_a_record_comes_back_from_its_file(tmp_path):
    path = tmp_path / "record.json"
    write_record(path, RECORD)
    assert read_record(path) == RECORD
    write_record(path, replace(RECORD, seconds=9.0))
    assert read_record(path).seconds == 9.0


def test_numbers_that_are_not_finite_come_back_as_none(tmp_path):
    row = {"step": 1, "validation_loss": math.nan, "grad_norm": math.inf}
    path = tmp_path / "record.json"
    write_record(path, replace(RECORD, histories=[[row], []]))
    assert read_record(path).histories[0] == [
        {"step": 1, "validation_loss": None, "grad_norm": None}
    ]


def test_it_is_complete_when_every_seed_has_ended_by_its_own_rules():
    assert RECORD.complete
    assert not replace(RECORD, stops=["patience", "running"]).complete
    assert not replace(RECORD, stops=["patience", "max_time"]).complete
    assert not replace(RECORD, stops=[]).complete


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"histories": [[]]}, "1 histories for 2 seeds"),
        ({"seeds": [3, 3]}, r"seeds \[3, 3\] repeat"),
        ({"stops": ["patience"]}, "1 stops for 2 seeds"),
        ({"stops": ["patience", "bored"]}, r"\['bored'\]; known are running, patience"),
        ({"histories": [[], [{"loss": 1.0}]]}, "seed 5 has no step"),
    ],
)
def test_a_record_that_does_not_fit_itself_is_refused(changed, why):
    with pytest.raises(ValueError, match=why):
        replace(RECORD, **changed)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no record of a run"),
        ("[1]", "no JSON object"),
        ('{"format": "pyseq rules run, version 9"}', "version 9"),
        ('{"format": "pyseq rules run, version 1", "grammar": "aNbN"}', "model, max_length, seeds"),
        (
            '{"format": "pyseq rules run, version 1", "grammar": "aNbN", "model": "lstm", '
            '"max_length": 8, "seeds": 3, "histories": []}',
            "no record of a run",
        ),
    ],
)
def test_other_files_are_refused_in_one_sentence(tmp_path, text, why):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(UserError, match=why) as refusal:
        read_record(path)
    assert "\n" not in str(refusal.value)
    assert "record.json" in str(refusal.value)


def test_a_missing_file_is_told_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_record(tmp_path / "record.json")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"max_length": "12"}, "max_length '12'; one of type int fits"),
        ({"grammar": 5}, "grammar 5; one of type str fits"),
        (
            {"histories": [[], [{"step": 1, "ood_rule_1": "high"}]]},
            "ood_rule_1 'high' in a history",
        ),
    ],
)
def test_numbers_that_are_none_are_no_record(changed, why, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(RECORD.to_json() | changed))
    with pytest.raises(UserError, match=why):
        read_record(path)
