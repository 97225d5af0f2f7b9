"""The experiments behind docs/analysis-*.md, in small."""

import sys

import numpy as np
import pytest

from benchmarks import (
    analysis_controls,
    analysis_known_streams,
    analysis_scale,
    analysis_validity,
)


def test_controls_are_analysed_and_counted(monkeypatch):
    monkeypatch.setattr(analysis_controls, "SYMBOLS", 20_000)
    rows = [analysis_controls.analysed((name, 1, 0.0)) for name in ("pcg64", "aes_ctr")]
    assert [row["fired"] for row in rows] == [[], []]
    assert all(row["tests"] > 25 and 0 < row["p"] <= 1 for row in rows)
    rows[0]["fired"] = ["a test"]
    text = analysis_controls.page(rows, "Title", "command")
    assert "| pcg64 | 1 to 1 (1) |" in text
    assert "- pcg64, seed 1: a test" in text


def test_a_model_is_trained_on_a_control(monkeypatch):
    monkeypatch.setattr(analysis_controls, "SYMBOLS", 20_000)
    row = analysis_controls.analysed(("pcg64", 1, 0.02))
    assert row["fired"] == []
    assert row["neural"] > 0  # it knows less than the frequencies of the symbols themselves


def test_rows_in_the_log_are_not_run_again(tmp_path):
    log = tmp_path / "log"
    log.write_text('{"control": "pcg64", "seed": 3}\n')
    jobs = [("pcg64", 3, 0.0)]
    assert list(analysis_controls.run(jobs, 1, log)) == [{"control": "pcg64", "seed": 3}]


def test_known_streams_have_a_row(monkeypatch):
    monkeypatch.setattr(analysis_known_streams, "SYMBOLS", 30_000)
    row = analysis_known_streams.measured("gbar")
    text = analysis_known_streams.page([row])
    assert "| gbar | 2 | 0.8798, 0.5949 |" in text
    assert row["verdicts"] == [True, True] or row["verdicts"] == [False, True]
    assert abs(row["late"].value - row["entropy"]) < 0.05
    assert f"**{row['late']}**" in text


def test_evidence_and_bias():
    assert analysis_validity.largest_evidence(("a fair die", 1)) < np.log(20)
    size = analysis_validity.named_size(6, 0.5)
    assert 500 < size < 10_000
    assert analysis_validity.finds_bias((6, 0.5, 2 * size, 0))
    assert not analysis_validity.finds_bias((6, 0.5, size // 8, 0))


@pytest.mark.slow
def test_scale_writes_its_page(tmp_path, monkeypatch):
    out = tmp_path / "scale.md"
    monkeypatch.setattr(sys, "argv", ["scale", "--symbols", "150000", "--out", str(out)])
    assert analysis_scale.main() == 0
    text = out.read_text()
    assert "| reading |" in text
    assert "Largest resident memory:" in text
    assert str(tmp_path) not in text
