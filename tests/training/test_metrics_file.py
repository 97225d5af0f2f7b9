"""metrics.jsonl and metrics.csv: the same rows, and none of them lost or doubled on resume."""

import csv
import json

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


def test_unknown_columns_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unknown metric columns \['typo'\]"):
        MetricsFile(tmp_path).append({"step": 1, "typo": 2})
