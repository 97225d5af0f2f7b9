"""Both models on one budget: alike in all but the model, judged on the same symbols."""

import dataclasses
import json

import numpy as np
import pytest

from pyseq.data.streams import make
from pyseq.errors import UserError
from pyseq.training.comparison import (
    ENDLESS,
    budget,
    contestants,
    judge_both,
    open_folder,
    prepare_both,
    write_comparison,
)
from pyseq.training.config import TrainConfig
from pyseq.training.fit import fit
from pyseq.training.metrics_file import MetricsFile
from pyseq.training.run import prepare, run_folder

SMALL = {"d_model": 32, "nlayers": 1, "nhead": 2, "dim_ff": 48, "seq_len": 32, "batch": 16,
         "eval_symbols": 1500, "eval_every": 20, "log_every": 5, "lr": 1e-2, "memory": 4,
         "local_width": 32, "local_layers": 1, "horizons": 1, "scale_bins": (8,)}  # fmt: skip


@pytest.fixture(scope="module")
def markov(tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "markov.u16"
    make("markov1").generate(30_000, 0).numpy().astype("<u2").tofile(path)
    return str(path)


def config(path, folder, **changes) -> TrainConfig:
    return TrainConfig(
        u16_path=path, ckpt=str(folder / "both.pt"), **({"epochs": 0} | SMALL | changes)
    )


def trained(flags: TrainConfig):
    configs = contestants(flags, 2)
    return judge_both({name: fit(prepare(one)) for name, one in configs.items()})


@pytest.fixture(scope="module")
def compared(markov, tmp_path_factory):
    """Both models after as many steps, enough to find the chain."""
    return trained(config(markov, tmp_path_factory.mktemp("both"), max_steps=80))


def test_contestants_differ_in_the_model_and_its_file_only(markov, tmp_path):
    flags = config(markov, tmp_path, max_steps=7, seed=3, lr=0.02, patience=4, max_samples=9000)
    both = contestants(flags, 2)
    assert list(both) == ["baseline", "supercharged"]
    for name, one in both.items():
        assert type(one) is TrainConfig
        assert one == dataclasses.replace(
            flags, model=name, ckpt=str(tmp_path / f"both.{name}.pt"), epochs=ENDLESS
        )
    runs = [prepare(one) for one in both.values()]
    assert runs[0].splits == runs[1].splits
    assert runs[0].binning == runs[1].binning
    assert runs[0].steps == runs[1].steps == 7
    first, second = (list(run.batches) for run in runs)
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a["window"], b["window"])


@pytest.mark.parametrize(
    ("limits", "time", "steps", "epochs", "words"),
    [
        ({}, 2, None, ENDLESS, "2 minutes with validations for each model"),
        ({"max_time": 5.0}, 5, None, ENDLESS, "5 minutes with validations for each model"),
        ({"max_steps": 1200}, None, 1200, ENDLESS, "1,200 optimiser steps for each model"),
        ({"epochs": 3}, None, None, 3, "3 passes over the training range for each model"),
        ({"epochs": 3, "max_time": 0.5}, 0.5, None, 3,
         "0.5 minutes with validations or 3 passes over the training range for each model,"
         " whichever comes first"),
    ],
)  # fmt: skip
def test_the_budget_is_what_was_asked_for(markov, tmp_path, limits, time, steps, epochs, words):
    for one in contestants(config(markov, tmp_path, **limits), 2).values():
        assert (one.max_time, one.max_steps, one.epochs) == (time, steps, epochs)
        assert budget(one) == words


def test_each_model_has_its_own_files(markov, tmp_path):
    for given, expected in (("a.b.pt", "a.b.baseline.pt"), ("plain", "plain.baseline.pt")):
        both = contestants(dataclasses.replace(config(markov, tmp_path), ckpt=given), 2)
        assert both["baseline"].ckpt == expected
        folders = {run_folder(given), *(run_folder(one.ckpt) for one in both.values())}
        assert len(folders) == 3


def test_both_are_trained_as_they_would_be_alone(markov, compared, tmp_path):
    """Neither the order nor the other model shows in the weights."""
    for name, outcome in compared.outcomes.items():
        alone = config(markov, tmp_path, model=name, max_steps=80, epochs=10)
        fit(prepare(dataclasses.replace(alone, ckpt=str(tmp_path / f"{name}.pt"))))
        rows = [
            MetricsFile.read(folder) for folder in (outcome.run.folder, tmp_path / f"{name}.run")
        ]
        bits = [[row["val_bits"] for row in of_run if "val_bits" in row] for of_run in rows]
        assert bits[0] == bits[1]


def test_the_better_model_is_named_beside_the_baselines(compared):
    found = compared.contest
    assert {verdict.kind for verdict in found.verdicts.values()} == {"structure"}
    means = {n: o.evaluation.bits["model"].value for n, o in compared.outcomes.items()}
    assert found.gain.value == pytest.approx(means["baseline"] - means["supercharged"])
    if found.kind == "better":
        assert means["supercharged"] < means["baseline"]
    assert found.best.split(",")[0] in ("baseline", "supercharged", "order-1", "order-2")
    names = [row[0] for row in compared.rows()]
    assert names == ["baseline", "supercharged", "marginal", "order-1", "order-2", "xz", "ceiling"]
    baseline, marginal = compared.rows()[0], compared.rows()[2]
    evaluation = compared.outcomes["baseline"].evaluation
    assert baseline[1:3] == (str(evaluation.bits["model"]), str(evaluation.perplexity))
    assert baseline[3].endswith("%]")
    assert marginal[1] == str(evaluation.bits["marginal"])
    subjects = [subject for subject, _ in compared.statements()]
    assert subjects[:4] == [
        "verdict", "baseline on its own", "supercharged on its own", "best of all predictors",
    ]  # fmt: skip
    said = dict(compared.statements())
    assert "99 % intervals: 5 predictors beside the marginal are 5 chances" in said["intervals"]
    assert "seed 0, device cpu, CPU threads 1; " in said["alike for both"]
    assert "on this budget and with one seed" in said["limits"]


def test_what_was_used_is_told_in_numbers(compared):
    for name, outcome in compared.outcomes.items():
        used = compared.spent[name]
        model = outcome.run.model
        assert used["parameters"] == sum(p.numel() for p in model.parameters())
        assert (used["steps"], used["symbols"]) == (80, 80 * 16 * 32)
        assert used["TFLOP"] == pytest.approx(80 * 16 * 32 * model.flops_per_symbol(32) / 1e12)
        assert used["seconds"] > 0
        assert used["learning rate"] == 1e-2
    names = [name for name, *_ in compared.spent_rows()]
    assert names == list(compared.spent["baseline"])
    assert ("steps", "80", "80") in compared.spent_rows()


def test_the_same_time_is_the_same_time(markov, tmp_path):
    compared = trained(config(markov, tmp_path, max_time=0.05, stride=1))
    for used in compared.spent.values():
        assert used["seconds"] >= 3
        assert used["steps"] > 1
    rows = MetricsFile.read(compared.outcomes["baseline"].run.folder)
    assert rows[-1]["epoch"] < ENDLESS


def test_what_is_written_is_what_was_found(compared, tmp_path):
    report = write_comparison(tmp_path, compared)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "summary.json"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["verdict"] == compared.contest.kind
    assert summary["sentence"] == compared.contest.sentence
    assert summary["budget"] == "80 optimiser steps for each model"
    assert summary["level"] == pytest.approx(0.99)
    for name, outcome in compared.outcomes.items():
        model, verdict = summary["models"][name], compared.contest.verdicts[name]
        assert (model["steps"], model["ckpt"]) == (80, outcome.run.config.ckpt)
        assert (
            model["test"]["bits_per_symbol"]["model"][0] == outcome.evaluation.bits["model"].value
        )
        assert model["test"]["sentence"] == verdict.sentence
        assert model["test"]["verdict"] == verdict.kind
    page = report.read_text().replace("&#x27;", "'")
    numbers = [part for cell in compared.rows()[0] for part in cell.removesuffix("]").split(" [")]
    for text in (compared.contest.sentence, compared.contest.best, *numbers):
        assert text in page


def test_different_symbols_are_not_compared(compared):
    changed = dict(compared.outcomes)
    evaluation = changed["supercharged"].evaluation
    for scores in (
        dataclasses.replace(evaluation.scores, first=evaluation.scores.first + 1),
        dataclasses.replace(evaluation.scores, classes=1 - evaluation.scores.classes),
    ):
        changed["supercharged"] = dataclasses.replace(
            changed["supercharged"], evaluation=dataclasses.replace(evaluation, scores=scores)
        )
        with pytest.raises(ValueError, match="have scored different symbols"):
            judge_both(changed)


def test_an_old_comparison_does_not_outlive_the_start_of_a_new_one(markov, tmp_path):
    flags = config(markov, tmp_path)
    folder = open_folder(flags)
    for name in ("summary.json", "report.html"):
        (folder / name).write_text("old")
    open_folder(flags)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ckpt": "{folder}"}, "is a directory; a file name fits"),
        ({"ckpt": "{folder}/model.run"}, "would be its own run folder"),
        ({"ckpt": "{folder}/used.pt"}, "used.run belongs to a training; another name fits"),
        ({"epochs": -1}, "--epochs -1; at least 1 fits"),
        ({"patch": 0}, "--patch is 0; at least 1 fits"),
        ({"seq_len": 20_000}, "less than one window of 20001"),
    ],
)
def test_what_does_not_fit_either_model_is_told_before_any_training(
    markov, tmp_path, changes, words
):
    (tmp_path / "used.run").mkdir()
    (tmp_path / "used.run" / "config.yaml").write_text("model: baseline\n")
    changes = {k: v.format(folder=tmp_path) if k == "ckpt" else v for k, v in changes.items()}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=words):
        prepare_both(contestants(dataclasses.replace(config(markov, tmp_path), **changes), 2))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_in_the_place_of_the_folder_is_told(markov, tmp_path):
    (tmp_path / "both.run").write_text("mine")
    with pytest.raises(UserError, match=r"both\.run cannot be made: File exists"):
        open_folder(config(markov, tmp_path))
