"""metrics.jsonl and metrics.csv: the same rows, and none of them lost or doubled on resume."""

import csv
import json
import os

import pytest

from pyseq.training.metrics_file import COLUMNS, MetricsFile


def test_both_files_hold_the_same_rows(tmp_path):
    file = MetricsFile(tmp_path)
    file.append({"step": 1, "train_bits": 7.5})
    file.append({"step": 2, "val_bits": 6.25, "lr": 0.001})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == MetricsFile.read(tmp_path) == [
        {"step": 1, "train_bits": 7.5},
        {"step": 2, "val_bits": 6.25, "lr": 0.001},
    ]  # fmt: skip
    with (tmp_path / "metrics.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    assert list(rows[0]) == list(COLUMNS)
    assert [(r["step"], r["train_bits"], r["val_bits"]) for r in rows] == [
        ("1", "7.5", ""),
        ("2", "", "6.25"),
    ]


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path):
    file = MetricsFile(tmp_path)
    for step in (1, 2, 3, 4):
        file.append({"step": step})
    with (tmp_path / "metrics.jsonl").open("a") as opened:
        opened.write('{"step": 5, "tr')  # a kill cut the last line short
    MetricsFile(tmp_path, keep_until=2).append({"step": 3, "train_bits": 1.0})
    assert MetricsFile.read(tmp_path) == [
        {"step": 1},
        {"step": 2},
        {"step": 3, "train_bits": 1.0},
    ]
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize("torn", [b'{"step": 4, "tr', b"\0" * 9, b'{"step": \xff', b'{"step": 4}'])
def test_rows_that_a_kill_or_a_power_cut_tore_are_whole_again(tmp_path, torn):
    """Also where the kill came between the two files."""
    file = MetricsFile(tmp_path)
    for step in (1, 2, 3):
        file.append({"step": step, "lr": 0.5})
    with (tmp_path / "metrics.jsonl").open("ab") as opened:
        opened.write(torn)
    with (tmp_path / "metrics.csv").open("ab") as opened:
        opened.write(b"4,0,1")
    MetricsFile(tmp_path, keep_until=3).append({"step": 4, "lr": 0.25})
    expected = [{"step": step, "lr": 0.5} for step in (1, 2, 3)] + [{"step": 4, "lr": 0.25}]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == expected
    with (tmp_path / "metrics.csv").open() as opened:
        rows = [(int(row["step"]), float(row["lr"])) for row in csv.DictReader(opened)]
    assert rows == [(row["step"], row["lr"]) for row in expected]


def test_a_kill_while_rows_are_dropped_loses_none(tmp_path, monkeypatch):
    file = MetricsFile(tmp_path)
    for step in (1, 2, 3):
        file.append({"step": step})

    def kill(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", kill)
    with pytest.raises(KeyboardInterrupt):
        MetricsFile(tmp_path, keep_until=2)
    assert [row["step"] for row in MetricsFile.read(tmp_path)] == [1, 2, 3]


def test_unknown_columns_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unknown metric columns \['typo'\]"):
        MetricsFile(tmp_path).append({"step": 1, "typo": 2})
