"""What small trainings need."""

import pytest
from tensorboard.summary.writer import event_file_writer

from pyseq.data.streams import make
from pyseq.training import fit as fit_module


@pytest.fixture(scope="session")
def markov(tmp_path_factory):
    """Path of 30,000 symbols of a Markov chain."""
    path = tmp_path_factory.mktemp("stream") / "markov.u16"
    make("markov1").generate(30_000, 0).numpy().astype("<u2").tofile(path)
    return str(path)


@pytest.fixture(autouse=True)
def event_files_in_order(monkeypatch):
    """TensorBoard reads files by name: second, process, and a number, of which 10 precedes 9."""
    counter = event_file_writer.AtomicCounter(0)
    monkeypatch.setattr(event_file_writer, "_global_uid", counter)


@pytest.fixture
def unevaluated(monkeypatch):
    """For tests about training alone."""
    monkeypatch.setattr(fit_module, "_conclude", lambda run, steps: None)
