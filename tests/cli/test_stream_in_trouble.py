"""What happens to a stream while it is trained on, or between two runs, is told in one sentence."""

import os

import numpy as np
import pytest

from pyseq.cli.main import main
from tests.training.small_runs import SMALL, act_in


@pytest.fixture
def stream(tmp_path):
    path = tmp_path / "s.u16"
    np.random.default_rng(0).integers(0, 40, 60_000).astype("<u2").tofile(path)
    return path


def train(stream, folder, **changes) -> int:
    settings = SMALL | {"max_steps": 40, "device": "cpu"} | changes
    flags = [f"--{name}={value}" for name, value in settings.items()]
    return main(["train", f"--u16_path={stream}", f"--ckpt={folder / 'model.pt'}", *flags])


def at_step(monkeypatch, step: int, act) -> None:
    def once(trainer):
        if trainer.global_step == step:
            act()

    act_in(monkeypatch, "on_train_batch_end", once)


@pytest.mark.parametrize("io", ["mmap", "pread"])
@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda path: os.truncate(path, 50), "was truncated while it was open"),
        (lambda path: os.replace(path.with_name("other"), path), "was replaced while it was open"),
        (os.remove, "is gone"),
    ],
)
def test_while_it_is_trained_on(stream, tmp_path, monkeypatch, capsys, io, act, words):
    np.zeros(60_000, "<u2").tofile(stream.with_name("other"))
    monkeypatch.setattr("pyseq.data.prefetch.VERIFIED_EVERY", 0.0)
    at_step(monkeypatch, 5, lambda: act(stream))
    assert train(stream, tmp_path, io=io) == 2
    [said] = [line for line in capsys.readouterr().err.splitlines() if words in line]
    assert str(stream) in said


def test_replaced_between_two_runs(stream, tmp_path, capsys):
    assert train(stream, tmp_path, max_steps=10, save_every=5) == 0
    np.random.default_rng(1).integers(0, 40, 60_000).astype("<u2").tofile(stream)
    assert train(stream, tmp_path, max_steps=10, save_every=5, resume="auto") == 2
    assert "was trained on other data" in capsys.readouterr().err


def test_a_shard_that_is_missing_or_may_not_be_read(stream, tmp_path, monkeypatch, capsys):
    shard = stream.with_name("t.u16")
    assert main(["train", "--u16_path", str(shard), "--ckpt", str(tmp_path / "m.pt")]) == 2
    assert f"{shard} cannot be read: No such file" in capsys.readouterr().err
    shard.symlink_to(tmp_path / "nowhere")
    assert train(tmp_path / "*.u16", tmp_path) == 2
    assert f"{shard} cannot be read: No such file" in capsys.readouterr().err
    shard.unlink()
    shard.write_bytes(stream.read_bytes())
    real = os.open

    def refuse(path, *arguments, **named):  # root may read anything, so the refusal is made
        if str(path) == str(shard):
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "open", refuse)
    assert train(tmp_path / "*.u16", tmp_path) == 2
    assert f"{shard} cannot be read: Permission denied" in capsys.readouterr().err
