"""What a launch asks of PyTorch's settings."""

import pytest
import torch

from pyseq.kernels import heads, launch
from pyseq.kernels.prepare_keys import limits as prepare_keys_limits


@pytest.fixture
def _settings_restored():
    before = torch.backends.cuda.matmul.fp32_precision
    yield
    torch.backends.cuda.matmul.fp32_precision = before


@pytest.mark.usefixtures("_settings_restored")
def test_tf32_only_where_asked_for():
    matmul = torch.backends.cuda.matmul
    matmul.fp32_precision = "ieee"
    assert launch.dot_precision(torch.float32) == "ieee"
    matmul.fp32_precision = "tf32"
    assert launch.dot_precision(torch.float32) == "tf32"
    assert launch.dot_precision(torch.bfloat16) == "ieee"


@pytest.mark.parametrize(("width", "columns"), [(1, 16), (16, 16), (17, 32), (40, 64), (128, 128)])
def test_padded(width, columns):
    assert launch.padded(width) == columns


def test_only_hopper_and_its_server_heirs_have_room():
    found = [launch.roomy(x) for x in (80, 86, 89, 90, 100, 103, 120, 121)]
    assert found == [False] * 3 + [True] * 3 + [False] * 2


def test_rows_that_32_bits_cannot_reach_are_refused():
    narrow = torch.empty(1, 1, 2, 3, device="meta")
    far = torch.empty_strided((1, 1, 2, 3), (1, 1, 1, 2**30), device="meta")
    assert heads.refuse(narrow, narrow) is None
    sentence = "features that lie 1073741824 apart leave no row of 3 within 2^31"
    assert heads.refuse(narrow, far) == sentence
    assert prepare_keys_limits.refuse(far) == sentence
    # A gradient is the caller's of the backward, who cannot choose another backend.
    assert heads.near_rows(narrow) is narrow
    assert heads.near_rows(far).stride() == narrow.stride()


@pytest.mark.parametrize(("setting", "on"), [("1", True), ("0", False), ("", False), (None, False)])
def test_interpreted(setting, on, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if setting is not None:
        monkeypatch.setenv("TRITON_INTERPRET", setting)
    assert launch.interpreted() is on
