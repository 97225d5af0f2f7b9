"""Trainings that read augmented windows: what is disturbed, what is not, and exact resume."""

import functools

import numpy as np
import pytest
import torch

from pyseq.models import load_model
from pyseq.training import fit as fit_module
from pyseq.training.fit import fit
from pyseq.training.lightning_module import SequenceTraining
from pyseq.training.run import Run, prepare
from tests.training.small_runs import act_in, assert_alike, config, rows

AUGMENTED = {
    "noise": {"kind": "values", "bins": 16, "augment_noise": 2.0},
    "replacement": {"kind": "tokens", "augment_replace": 0.2},
    "masks": {"kind": "tokens", "augment_mask": 0.2, "model": "supercharged", "local_width": 32},
    "both, of tokens": {"kind": "tokens", "augment_mask": 0.1, "augment_replace": 0.1,
                        "dropout": 0.1},
}  # fmt: skip


@pytest.fixture
def train(markov, tmp_path, monkeypatch):
    """Trains in a folder of that name, without the evaluation at the end."""
    monkeypatch.setattr(fit_module, "_conclude", lambda run, steps: run)

    def trained(name: str, **changes) -> Run:
        (tmp_path / name).mkdir(exist_ok=True)
        settings = {"eval_every": 10, "epochs": 5} | changes
        return fit(prepare(config(markov, tmp_path / name, **settings)))

    return trained


@pytest.mark.parametrize("settings", AUGMENTED.values(), ids=AUGMENTED)
def test_only_what_training_reads_is_disturbed(markov, tmp_path, settings):
    run = prepare(config(markov, tmp_path, **settings))
    module = SequenceTraining(run.model, run.config, run.binning, 10, {}, run.augmentation)
    given = []

    def objective(window, seen):
        given.append((window, seen))
        return torch.zeros(()), torch.zeros(())

    def loss(window):
        given.append((window, None))
        return torch.zeros(())

    module.objective, module.loss = objective, loss
    batch = next(iter(run.batches))
    classes = run.binning.apply(batch["window"])
    module.training_step(batch, 0)
    module.validation_step(batch, 0)
    (window, seen), (validated, _) = given
    assert torch.equal(window, classes)
    assert torch.equal(validated, classes)
    assert 0.1 < (seen != classes[:, :-1]).float().mean() < 0.8


@pytest.mark.parametrize("settings", AUGMENTED.values(), ids=AUGMENTED)
def test_resuming_draws_what_the_uninterrupted_run_drew(train, tmp_path, monkeypatch, settings):
    settings = {**settings, "max_steps": 30, "save_every": 7}
    train("whole", **settings)

    def die(trainer):
        if trainer.global_step == 17:
            raise InterruptedError

    with monkeypatch.context() as patch:
        act_in(patch, "on_train_batch_end", die)
        with pytest.raises(InterruptedError):
            train("parts", **settings)
    torch.manual_seed(99)  # another process would have drawn otherwise
    train("parts", **settings, resume="auto")
    assert_alike(tmp_path / "whole", tmp_path / "parts")


def test_noise_that_rounds_to_nothing_is_the_training_without(train, tmp_path):
    settings = {"kind": "values", "bins": 16, "max_steps": 20}
    train("plain", **settings)
    train("noise", **settings, augment_noise=1e-9)
    assert_alike(tmp_path / "plain", tmp_path / "noise")


@pytest.mark.parametrize("settings", AUGMENTED.values(), ids=AUGMENTED)
def test_it_learns_and_costs_training_bits(train, tmp_path, settings):
    run = train("m", **settings, max_steps=100, lr=1e-2, eval_every=50)
    validated = [row["val_bits"] for row in rows(tmp_path / "m") if "val_bits" in row]
    disturbed = [row["train_bits"] for row in rows(tmp_path / "m") if "train_bits" in row]
    assert validated[-1] < np.log2(run.binning.classes) - 0.2
    assert disturbed[-1] > validated[-1]
    model, card = load_model(run.config.ckpt)
    with torch.inference_mode():
        model.eval()
        losses = [model.loss(card.binning.apply(batch["window"])) for batch in run.validation]
    assert float(torch.stack(losses).mean()) / np.log(2) == pytest.approx(min(validated), abs=1e-3)


def test_compiled_training_reads_the_same(train, tmp_path, monkeypatch):
    """The augmentation is not compiled, so its draws are the same."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    settings = AUGMENTED["both, of tokens"] | {"max_steps": 5, "eval_every": 5, "dropout": 0.0}
    bits = []
    for compiled in (False, True):
        train(str(compiled), **settings, compile=compiled)
        bits.append(rows(tmp_path / str(compiled))[-1]["val_bits"])
    assert bits[0] == pytest.approx(bits[1], abs=1e-3)
