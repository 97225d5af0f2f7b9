"""The learning rate that a trial finds, and that the trial leaves nothing else behind."""

import csv
import os
import signal
import time

import numpy as np
import pytest
import torch
import yaml

from pyseq.data.streams import make
from pyseq.training import fit as fit_module
from pyseq.training import rate_finder
from pyseq.training.config import TrainConfig
from pyseq.training.fit import fit
from pyseq.training.interruption import TrainingStopped
from pyseq.training.metrics_file import MetricsFile
from pyseq.training.rate_finder import CURVE, DIVERGED, RATES, fastest_fall, with_found_rate
from pyseq.training.run import Run, prepare
from pyseq.training.schedules import SCHEDULES, peak_factor, rate_factor
from tests.training.small_runs import act_in, assert_alike, config, rows, state

BRIEF = {"epochs": 5, "max_steps": 30, "lr": 7e-4}


@pytest.fixture
def unevaluated(monkeypatch):
    """Trainings end with the run that they were, without an evaluation."""
    monkeypatch.setattr(fit_module, "_conclude", lambda run, steps: run)


def brief(path, folder, **changes) -> TrainConfig:
    folder.mkdir(exist_ok=True)
    return config(path, folder, **BRIEF | changes)


def search(path, folder, **changes) -> Run:
    run = prepare(brief(path, folder, lr_find=True, **changes))
    run.folder.mkdir()
    return with_found_rate(run)


def curve(run: Run) -> tuple[np.ndarray, np.ndarray]:
    with (run.folder / CURVE).open(newline="") as file:
        rows = [(float(row["lr"]), float(row["bits"])) for row in csv.DictReader(file)]
    rates, bits = zip(*rows, strict=True)
    return np.array(rates), np.array(bits)


def falling(at: float, *, start: float = 8.0, end: float = 5.0, width: float = 0.3) -> np.ndarray:
    """A loss that falls fastest at the rate `at`."""
    return end + (start - end) / (1 + np.exp(np.log10(RATES / at) / width))


@pytest.mark.parametrize("at", [1e-4, 1e-2, 0.3])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_steepest_place_is_found(at, noise):
    bits = falling(at) + noise * np.random.default_rng(0).normal(size=len(RATES))
    assert np.log10(fastest_fall(RATES, bits, 8.0) / at) == pytest.approx(0, abs=0.25)


@pytest.mark.parametrize("ending", [9.0, 1e6, np.inf, np.nan])
def test_a_divergence_moves_nothing(ending):
    bits = falling(1e-3)
    bits[80:] = ending
    assert np.log10(fastest_fall(RATES, bits, 8.0) / 1e-3) == pytest.approx(0, abs=0.15)


def test_becoming_as_good_as_guessing_is_no_fall():
    """An untrained model starts above chance; the way down to it shows nothing of the stream."""
    assert fastest_fall(RATES, falling(1e-4, start=12.0, end=8.0), 8.0) is None
    bits = falling(1e-4, start=12.0, end=8.0) - (8 - falling(1e-2))
    assert np.log10(fastest_fall(RATES, bits, 8.0) / 1e-2) == pytest.approx(0, abs=0.3)


@pytest.mark.parametrize("bits", [[], [8.0], [9.0, np.nan], [8.0] * 50, [7.99] * 50, [np.nan] * 9])
def test_no_fall_no_rate(bits):
    assert fastest_fall(RATES[: len(bits)], np.array(bits), 8.0) is None
    assert fastest_fall(RATES[:5], np.zeros(5), 0.0) is None  # a single class


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd", "dropout": 0.2, "gradient_accumulation": 2},
        {"model": "supercharged", "local_width": 32, "augment_mask": 0.1, "use_amp": True},
        {"schedule": "onecycle", "optimizer": "adam", "stride": 1},
    ],
)
def test_the_training_is_that_of_the_found_rate(markov, tmp_path, unevaluated, changes):
    """Bit for bit: weights, optimiser, random state, loader, rows and settings."""
    found = fit(prepare(brief(markov, tmp_path / "found", **changes, lr_find=True)))
    assert found.config.lr != BRIEF["lr"]
    given = fit(prepare(brief(markov, tmp_path / "given", **changes, lr=found.config.lr)))
    assert_alike(tmp_path / "found", tmp_path / "given")
    states = [state(tmp_path / name) for name in ("found", "given")]
    for name in ("optimizer_states", "lr_schedulers", "rng", "data"):
        assert same(states[0][name], states[1][name]), name
    settings = [yaml.safe_load((run.folder / "config.yaml").read_text()) for run in (found, given)]
    assert settings[0] | {"ckpt": ""} == settings[1] | {"ckpt": ""}
    assert found.card.training == found.config.to_dict()
    names = [{path.name for path in run.folder.iterdir()} for run in (found, given)]
    assert names[0] - names[1] == {CURVE}


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_a_trial_leaves_no_trace_but_its_curve(markov, tmp_path, capsys):
    run = prepare(brief(markov, tmp_path, lr_find=True, dropout=0.3))
    run.folder.mkdir()
    weights = [p.clone() for p in run.model.parameters()]
    random, loader = torch.get_rng_state(), run.batches.state_dict()
    found = with_found_rate(run)
    assert torch.equal(torch.get_rng_state(), random)
    assert run.batches.state_dict() == loader
    after = run.model.parameters()
    assert all(torch.equal(a, b) and a.grad is None for a, b in zip(after, weights, strict=True))
    assert [path.name for path in run.folder.iterdir()] == [CURVE]
    assert (found.model, found.batches) == (run.model, run.batches)
    rates, bits = curve(found)
    assert np.array_equal(rates, RATES[: len(bits)])
    assert bits[0] == pytest.approx(np.log2(run.binning.classes), abs=0.2)
    assert min(bits) < bits[0] - 1
    assert (found.config.lr, found.config.lr_find) != (run.config.lr, True)
    said = capsys.readouterr().out
    assert float(said.split()[2].rstrip(",")) == found.config.lr  # to be given again
    assert "at which the loss fell fastest in" in said
    assert f"{len(rates)} trial steps from 1e-06 to {rates[-1]:.3g}; {run.folder / CURVE}" in said


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_found_rate_is_the_highest_of_its_schedule(schedule):
    factors = [rate_factor(schedule, progress, 0.25) for progress in np.linspace(0, 1, 101)]
    assert max(factors) == pytest.approx(peak_factor(schedule))


def test_onecycle_peaks_at_the_found_rate(markov, tmp_path, capsys):
    cosine = search(markov, tmp_path / "cosine")
    capsys.readouterr()
    onecycle = search(markov, tmp_path / "onecycle", schedule="onecycle")
    assert onecycle.config.lr == pytest.approx(cosine.config.lr / 10, rel=0.01)
    assert (
        "since onecycle rises to 10 times that, at which the loss fell" in capsys.readouterr().out
    )


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_the_found_rate_is_a_good_one(markov, tmp_path, unevaluated, optimizer):
    """Better than a hundredth of it, and than a hundred times as much."""
    settings = {"optimizer": optimizer, "max_steps": 80, "eval_every": 80}
    found = fit(prepare(brief(markov, tmp_path / "1", **settings, lr_find=True)))
    for factor in (0.01, 100):
        lr = found.config.lr * factor
        fit(prepare(brief(markov, tmp_path / str(factor), **settings, lr=lr)))
    bits = {factor: rows(tmp_path / str(factor))[-1]["val_bits"] for factor in (0.01, 1, 100)}
    assert bits[1] < min(bits[0.01], bits[100]) - 0.2


def test_nothing_is_found_on_an_unpredictable_stream(tmp_path, capsys):
    path = tmp_path / "rolls.u16"
    make("hmac_rolls").generate(40_000, 0).numpy().astype("<u2").tofile(path)
    run = search(str(path), tmp_path / "run", kind="values", bins=256, d_model=64)
    assert (run.config.lr, run.config.lr_find) == (BRIEF["lr"], False)
    said = capsys.readouterr().out
    assert said.startswith("learning rate: 0.0007, as given: in ")
    assert "never fell clearly below the 8.000 bits/symbol that guessing evenly costs" in said
    assert (run.folder / CURVE).exists()


def test_a_trial_ends_where_the_loss_diverges(markov, tmp_path):
    rates, bits = curve(search(markov, tmp_path))
    assert len(rates) < len(RATES)
    over = ~(bits < DIVERGED * bits[0])
    assert over.tolist() == [False] * (len(bits) - 1) + [True]


def test_small_streams_and_accumulation_have_enough_trial_steps(markov, tmp_path):
    run = search(markov, tmp_path, max_samples=600, gradient_accumulation=3)
    assert len(run.batches.loader) == 1
    rates, _ = curve(run)
    assert len(rates) > 70  # it ends where it diverges


def test_a_training_that_goes_on_does_not_search_again(markov, tmp_path, unevaluated, monkeypatch):
    settings = {"lr_find": True, "save_every": 10, "resume": "auto"}
    fit(prepare(brief(markov, tmp_path / "whole", **settings)))

    def die(trainer):
        if trainer.global_step == 15:
            raise InterruptedError

    with monkeypatch.context() as patch:
        act_in(patch, "on_train_batch_end", die)
        with pytest.raises(InterruptedError):
            fit(prepare(brief(markov, tmp_path / "parts", **settings)))
    searched = (tmp_path / "parts" / "model.run" / CURVE).read_text()
    monkeypatch.setattr(rate_finder, "_trial", None)  # a second search would fail
    parts = fit(prepare(brief(markov, tmp_path / "parts", **settings | {"lr": 0.5})))
    assert_alike(tmp_path / "whole", tmp_path / "parts")
    assert (parts.folder / CURVE).read_text() == searched
    fresh = fit(prepare(brief(markov, tmp_path / "parts")))
    assert not (fresh.folder / CURVE).exists()  # it was of another training


def test_the_clock_starts_after_the_search(markov, tmp_path, unevaluated, monkeypatch):
    def trial(run):
        time.sleep(1.5)
        return falling(1e-2)

    monkeypatch.setattr(rate_finder, "_trial", trial)
    settings = {"max_time": 0.02, "max_steps": None, "epochs": 1000, "lr_find": True}
    run = fit(prepare(brief(markov, tmp_path, **settings)))  # 1.2 seconds
    assert MetricsFile.read(run.folder)[-1]["step"] > 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_a_trial(markov, tmp_path, monkeypatch, number):
    class Signalled(rate_finder._Trial):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            os.kill(os.getpid(), number)
            super().on_train_batch_end(outputs, batch, batch_idx)

    monkeypatch.setattr(rate_finder, "_Trial", Signalled)
    before = signal.signal(number, signal.default_int_handler)  # also where it was ignored
    try:
        with pytest.raises(TrainingStopped, match=f"stopped by {number.name}"):
            fit(prepare(brief(markov, tmp_path, lr_find=True)))
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert list((tmp_path / "model.run").iterdir()) == []
