"""A disk that takes no more: one sentence, exit code 2, and the last good state goes on later."""

import contextlib
import resource
from pathlib import Path

import pytest

from pyseq.cli.main import main
from pyseq.training.checkpoint_io import has_checkpoint
from pyseq.training.metrics_file import MetricsFile
from tests.training.small_runs import assert_alike, assert_logged_once, config, state

SETTINGS = {"max_steps": 24, "epochs": 5, "eval_every": 8, "save_every": 5, "log_every": 2}


@contextlib.contextmanager
def largest_file(size: int):
    """The kernel refuses to let a file grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def train(markov, folder: Path, size: int | None = None, **changes) -> int:
    """Train by the command line, with files of at most `size` bytes; returns its exit code."""
    folder.mkdir(exist_ok=True)
    path = folder.with_name(f"{folder.name}.yaml")
    path.write_text(config(markov, folder, **(SETTINGS | changes)).to_yaml())
    with largest_file(size) if size is not None else contextlib.nullcontext():
        return main(["train", "--config", str(path)])


@pytest.fixture(scope="module")
def whole(markov, tmp_path_factory):
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(markov, folder) == 0
    return folder


def assert_one_sentence(err: str, *words: str) -> None:
    said = [line for line in err.splitlines() if not line.startswith("step ")]
    assert len(said) == 1
    for word in ("pyseq train: ", "cannot be written", *words):
        assert word in said[0]


@pytest.mark.parametrize(
    ("file", "share", "changes", "saved"),
    [
        # The state grows by the best model when there is one: 15 fits no more.
        ("last/tensors-*.safetensors", 0.85, {}, 5),
        ("last/tensors-*.safetensors", 0.5, {}, None),
        ("../model.pt", 0.5, {"save_every": 50}, None),
        ("config.yaml", 0.5, {}, None),
    ],
)
def test_a_file_that_does_not_fit(markov, tmp_path, capsys, whole, file, share, changes, saved):
    (written,) = (whole / "model.run").glob(file)
    capsys.readouterr()
    size = int(share * written.stat().st_size)
    assert train(markov, tmp_path / "run", size, **changes) == 2
    assert_one_sentence(capsys.readouterr().err, written.name.split("-")[0], "File too large")
    folder = tmp_path / "run" / "model.run"
    assert has_checkpoint(folder / "last") == (saved is not None)
    if saved is not None:
        assert state(tmp_path / "run")["global_step"] == saved
    assert not [path for path in folder.rglob("*") if "partial" in path.name]
    assert train(markov, tmp_path / "run", **changes, resume="auto") == 0
    assert_alike(whole, tmp_path / "run")
    assert_logged_once(tmp_path / "run")


@pytest.mark.parametrize("name", ["_jsonl", "_csv"])
def test_rows_that_do_not_fit(markov, tmp_path, capsys, monkeypatch, whole, name):
    append = MetricsFile.append

    def no_more_room(self, row):
        if row["step"] == 12:
            setattr(self, name, Path("/dev/full"))
        append(self, row)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(MetricsFile, "append", no_more_room)
        assert train(markov, tmp_path / "run") == 2
    assert_one_sentence(capsys.readouterr().err, "No space left on device")
    assert state(tmp_path / "run")["global_step"] == 10
    assert train(markov, tmp_path / "run", resume="auto") == 0
    assert_alike(whole, tmp_path / "run")
    assert_logged_once(tmp_path / "run")


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_events_that_do_not_fit(markov, tmp_path, capfd, monkeypatch, whole):
    """TensorBoard writes in a thread of its own, whose traceback nobody needs."""
    from tensorboard.compat.tensorflow_stub.io import gfile

    append, write_row, full = gfile.LocalFileSystem.append, MetricsFile.append, []

    def refuse(self, filename, content, binary_mode=False):
        append(self, "/dev/full" if full else filename, content, binary_mode)

    def fill(self, row):
        full.extend([True] * (row["step"] == 12))
        write_row(self, row)

    capfd.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(gfile.LocalFileSystem, "append", refuse)
        patch.setattr(MetricsFile, "append", fill)
        assert train(markov, tmp_path / "run") == 2
    said = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("step ")]
    assert said == ["pyseq train: the output: No space left on device"]
    assert state(tmp_path / "run")["global_step"] == 10
    assert train(markov, tmp_path / "run", resume="auto") == 0
    assert_alike(whole, tmp_path / "run")
