"""Whole trainings at small sizes: the run folder, exact resume, early stopping, the clock."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml

from pyseq.data.streams import make
from pyseq.errors import UserError
from pyseq.models import load_model
from pyseq.training import fit as fit_module
from pyseq.training.batches import TrainingBatches
from pyseq.training.checkpoint_io import SafetensorsCheckpointIO
from pyseq.training.config import TrainConfig
from pyseq.training.fit import fit, prepare, run_folder
from pyseq.training.metrics_file import MetricsFile

SMALL = {"d_model": 32, "nlayers": 1, "nhead": 2, "dim_ff": 48, "seq_len": 32, "batch": 16,
         "eval_symbols": 1000, "eval_every": 20, "log_every": 5, "lr": 3e-3}  # fmt: skip


@pytest.fixture(scope="module")
def markov(tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "markov.u16"
    make("markov1").generate(30_000, 0).numpy().astype("<u2").tofile(path)
    return str(path)


def config(path, folder, **changes) -> TrainConfig:
    return TrainConfig(u16_path=path, ckpt=str(folder / "model.pt"), **(SMALL | changes))


def test_a_run_leaves_what_it_promises(markov, tmp_path):
    outcome = fit(prepare(config(markov, tmp_path, max_steps=40)))
    folder = run_folder(outcome.run.config.ckpt)
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.yaml", "metrics.jsonl", "metrics.csv", "tensorboard", "last",
                     "summary.json", "report.html"}  # fmt: skip
    assert any(path.name.startswith("events") for path in (folder / "tensorboard").iterdir())
    assert yaml.safe_load((folder / "config.yaml").read_text())["max_steps"] == 40
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


@pytest.mark.parametrize(
    "changes", [{}, {"gradient_accumulation": 3}, {"dropout": 0.2, "optimizer": "sgd"}]
)
def test_resuming_ends_where_the_uninterrupted_run_ends(markov, tmp_path, monkeypatch, changes):
    """Stop after 17 of 40 steps, resume: parameters bit for bit those of one run."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    settings = {"max_steps": 40, "epochs": 5, "save_every": 17, "eval_every": 10, **changes}
    fit(prepare(config(markov, tmp_path / "whole", **settings)))

    class Stop(Exception):
        pass

    def die_after_17(self, trainer, module, *_):
        if trainer.global_step == 19:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(fit_module.callbacks.StopAtTime, "on_train_batch_end", die_after_17)
        with pytest.raises(Stop):
            fit(prepare(config(markov, tmp_path / "parts", **settings)))
    fit(prepare(config(markov, tmp_path / "parts", **settings, resume="auto")))

    def final(name):
        folder = tmp_path / name / "model.run"
        state = SafetensorsCheckpointIO().load_checkpoint(folder / "last")
        return state["state_dict"], MetricsFile.read(folder)

    whole, rows = final("whole")
    resumed, resumed_rows = final("parts")
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name
    kept = ("step", "epoch", "symbols", "train_bits", "val_bits", "lr")
    pick = [{k: row[k] for k in kept if k in row} for row in rows]
    assert [{k: row[k] for k in kept if k in row} for row in resumed_rows] == pick
    best = safetensors.torch.load_file(tmp_path / "whole" / "model.pt")
    for name, tensor in safetensors.torch.load_file(tmp_path / "parts" / "model.pt").items():
        assert torch.equal(best[name], tensor)


def test_resuming_a_finished_run_trains_no_further(markov, tmp_path):
    first = fit(prepare(config(markov, tmp_path, max_steps=20)))
    again = fit(prepare(config(markov, tmp_path, max_steps=20, resume="auto")))
    assert again.summary["steps"] == first.summary["steps"] == 20
    assert again.summary["test"] == first.summary["test"]


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
def test_optimisers_and_schedules_run(markov, tmp_path, optimizer, schedule):
    settings = {"optimizer": optimizer, "schedule": schedule, "max_steps": 6, "eval_every": 6}
    outcome = fit(prepare(config(markov, tmp_path, lr=1e-4, **settings)))
    assert outcome.summary["steps"] == 6


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
    seen = [tuple(batch["offset"].tolist()) for batch in batches]
    assert len(seen) == len(batches) == 3 * per_epoch
    epochs = [set(sum(seen[i * per_epoch : (i + 1) * per_epoch], ())) for i in range(3)]
    assert epochs[0] == epochs[1] == epochs[2] or len(epochs[0] & epochs[1]) > 0.9 * len(epochs[0])
    assert seen[:per_epoch] != seen[per_epoch : 2 * per_epoch]


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
        ({"warmup_ratio": 2.0}, "--warmup_ratio 2.0"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_written(markov, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        prepare(config(markov, tmp_path, **changes))
    assert list(tmp_path.iterdir()) == []
