import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import fusion_table
from pyseq.analysis.fusion import TechniqueRun, append_run, read_runs
from pyseq.data.modalities import SyntheticLaw, find_data, locked_split
from pyseq.training.fusion import techniques
from pyseq.training.fusion.technique_page import least_losses, missing_of, technique_markdown
from pyseq.training.fusion.techniques import (
    ALONE_ONLY,
    BASELINE,
    NAMES,
    TECHNIQUES,
    configured,
    plan,
    shared_training,
)

# Of the smallest models that the code can train: what is tested is the table, not what it says.
SMALL = {
    "epochs": 3, "warmup_epochs": 1, "cycle_epochs": 2, "folds": 2, "batch": 256,
    "model.width": 16, "model.heads": 4, "model.classifier_layers": 1,
}  # fmt: skip


def test_each_row_changes_what_it_is_named_for_and_nothing_else():
    rows = list(plan())
    alone = {row.technique: row.settings for row in rows if row.place == "alone"}
    assert tuple(alone) == NAMES
    for technique in TECHNIQUES:
        under = alone[technique.upon] if technique.upon else BASELINE
        differs = {key for key in under if alone[technique.name][key] != under[key]}
        assert differs == set(technique.change)
    so_far = [row for row in rows if row.place == "so far"]
    assert [row.technique for row in so_far] == [n for n in NAMES if n not in ALONE_ONLY]
    before = BASELINE
    for row in so_far:
        technique = TECHNIQUES[NAMES.index(row.technique)]
        differs = {key for key in before if row.settings[key] != before[key]}
        assert differs == set(technique.change)
        if technique.kept:
            before = row.settings
    assert [t.name for t in TECHNIQUES if not t.kept] == ["width 512 for 256"]
    assert so_far[-1].settings["model.width"] == 256


@pytest.mark.parametrize("planned", list(plan()), ids=lambda row: f"{row.technique}-{row.place}")
def test_every_row_is_a_config_that_training_takes(planned):
    config = configured(planned.settings, "digits")
    config.check()
    assert config.model.width == planned.settings["model.width"]
    assert config.widths[0] == config.model.width


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(techniques, "BASELINE", BASELINE | SMALL)
    monkeypatch.setattr(techniques, "DATA", {"synthetic": {"count": 80}})


def test_what_was_run_is_kept_and_not_run_again(small, tmp_path, monkeypatch, capsys):
    names = ["cross-modal attention", "temperature"]
    short = tuple(t for t in TECHNIQUES if t.name in names)
    monkeypatch.setattr(techniques, "plan", lambda real=plan: real(short))
    arguments = ["--data", "synthetic", "--seeds", "1", "--techniques", *names]
    arguments += ["--results", str(tmp_path / "results"), "--page", str(tmp_path / "page.md")]
    assert fusion_table.main(arguments) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 2 * 2
    runs = read_runs(tmp_path / "results" / "synthetic.jsonl")
    assert len(runs) == 5
    by_key = {(run.technique, run.place): run for run in runs}
    # A temperature moves no class.
    plain, tempered = by_key["", "baseline"], by_key["temperature", "alone"]
    assert plain.hits == tempered.hits
    assert plain.without == tempered.without
    assert plain.nats != tempered.nats
    assert set(plain.without) == {"scalars", "sequence", "tokens", "graph"}
    assert plain.hits != by_key["cross-modal attention", "alone"].hits
    text = (tmp_path / "page.md").read_text()
    assert "| cross-modal attention | 1 (few) |" in text
    assert "a modality missing: cross-modal attention, against plain" in text
    assert "the best classifier that there can be loses, in points: scalars" in text
    fusion_table.main(arguments)
    assert capsys.readouterr().out == ""
    assert (tmp_path / "page.md").read_text() == text


def test_a_line_of_other_settings_is_run_anew(small):
    planned = next(plan())
    settings = {**planned.settings, "split_seed": 0, "data": {"count": 80}}
    line = TechniqueRun.of(
        np.full((4, 2), 0.5), [0, 1, 0, 1], data="synthetic", technique="", place="baseline",
        seed=1, settings=json.loads(json.dumps(settings)),
    )  # fmt: skip
    assert list(techniques.still_to_run([line], "synthetic", [1], [])) == []
    settings["epochs"] += 1
    old = TechniqueRun(**{**vars(line), "settings": settings})
    again = list(techniques.still_to_run([old], "synthetic", [1], []))
    assert [(each.planned.place, each.seed) for each in again] == [("baseline", 1)]


@pytest.mark.parametrize(
    "names",
    [
        ("cyclic cosine for constant", "snapshots"),
        ("", "test-time augmentation, 5 views", "temperature"),
        ("5-fold models", "ensemble of 3", "super-ensemble"),
    ],
)
def test_rows_of_one_training_are_what_a_training_of_their_own_gives(small, monkeypatch, names):
    two_cycles = BASELINE | SMALL | {"epochs": 5}
    monkeypatch.setattr(techniques, "BASELINE", two_cycles)
    data = find_data("synthetic", count=80)
    rows = [row for row in plan() if row.technique in names and row.place != "so far"]
    assert len(rows) == len(names)
    assert len({shared_training(row.settings) for row in rows}) == 1
    together = techniques.train(rows, data, 3)
    for row, predictor in zip(rows, together, strict=True):
        (alone,) = techniques.train([row], data, 3)
        given, expected = predictor.probabilities(data), alone.probabilities(data)
        np.testing.assert_array_equal(given, expected)
    found = np.stack([predictor.probabilities(data) for predictor in together])
    assert (found[1:] != found[:-1]).any(axis=(1, 2)).all()


def test_rows_of_other_trainings_share_none():
    keys = {}
    for row in plan():
        keys.setdefault((shared_training(row.settings), row.settings["strategy"]), []).append(row)
    names = [tuple(row.technique for row in rows) for rows in keys.values() if len(rows) > 1]
    assert names == [
        ("", "test-time augmentation, 5 views", "temperature"),
        ("cross-modal attention", "cross-modal attention"),  # alone, and as the first of all
        ("cyclic cosine for constant", "snapshots"),
        (
            "cyclic cosine for constant", "snapshots", "test-time augmentation, 5 views",
            "temperature",
        ),
    ]  # fmt: skip


def line(planned, seed, **more) -> TechniqueRun:
    """A run of the table, or of other settings, that was never trained."""
    settings = techniques.line_settings(planned, "synthetic") | more
    given = np.random.default_rng(seed).dirichlet([1, 1], size=40)
    return TechniqueRun.of(
        given, np.arange(40) % 2, data="synthetic", technique=planned.technique,
        place=planned.place, seed=seed, settings=json.loads(json.dumps(settings)),
    )  # fmt: skip


def test_lines_of_other_settings_are_left_out_of_the_table(small, tmp_path):
    baseline, attention = list(plan())[:2]
    for each in (
        line(baseline, 1), line(baseline, 2, epochs=99), line(attention, 1), line(attention, 2)
    ):  # fmt: skip
        append_run(tmp_path / "synthetic.jsonl", each)
    page = technique_markdown(tmp_path, "it")
    assert "3 results" in page
    assert "1 line is of other settings than this table's and left out." in page
    assert "| cross-modal attention | 1 (few) |" in page
    for seed in (1, 2):
        append_run(tmp_path / "synthetic.jsonl", line(baseline, seed, split_seed=5))
    page = technique_markdown(tmp_path, "it")
    assert "Not run yet." in page
    assert "2 lines are of other settings" in page


def test_what_attention_does_of_it_is_told_from_what_the_dropout_does(small):
    found = []
    for planned in plan():
        if planned.technique in ("", *NAMES[:2]):
            # Modality dropout alone makes the loss small; attention does nothing.
            lost = 2 if planned.technique == NAMES[1] else 20
            hits = "1" * 40
            found += [
                replace(
                    line(planned, seed), hits=hits, without={"scalars": "0" * lost + hits[lost:]}
                )
                for seed in range(1, 6)
            ]
    rows = missing_of(found, "synthetic")
    verdicts = {title: each[0].verdict for title, each in rows.items()}
    assert verdicts == {
        "cross-modal attention, against plain concatenation": "not less than half",
        "concatenation with modality dropout, against plain concatenation": "less than half",
        "cross-modal attention with modality dropout, against plain concatenation":
            "less than half",
        "both with modality dropout, cross-modal attention against concatenation":
            "cannot be told",
    }  # fmt: skip


def test_no_training_begins_after_the_time(small, tmp_path):
    fusion_table.main(
        ["--minutes", "0", "--results", str(tmp_path), "--page", str(tmp_path / "page.md")]
    )
    assert not list(tmp_path.glob("*.jsonl"))
    assert "Not run yet." in (tmp_path / "page.md").read_text()


def test_the_best_classifier_loses_what_the_law_says(monkeypatch):
    monkeypatch.setattr(techniques, "DATA", {"synthetic": {"count": 4000}, "digits": {}})
    least = least_losses("synthetic")
    assert list(least) == ["scalars", "sequence", "tokens", "graph"]
    data = find_data("synthetic", seed=techniques.SPLIT_SEED, count=4000)
    test = data.subset(locked_split(data, techniques.SPLIT_SEED)[2])

    def right(seen):
        return (SyntheticLaw().posteriors(seen).argmax(1) == test.label).mean()

    for name, loss in least.items():
        # Of 800 objects the two means differ by chance, by .015 as a deviation.
        assert loss == pytest.approx(right(test) - right(test.without(name)), abs=0.05)
        assert loss > 0
    assert least_losses("digits") == {}


def test_the_page_in_docs_is_that_of_the_lines():
    expected = technique_markdown(fusion_table.RESULTS, "python -m benchmarks.fusion_table")
    assert fusion_table.PAGE.read_text("utf-8") == expected
