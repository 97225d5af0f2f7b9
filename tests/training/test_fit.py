"""Whole trainings at small sizes: the run folder, exact resume, early stopping, the clock."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml

from pyseq.data.streams import make
from pyseq.errors import UserError
from pyseq.models import load_model
from pyseq.training.batches import TrainingBatches
from pyseq.training.checkpoint_io import SafetensorsCheckpointIO
from pyseq.training.config import TrainConfig
from pyseq.training.fit import fit
from pyseq.training.folder_lock import locked
from pyseq.training.metrics_file import MetricsFile
from pyseq.training.run import prepare, run_folder
from pyseq.training.schedules import rate_factor
from tests.training.small_runs import (
    SMALL,
    act_in,
    assert_alike,
    assert_logged_once,
    config,
    rows,
)


def test_a_run_leaves_what_it_promises(markov, tmp_path):
    outcome = fit(prepare(config(markov, tmp_path, max_steps=40)))
    folder = run_folder(outcome.run.config.ckpt)
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.yaml", "metrics.jsonl", "metrics.csv", "tensorboard", "last",
                     "summary.json", "report.html"}  # fmt: skip
    assert any(path.name.startswith("events") for path in (folder / "tensorboard").iterdir())
    resolved = yaml.safe_load((folder / "config.yaml").read_text())
    assert resolved["max_steps"] == 40
    assert resolved["kind"] in ("tokens", "values")
    assert (resolved["bins"], resolved["stride"], resolved["nhead_kv"]) == ("none", 32, 2)
    rows = MetricsFile.read(folder)
    assert [row["step"] for row in rows if "val_bits" in row] == [20, 40]
    assert [row["step"] for row in rows if "train_bits" in row] == [1, *range(5, 41, 5)]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 40
    assert summary["best_validation_bits"] == min(r["val_bits"] for r in rows if "val_bits" in r)
    model, card = load_model(tmp_path / "model.pt")
    assert card.training["max_steps"] == 40
    assert summary["parameters"] == sum(p.numel() for p in model.parameters())
    assert outcome.evaluation.verdict.sentence in (folder / "report.html").read_text().replace(
        "&#x27;", "'"
    )
    last = SafetensorsCheckpointIO().load_checkpoint(folder / "last")
    assert last["global_step"] == 40


def test_the_model_file_holds_the_best_validation(markov, tmp_path):
    """A rate that ruins the model later must not ruin the file."""
    outcome = fit(prepare(config(markov, tmp_path, max_steps=60)))
    best = outcome.summary["best_validation_bits"]
    run = outcome.run
    model, _ = load_model(run.config.ckpt)
    with torch.inference_mode():
        losses = [float(model.loss(batch["window"])) for batch in run.validation]
    assert np.mean(losses) / np.log(2) == pytest.approx(best, abs=2e-4)


class Killed(Exception):
    """Stands for a kill: nothing that the training catches or cleans up after."""


def die_at(step: int):
    def act(trainer):
        if trainer.global_step == step:
            raise Killed

    return act


def fit_until(patch, hook: str, step: int, settings: TrainConfig) -> None:
    """Let a training die at optimiser step `step`."""
    with patch.context() as once:
        act_in(once, hook, die_at(step))
        with pytest.raises(Killed):
            fit(prepare(settings))


CHANGES = {
    "plain": {},
    "accumulating": {"gradient_accumulation": 3},
    "saved while accumulating": {"gradient_accumulation": 3, "save_every": 10},
    "sgd": {"dropout": 0.2, "optimizer": "sgd"},
    "supercharged": {"model": "supercharged", "nlayers": 3, "local_width": 32,
                     "stochastic_depth": 0.2},
    "saved with validations": {"save_every": 10},
    "best at first": {"save_every": 20, "lr": 0.1},
    "unvalidated last step": {"eval_every": 15},
}  # fmt: skip


def resumable(path, folder, name: str, **more) -> TrainConfig:
    folder.mkdir(exist_ok=True)
    settings = {"max_steps": 40, "epochs": 5, "save_every": 17, "eval_every": 10}
    return config(path, folder, **(settings | CHANGES[name] | more))


@pytest.fixture(scope="module")
def whole_run(markov, tmp_path_factory):
    """Folders of uninterrupted runs."""
    folders = tmp_path_factory.mktemp("whole")

    def folder(name: str):
        if not (folders / name).exists():
            fit(prepare(resumable(markov, folders / name, name)))
        return folders / name

    return folder


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize(
    ("step", "hook"),
    [
        (19, "on_train_batch_end"),
        (20, "on_train_batch_end"),
        (31, "on_train_batch_start"),
        (40, "on_validation_start"),
        (40, "on_train_end"),
    ],
)
def test_resuming_ends_where_the_uninterrupted_run_ends(
    markov, tmp_path, monkeypatch, whole_run, unevaluated, name, step, hook
):
    """Killed and resumed: parameters, rows and best model bit for bit those of one run."""
    fit_until(monkeypatch, hook, step, resumable(markov, tmp_path, name))
    fit(prepare(resumable(markov, tmp_path, name, resume="auto")))
    assert_alike(whole_run(name), tmp_path)
    assert_logged_once(tmp_path)


def test_a_state_is_saved_at_whole_steps_only(
    markov, tmp_path, monkeypatch, whole_run, unevaluated
):
    """Resumed at a step that is saved, then killed while the gradients of the next accumulate."""
    name = "saved while accumulating"
    fit_until(monkeypatch, "on_train_batch_end", 15, resumable(markov, tmp_path, name))
    again = resumable(markov, tmp_path, name, resume="auto")
    fit_until(monkeypatch, "on_train_batch_start", 11, again)
    fit(prepare(again))
    assert_alike(whole_run(name), tmp_path)


def test_early_stopping_stops_where_it_would_have(markov, tmp_path, monkeypatch, unevaluated):
    """Also if the kill comes just after the state with the last straw was saved."""
    settings = {"max_steps": 400, "epochs": 50, "eval_every": 10, "save_every": 10, "patience": 2,
                "lr": 1e-9}  # fmt: skip
    fit_until(monkeypatch, "on_train_end", 30, config(markov, tmp_path, **settings))
    fit(prepare(config(markov, tmp_path, **settings, resume="auto")))
    assert rows(tmp_path)[-1]["step"] == 30


def test_a_resumed_run_has_the_best_model_of_its_own_past(
    markov, tmp_path, monkeypatch, unevaluated
):
    """A model that was written after the last state was saved is of a future that may not come."""
    settings = resumable(markov, tmp_path, "plain")
    fit_until(monkeypatch, "on_train_batch_end", 18, settings)  # saved at 17, validated at 10
    best = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.run").rename(tmp_path / "kept")
    fit_until(monkeypatch, "on_train_batch_end", 21, settings)
    assert (tmp_path / "model.pt").read_bytes() != best
    shutil.rmtree(tmp_path / "model.run")
    (tmp_path / "kept").rename(tmp_path / "model.run")
    again = resumable(markov, tmp_path, "plain", resume="auto")
    fit_until(monkeypatch, "on_train_batch_start", 17, again)
    found = safetensors.torch.load_file(tmp_path / "model.pt")
    for name, tensor in safetensors.torch.load(best).items():
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize(
    "ending", [{"max_steps": 20}, {"max_time": 0.02}, {"patience": 1, "lr": 1e-9}]
)
def test_resuming_a_finished_run_trains_no_further(markov, tmp_path, ending):
    settings = {"max_steps": 400, "epochs": 50, "eval_every": 10, **ending}
    first = fit(prepare(config(markov, tmp_path, **settings)))
    rows = MetricsFile.read(tmp_path / "model.run")
    again = fit(prepare(config(markov, tmp_path, **settings, resume="auto")))
    assert again.summary["steps"] == first.summary["steps"]
    assert again.summary["test"] == first.summary["test"]
    assert MetricsFile.read(tmp_path / "model.run") == rows


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_steps": 30}, "had max_steps 20, now it is 30"),
        ({"d_model": 16}, "had d_model 32, now it is 16"),
        ({"lr": 0.5}, "had lr 0.003, now it is 0.5"),
    ],
)
def test_another_runs_state_is_refused(markov, tmp_path, changes, words):
    fit(prepare(config(markov, tmp_path, max_steps=20)))
    with pytest.raises(UserError, match=words):
        fit(prepare(config(markov, tmp_path, resume="auto", **({"max_steps": 20} | changes))))


def test_other_data_is_refused_unless_asked_for(markov, tmp_path):
    other = str(tmp_path / "other.u16")
    make("markov1").generate(30_000, 1).numpy().astype("<u2").tofile(other)
    settings = {"max_steps": 20, "save_every": 5}
    fit(prepare(config(markov, tmp_path, **settings)))
    with pytest.raises(UserError, match=r"was trained on other data .* --ignore_fingerprint"):
        fit(prepare(config(other, tmp_path, **settings, resume="auto")))
    fit(prepare(config(other, tmp_path, **settings, resume="auto", ignore_fingerprint=True)))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("config.yaml", lambda path: path.unlink()),
        ("config.yaml", lambda path: path.write_text("")),
        ("config.yaml", lambda path: path.write_bytes(b"\0\xff")),
        ("config.yaml", lambda path: path.write_text("a: [")),
        ("last/tensors-*", lambda path: path.unlink()),
        ("last/state.json", lambda path: path.write_text("{")),
    ],
)
def test_a_damaged_run_is_neither_resumed_nor_overwritten(
    markov, tmp_path, monkeypatch, unevaluated, file, damage
):
    settings = resumable(markov, tmp_path, "plain", resume="auto")
    fit_until(monkeypatch, "on_train_batch_end", 18, settings)
    (found,) = (tmp_path / "model.run").glob(file)
    damage(found)
    before = sorted((tmp_path / "model.run").rglob("*"))
    with pytest.raises(UserError, match=r"read: .*--resume never begins anew") as error:
        fit(prepare(settings))
    assert "\n" not in str(error.value)
    assert sorted((tmp_path / "model.run").rglob("*")) == before


def test_a_fresh_run_leaves_no_state_of_the_last_one(markov, tmp_path, monkeypatch):
    fit(prepare(config(markov, tmp_path, max_steps=20)))
    fit_until(monkeypatch, "on_train_batch_end", 3, config(markov, tmp_path, max_steps=20, seed=7))
    assert not (tmp_path / "model.run" / "last").exists()
    assert not (tmp_path / "model.run" / "report.html").exists()


def test_a_diverged_run_says_so_and_keeps_the_old_model(markov, tmp_path):
    fit(prepare(config(markov, tmp_path, max_steps=20)))
    before = (tmp_path / "model.pt").read_bytes()
    ruin = {"optimizer": "sgd", "lr": 1e20, "clip": 0.0, "schedule": "constant"}
    with pytest.raises(UserError, match="the training diverged: at step 20"):
        fit(prepare(config(markov, tmp_path, max_steps=40, **ruin)))
    assert (tmp_path / "model.pt").read_bytes() == before
    assert not (tmp_path / "model.run" / "summary.json").exists()


def test_two_trainings_do_not_share_a_run_folder(markov, tmp_path):
    run = prepare(config(markov, tmp_path, max_steps=20))
    run.folder.mkdir()
    with locked(run.folder, "--ckpt"), pytest.raises(UserError, match="another training"):
        fit(run)


def test_patience_stops_early(markov, tmp_path):
    outcome = fit(
        prepare(config(markov, tmp_path, max_steps=400, eval_every=10, patience=2, lr=1e-9))
    )
    assert outcome.summary["steps"] < 400


def test_the_clock_stops_and_is_followed_by_the_rate(markov, tmp_path):
    outcome = fit(
        prepare(config(markov, tmp_path, epochs=1000, max_time=0.03, eval_every=5, stride=1))
    )
    rows = MetricsFile.read(tmp_path / "model.run")
    assert outcome.summary["steps"] < outcome.run.steps
    assert rows[-1]["lr"] < 0.5 * max(row["lr"] for row in rows)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "constant"])
def test_optimisers_learn_and_schedules_are_followed(markov, tmp_path, optimizer, schedule):
    lr = {"adamw": 3e-3, "adam": 3e-3, "sgd": 0.3}[optimizer] / (
        10 if schedule == "onecycle" else 1
    )
    settings = {"optimizer": optimizer, "schedule": schedule, "max_steps": 40, "warmup_ratio": 0.25}
    fit(prepare(config(markov, tmp_path, lr=lr, **settings)))
    rows = MetricsFile.read(tmp_path / "model.run")
    losses = [row["train_bits"] for row in rows if "train_bits" in row]
    assert losses[-1] < losses[0] - 0.05
    rates = {row["step"]: row["lr"] / lr for row in rows}
    for step, rate in rates.items():  # a row is written after the scheduler has moved on
        assert rate == pytest.approx(rate_factor(schedule, min(1, (step + 1) / 40), 0.25), abs=1e-2)


def test_accumulating_is_one_larger_batch(markov, tmp_path):
    """Three batches of 16 make the same step as one of 48."""
    weights = []
    for settings in ({"batch": 48}, {"batch": 16, "gradient_accumulation": 3}):
        run = prepare(config(markov, tmp_path, max_steps=4, eval_every=4, **settings))
        fit(run)
        weights.append([p.detach().clone() for p in run.model.parameters()])
    for a, b in zip(*weights, strict=True):
        assert torch.allclose(a, b, atol=2e-5)


def test_compiled_training_is_the_same_training(markov, tmp_path):
    plain = fit(prepare(config(markov, tmp_path, max_steps=6, eval_every=6)))
    compiled = fit(prepare(config(markov, tmp_path, max_steps=6, eval_every=6, compile=True)))
    assert compiled.summary["best_validation_bits"] == pytest.approx(
        plain.summary["best_validation_bits"], abs=1e-3
    )


@pytest.mark.parametrize("amp", [False, True])
def test_gradients_are_clipped_after_the_backward_pass(markov, tmp_path, amp):
    """With a bound this small the parameters hardly move, whatever the rate."""
    run = prepare(
        config(markov, tmp_path, max_steps=3, optimizer="sgd", weight_decay=0.0, lr=1.0,
               schedule="constant", clip=1e-9, use_amp=amp)
    )  # fmt: skip
    before = [p.detach().clone() for p in run.model.parameters()]
    fit(run)
    after = [p.detach() for p in run.model.parameters()]
    moved = max(float((a - b).abs().max()) for a, b in zip(after, before, strict=True))
    assert 0 < moved < 1e-8


def test_bfloat16_agrees_roughly(markov, tmp_path):
    plain = fit(prepare(config(markov, tmp_path, max_steps=20)))
    amp = fit(prepare(config(markov, tmp_path, max_steps=20, use_amp=True)))
    assert amp.summary["best_validation_bits"] == pytest.approx(
        plain.summary["best_validation_bits"], abs=0.1
    )


def test_batches_string_epochs_together(markov, tmp_path):
    run = prepare(config(markov, tmp_path, epochs=3))
    batches = run.batches
    assert isinstance(batches, TrainingBatches)
    per_epoch = len(batches.loader)
    seen = [batch["offset"].tolist() for batch in batches]
    assert len(seen) == len(batches) == 3 * per_epoch
    again = prepare(run.config).batches.loader
    expected = [batch["offset"].tolist() for _ in range(3) for batch in again]
    assert seen == expected


@pytest.mark.parametrize("ending", [{"max_steps": 40}, {"max_time": 0.02, "epochs": 1000}])
def test_the_progress_bar_shows_bits_and_the_ceiling(markov, tmp_path, monkeypatch, capsys, ending):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    run = prepare(config(markov, tmp_path, **ending))
    fit(run)
    shown = capsys.readouterr().out
    last = [part for part in shown.replace("\n", "\r").split("\r") if "bits=" in part][-1]
    assert f"ceiling={run.ceiling.bits:.3f}" in last
    assert "symbols/s=" in last
    assert "MiB=" in last
    assert "val=" in shown
    total = int(last.split("/")[1].split()[0])
    assert total == 40 if "max_steps" in ending else total < len(run.batches) / 10


def test_tensorboard_holds_the_same_numbers(markov, tmp_path):
    fit(prepare(config(markov, tmp_path, max_steps=20)))
    fit(prepare(config(markov, tmp_path, max_steps=20)))  # a fresh run starts its events anew
    assert_logged_once(tmp_path)


def test_max_samples_limits_the_training_range_only(markov, tmp_path):
    run = prepare(config(markov, tmp_path, max_samples=2000))
    assert run.batches.loader.stop == 2000
    assert run.splits == prepare(config(markov, tmp_path)).splits


def test_workers_are_capped_and_said(markov, tmp_path):
    run = prepare(config(markov, tmp_path, workers=10_000))
    assert any("--workers 10000 is capped" in remark for remark in run.remarks)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seq_len": 0}, "--seq_len 0; at least 1 fits"),
        ({"lr": 0.0}, "--lr 0.0; a positive rate fits"),
        ({"lr": float("nan")}, "--lr nan"),
        ({"batch": 5000}, "less than one batch of 5000"),
        ({"max_samples": 5}, "--max_samples 5 is less than one window of 33"),
        ({"seq_len": 20_000}, "less than one window of 20001"),
        ({"nhead": 3}, "--nhead 3 must divide --d_model 32"),
        ({"bins": 1024}, "--bins 1024 does not fit an alphabet of"),
        ({"alphabet": 3}, "lies outside the declared alphabet of 3"),
        ({"alphabet": 70_000}, "--alphabet 70000; 1 to 65536 fits"),
        ({"device": "cuda:99"}, "CUDA devices"),
        ({"device": "toaster"}, "--device toaster; auto, cpu, cuda or cuda:N fits"),
        ({"split": (0.5, 0.5, 0.5)}, "split fractions"),
        ({"split": (float("nan"),) * 3}, "split fractions"),
        ({"warmup_ratio": 2.0}, "--warmup_ratio 2.0"),
        ({"nhead": 0}, "must be at least 1"),
        ({"nhead_kv": 0}, "must be at least 1"),
        ({"seed": 10**23}, "--seed"),
        ({"lr": float("inf")}, "--lr inf"),
        ({"clip": float("nan")}, "--clip nan"),
        ({"max_time": float("inf")}, "--max_time inf"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_written(markov, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        prepare(config(markov, tmp_path / "new" / "folder", **changes))
    assert list(tmp_path.iterdir()) == []


def test_the_stream_is_never_overwritten(markov, tmp_path):
    copy = tmp_path / "s.u16"
    copy.write_bytes(Path(markov).read_bytes())
    (tmp_path / "notes.txt").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    inside = tmp_path / "m.run" / "s.u16"
    inside.parent.mkdir()
    inside.write_bytes(copy.read_bytes())
    for u16_path, ckpt, words in (
        (copy, copy, "exists and is no model of pyseq"),
        (copy, tmp_path / "notes.txt", "exists and is no model of pyseq"),
        (copy, tmp_path / "pipe", "exists and is no model of pyseq"),
        (copy, tmp_path / "new.run", "would be its own run folder"),
        (copy, tmp_path, "is a directory"),
        (inside, tmp_path / "m.pt", "lies in the run folder"),
    ):
        with pytest.raises(UserError, match=words):
            prepare(TrainConfig(u16_path=str(u16_path), ckpt=str(ckpt), **SMALL))
    assert copy.read_bytes() == inside.read_bytes()
    assert (tmp_path / "notes.txt").read_text() == "mine"
