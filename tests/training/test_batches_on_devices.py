"""Trainings whose batches are sent to a device, or gathered on it, are the trainings they were."""

import pytest
import torch

from pyseq.data.binning import Binning
from pyseq.errors import UserError
from pyseq.models.device import stream_device
from pyseq.training import run as run_module
from pyseq.training.fit import fit
from pyseq.training.lightning_module import SequenceTraining
from pyseq.training.metrics_file import MetricsFile
from pyseq.training.run import prepare
from tests.training.small_runs import act_in, assert_alike, config

CPU = torch.device("cpu")


class Killed(Exception):
    """Stands for a kill."""


def die_at_step_17(trainer):
    if trainer.global_step == 17:
        raise Killed


@pytest.mark.parametrize("io", ["mmap", "gpu"])
def test_a_training_is_the_same_and_resumes_exactly(markov, tmp_path, monkeypatch, unevaluated, io):
    """With the CPU for the device: sent to it from the files, or kept on it."""
    settings = {"max_steps": 30, "epochs": 5, "save_every": 7, "eval_every": 10, "device": "cpu"}
    plain, other = tmp_path / "plain", tmp_path / "other"
    plain.mkdir()
    other.mkdir()
    fit(prepare(config(markov, plain, **settings)))
    monkeypatch.setattr(run_module, "_batch_device", lambda _config: "cpu")
    monkeypatch.setattr(run_module, "stream_device", lambda io, _: CPU if io == "gpu" else None)
    there = config(markov, other, **settings, io=io, resume="auto")
    with monkeypatch.context() as once:
        act_in(once, "on_train_batch_end", die_at_step_17)
        with pytest.raises(Killed):
            fit(prepare(there))
    fit(prepare(there))
    assert_alike(plain, other)


def test_windows_that_are_there_are_not_moved(markov, tmp_path):
    run = prepare(config(markov, tmp_path))
    module = SequenceTraining(run.model, run.config, Binning(2), run.steps, {})
    batch = {"window": torch.zeros(2, 3), "offset": torch.zeros(2)}
    moved = module.transfer_batch_to_device(batch, CPU, 0)
    assert moved["window"] is batch["window"]
    there = module.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert there["window"].is_meta
    assert there["offset"] is batch["offset"]


def test_the_stream_is_kept_where_the_model_runs(monkeypatch):
    first, second = torch.device("cuda", 0), torch.device("cuda", 1)
    assert stream_device("mmap", first) is None
    assert stream_device("gpu", second) == second
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match="--io gpu, but --device cpu; cuda fits, or --io mmap"):
        stream_device("gpu", CPU)


def test_io_gpu_without_a_gpu_is_told(markov, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError) as caught:
        prepare(config(markov, tmp_path, io="gpu"))
    sentence = "io is 'gpu'; no GPU that torch can use; 'mmap', 'pread' or 'ram' fit"
    assert str(caught.value) == sentence


@pytest.mark.gpu
@pytest.mark.parametrize("io", ["mmap", "gpu"])
def test_a_training_on_a_gpu_gets_its_windows_there(markov, tmp_path, monkeypatch, io):
    came_from = []
    move = SequenceTraining.transfer_batch_to_device

    def seen(self, batch, device, dataloader_idx):
        came_from.append(batch["window"].device)
        return move(self, batch, device, dataloader_idx)

    monkeypatch.setattr(SequenceTraining, "transfer_batch_to_device", seen)
    outcome = fit(prepare(config(markov, tmp_path, max_steps=60, epochs=5, device="cuda", io=io)))
    assert {device.type for device in came_from} == {"cuda"}
    bits = [
        row["train_bits"] for row in MetricsFile.read(outcome.run.folder) if "train_bits" in row
    ]
    assert bits[-1] < bits[0]
