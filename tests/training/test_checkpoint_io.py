"""Training states: nested values come back as they were, a kill leaves one whole, pickles never."""

import os
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from pyseq.errors import UserError
from pyseq.training.checkpoint_io import SafetensorsCheckpointIO, has_checkpoint

STATE = {
    "global_step": 3,
    "state_dict": {"w": torch.randn(3, 2), "scalar": torch.tensor(2.5, dtype=torch.bfloat16)},
    "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}, "betas": (0.9, 0.95)}],
    "loops": {"n": None, "flag": True, "text": "ü", "empty": {}, "nested": [[1], (2.0, "x")]},
}


def equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


def test_states_come_back(tmp_path):
    io = SafetensorsCheckpointIO()
    io.save_checkpoint(STATE, tmp_path / "last")
    assert has_checkpoint(tmp_path / "last")
    assert equal(STATE, io.load_checkpoint(tmp_path / "last"))
    io.save_checkpoint({**STATE, "global_step": 4}, tmp_path / "last")
    assert io.load_checkpoint(tmp_path / "last")["global_step"] == 4
    names = sorted(p.name for p in (tmp_path / "last").iterdir())
    assert names[0] == "state.json"
    assert len(names) == 2


@pytest.mark.parametrize("renames_that_succeed", [0, 1])
def test_a_kill_between_the_two_files_leaves_the_old_state(
    tmp_path, monkeypatch, renames_that_succeed
):
    io = SafetensorsCheckpointIO()
    io.save_checkpoint(STATE, tmp_path)
    real, left = os.replace, [renames_that_succeed]

    def replace(source, target):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        io.save_checkpoint({**STATE, "global_step": 9}, tmp_path)
    assert equal(STATE, io.load_checkpoint(tmp_path))


def test_what_kills_in_the_middle_of_writing_leave(tmp_path, monkeypatch):
    """The old state can be read, and the next one clears up, whatever the files are called."""
    io = SafetensorsCheckpointIO()
    io.save_checkpoint(STATE, tmp_path)

    def kill(tensors, file, metadata):
        file.write_bytes(b"half")
        (tmp_path / ".tmpAbc").write_bytes(b"half")
        raise Killed

    class Killed(BaseException):
        pass

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", kill)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Killed):
            io.save_checkpoint({**STATE, "global_step": 9}, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    assert equal(STATE, io.load_checkpoint(tmp_path))
    io.save_checkpoint({**STATE, "global_step": 9}, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert io.load_checkpoint(tmp_path)["global_step"] == 9


@pytest.mark.parametrize("file", ["tensors", "state.json"])
def test_a_full_disk_leaves_the_old_state_alone(tmp_path, monkeypatch, file):
    io = SafetensorsCheckpointIO()
    io.save_checkpoint(STATE, tmp_path)
    before, replace = sorted(tmp_path.iterdir()), os.replace

    def full(source, target):
        if Path(target).name.startswith(file):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=rf"{file}.* cannot be written: No space left"):
        io.save_checkpoint({**STATE, "global_step": 9}, tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    assert equal(STATE, io.load_checkpoint(tmp_path))


def test_everybody_may_read_a_state_whom_the_umask_lets(tmp_path):
    SafetensorsCheckpointIO().save_checkpoint(STATE, tmp_path)
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_removing_begins_with_what_makes_it_a_checkpoint(tmp_path, monkeypatch):
    io = SafetensorsCheckpointIO()
    io.save_checkpoint(STATE, tmp_path / "last")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a kill comes first
        io.remove_checkpoint(tmp_path / "last")
    assert not has_checkpoint(tmp_path / "last")
    io.remove_checkpoint(tmp_path / "last")
    assert list(tmp_path.iterdir()) == []


def test_what_json_cannot_say_is_refused(tmp_path):
    with pytest.raises(TypeError, match="holds a object"):
        SafetensorsCheckpointIO().save_checkpoint({"global_step": 0, "x": object()}, tmp_path)
    assert not has_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "state.json").unlink(),
        lambda folder: (folder / "state.json").write_text("{"),
        lambda folder: (folder / "state.json").write_text("[1]"),
        lambda folder: (folder / "state.json").write_text('{"tensors": "none.safetensors"}'),
        lambda folder: next(folder.glob("tensors-*")).unlink(),
        lambda folder: next(folder.glob("tensors-*")).write_bytes(b"\0" * 99),
    ],
)
def test_missing_and_damaged_states_are_told(tmp_path, damage):
    io = SafetensorsCheckpointIO()
    io.save_checkpoint(STATE, tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=r"holds no training state .* --resume never begins anew"):
        io.load_checkpoint(tmp_path)
