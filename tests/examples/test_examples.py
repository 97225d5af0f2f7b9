"""The examples run, learn, and resume."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "examples"


def example(name: str):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def stream(tmp_path) -> str:
    """One symbol follows another in a fixed order of 7, which is soon learned."""
    path = tmp_path / "s.u16"
    (np.arange(100_000) % 7).astype("<u2").tofile(path)
    return str(path)


def test_the_nanogpt_loop_learns_and_resumes_exactly(stream, tmp_path, monkeypatch):
    loop = example("nanogpt_loop")
    monkeypatch.setattr(loop, "VOCABULARY", 50)
    monkeypatch.setattr(loop, "BATCH", 4)
    whole = loop.train(stream, 40, tmp_path / "whole.pt")
    assert whole[-1] < 0.5 * whole[0]
    parts = loop.train(stream, 15, tmp_path / "parts.pt")
    parts += loop.train(stream, 25, tmp_path / "parts.pt")
    assert parts == pytest.approx(whole, rel=1e-5)
    state = torch.load(tmp_path / "whole.pt")["loader"]
    assert state["position"] == 40 * 4


def test_the_nanogpt_loop_runs_as_its_first_lines_say(stream, tmp_path):
    line = [sys.executable, str(FOLDER / "nanogpt_loop.py"), stream, "2"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("step 0: ")
    assert (tmp_path / "nanogpt_loop.pt").exists()
