"""What a launch asks of PyTorch's settings."""

import pytest
import torch

from pyseq.kernels import launch


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


@pytest.mark.parametrize(("setting", "on"), [("1", True), ("0", False), ("", False), (None, False)])
def test_interpreted(setting, on, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if setting is not None:
        monkeypatch.setenv("TRITON_INTERPRET", setting)
    assert launch.interpreted() is on
