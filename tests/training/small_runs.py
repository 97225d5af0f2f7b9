"""Small trainings, something that happens in the middle of them, and whether two end alike."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from pyseq.training.callbacks import StopAtEnd
from pyseq.training.checkpoint_io import SafetensorsCheckpointIO
from pyseq.training.config import TrainConfig
from pyseq.training.metrics_file import MetricsFile

SMALL = {"d_model": 32, "nlayers": 1, "nhead": 2, "dim_ff": 48, "seq_len": 32, "batch": 16,
         "eval_symbols": 1000, "eval_every": 20, "log_every": 5, "lr": 3e-3}  # fmt: skip
REPRODUCED = ("step", "epoch", "symbols", "train_bits", "val_bits", "lr")


def config(path, folder, **changes) -> TrainConfig:
    return TrainConfig(u16_path=path, ckpt=str(folder / "model.pt"), **(SMALL | changes))


def act_in(patch, hook: str, act) -> None:
    """Let `act(trainer)` happen in this hook, before anything is saved."""
    before = getattr(StopAtEnd, hook)

    def both(self, trainer, *rest, **more):
        act(trainer)
        before(self, trainer, *rest, **more)

    patch.setattr(StopAtEnd, hook, both)


def state(folder: Path) -> dict:
    """The saved state of the run in `folder`."""
    return SafetensorsCheckpointIO().load_checkpoint(folder / "model.run" / "last")


def rows(folder: Path) -> list[dict]:
    """What of the metrics of the run in `folder` must come out alike each time."""
    found = MetricsFile.read(folder / "model.run")
    return [{name: row[name] for name in REPRODUCED if name in row} for row in found]


def assert_alike(folder: Path, other: Path) -> None:
    """Both runs have the same parameters, rows and best model, bit for bit."""
    assert rows(other) == rows(folder)
    for read in (
        lambda where: state(where)["state_dict"],
        lambda where: safetensors.torch.load_file(where / "model.pt"),
    ):
        expected, found = read(folder), read(other)
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), name


def logged(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of TensorBoard's curves, in the order in which it shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "model.run" / "tensorboard"))
    events.Reload()
    names = ("train_bits", "val_bits", "lr")
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in names}


def assert_logged_once(folder: Path) -> None:
    """TensorBoard shows what the rows say: nothing is missing, and nothing is there twice."""
    written = rows(folder)
    for name, points in logged(folder).items():
        expected = {row["step"]: row[name] for row in written if name in row}
        assert dict(points) == pytest.approx(expected, rel=1e-6)  # they are float32
        steps = [step for step, _ in points]
        assert steps == sorted(steps)
        twice = 2 if name == "lr" else 1  # a row of training and one of validation
        assert all(steps.count(step) <= twice for step in steps)
