"""A model in so many minutes: quiet, in time, in few classes, good enough to be evidence."""

import shutil
import signal
import time

import numpy as np
import pytest
import torch

import pyseq
from pyseq.analysis.held_out import unseen_range
from pyseq.analysis.predictability.evidence import evidence_against_independence
from pyseq.analysis.predictability.learned import score_model
from pyseq.data import U16Stream
from pyseq.errors import UserError
from pyseq.training import timed_training
from pyseq.training.interruption import TrainingStopped
from pyseq.training.timed_training import train_predictor

SECONDS = 4


@pytest.fixture
def stream_of(tmp_path):
    """Writes symbols to a file."""

    def write(symbols) -> str:
        path = tmp_path / "s.u16"
        np.asarray(symbols).astype("<u2").tofile(path)
        return str(path)

    return write


def test_a_chain_is_learned_in_seconds_and_without_a_word(stream_of, tmp_path, capfd):
    random = np.random.default_rng(0)
    stays, fresh = random.random(40_000) < 0.7, random.integers(0, 8, 40_000)
    last = np.maximum.accumulate(np.where(stays, 0, np.arange(40_000)))
    symbols = stream_of(fresh[last])
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    began = time.perf_counter()
    path = train_predictor(symbols, SECONDS / 60, ckpt=tmp_path / "m.pt", device="cpu")
    assert time.perf_counter() - began < SECONDS + 60  # it stops by the clock, not by the epochs
    assert path == tmp_path / "m.pt"
    assert capfd.readouterr() == ("", "")
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    predictor = pyseq.load(path)
    card = predictor.card
    assert (card.binning.classes, card.binning.edges) == (8, None)
    table = np.arange(8)
    look = type("Look", (), {"name": "own", "table": table, "classes": 8})
    with U16Stream(symbols) as stream:
        (start, stop), _ = unseen_range(stream, card)
        assert start >= 0.7 * 40_000
        found = score_model(
            predictor, stream, start, stop, binning=card.binning, seq_len=card.seq_len, views=[look]
        )
    assert found.saved_against_marginal.low > 0.2
    against = evidence_against_independence(found.log_q["own"], found.view_classes["own"], 8)
    assert against.p_value < 1e-6


@pytest.mark.parametrize("kind", ["tokens", "values"])
def test_a_wide_alphabet_is_cut_into_even_bins(stream_of, kind):
    symbols = np.random.default_rng(0).integers(0, 50_000, 8000)
    symbols[::2] = 123  # half of all
    symbols[0] = 60_000
    path = train_predictor(
        stream_of(symbols), 1 / 60, alphabet=65_536, kind=kind, most_classes=32, device="cpu"
    )
    try:
        card = pyseq.load(path).card
    finally:
        shutil.rmtree(path.parent)
    assert card.binning.alphabet == 65_536
    assert card.binning.classes == 32
    counts = np.bincount(card.binning.table()[symbols[: card.data["trained"][1]]])
    frequent = card.binning.table()[123]
    assert counts[frequent] > 2300
    assert np.delete(counts, frequent).max() < 100


def test_a_temporary_folder_is_removed_if_nothing_comes_of_it(stream_of, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with pytest.raises(UserError, match="less than one window"):
        train_predictor(stream_of([1, 2, 3] * 20), 1, device="cpu")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_signal_ends_it_and_says_that_it_is_lost(stream_of, monkeypatch, tmp_path):
    real = timed_training.train_only

    def interrupted(run):
        monkeypatch.setattr(
            "pyseq.training.fit.make_trainer", lambda *_, **__: signal.raise_signal(signal.SIGTERM)
        )
        return real(run)

    monkeypatch.setattr(timed_training, "train_only", interrupted)
    with pytest.raises(TrainingStopped, match="the same call begins anew") as stopped:
        train_predictor(stream_of([1, 2, 3, 0] * 2000), 1, ckpt=tmp_path / "m.pt", device="cpu")
    assert stopped.value.exit_code == 143


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"minutes": 0}, "positive number of minutes"),
        ({"most_classes": 1}, "--bins 1 does not fit"),
    ],
)
def test_what_does_not_fit_is_told(stream_of, options, words, tmp_path):
    with pytest.raises(UserError, match=words):
        train_predictor(
            stream_of(np.arange(6000)), **({"minutes": 1} | options), ckpt=tmp_path / "m.pt"
        )


def test_a_constant_stream_trains(stream_of, tmp_path):
    path = train_predictor(stream_of(np.zeros(3000)), 1 / 60, ckpt=tmp_path / "m.pt", device="cpu")
    assert pyseq.load(path).card.binning.classes == 1
