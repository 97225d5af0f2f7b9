"""Training states: nested values come back as they were, a kill leaves one whole, pickles never."""

import os

import pytest
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


def test_what_json_cannot_say_is_refused(tmp_path):
    with pytest.raises(TypeError, match="holds a object"):
        SafetensorsCheckpointIO().save_checkpoint({"global_step": 0, "x": object()}, tmp_path)
    assert not has_checkpoint(tmp_path)


def test_missing_and_damaged_states_are_told(tmp_path):
    io = SafetensorsCheckpointIO()
    with pytest.raises(UserError, match="holds no training state"):
        io.load_checkpoint(tmp_path)
    io.save_checkpoint(STATE, tmp_path)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(UserError, match="holds no training state"):
        io.load_checkpoint(tmp_path)
