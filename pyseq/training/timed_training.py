"""A small model of a stream in so many minutes, for who wants its predictions and no tuning."""

import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch

from pyseq.data.described_stream import describe_stream
from pyseq.data.stream_info import Kind
from pyseq.training.comparison import ENDLESS
from pyseq.training.config import TrainConfig
from pyseq.training.fit import train_only
from pyseq.training.interruption import TrainingStopped
from pyseq.training.run import prepare

MOST_CLASSES = 1024
ADVICE = "a quick training is not resumed; the same call begins anew"
# A minute on one CPU thread is short of steps. In half of one, on a busy machine, this made about
# four times the steps of width 128 at seq_len 128 (lr 3e-3) and ended 0.06 bits lower on an order-2
# chain of 8 symbols and 0.11 on a hidden Markov chain of 256.
SMALL: dict[str, Any] = {
    "d_model": 64, "nlayers": 2, "nhead": 4, "dim_ff": 192, "seq_len": 64, "stride": 1,
    "batch": 16, "lr": 5e-3, "eval_every": 200, "eval_symbols": 20_000, "save_every": 1_000_000,
}  # fmt: skip


def train_predictor(
    u16_path: str,
    minutes: float,
    *,
    ckpt: str | Path | None = None,
    alphabet: int | None = None,
    kind: Literal["auto", "tokens", "values"] = "auto",
    split: tuple[float, float, float] = (0.6, 0.1, 0.3),
    most_classes: int = MOST_CLASSES,
    io: Literal["mmap", "pread", "ram", "gpu"] = "mmap",
    device: str = "auto",
    threads: int | None = 1,
    seed: int = 0,
) -> Path:
    """Train a small baseline on the first part of a stream, without a word.

    Up to `most_classes` symbols are a class each. A larger alphabet is cut into so many adaptive
    bins of about equally many training symbols, where a frequent symbol has a bin to itself: with
    a loss over 65,536 classes a CPU makes too few steps in a minute to learn anything. What is
    scored is then the stream of bins. Its bits say how predictable the coarse size of a value is
    and nothing of its low bits; the symbols themselves cost log2 of the bin's size more
    (`LearnedScores.symbol_bits`), an upper bound that is reached where they are even within a bin.
    Structure in low bits alone, as many generators of random numbers have it, is invisible to this
    model. Tokens are cut alike, as if they were values: neighbouring ids have little in common but,
    at best, their frequency.

    Args:
        u16_path (str): the stream, or a glob of shards.
        minutes (float): of training, validations included; reading the stream comes on top.
        ckpt (str, Path or None): where the model goes, with its run folder beside it; None: into a
            new temporary folder, the parent of what is returned, which the caller removes.
        alphabet (int | None): declared size; None: the JSON's, or the highest symbol + 1. Where
            this and the kind are given, the stream is read once less.
        kind (str): as for `pyseq train --kind`.
        split (tuple of 3 floats): shares of training, validation and what stays unseen.
        most_classes (int): see above; at least 2.
        io (str): how the file is read.
        device (str): auto, cpu, cuda, or cuda:N.
        threads (int | None): CPU threads, for the time of the training; None: as many as torch
            uses.
        seed (int): of weights and order.

    Returns:
        Path: of the model with the lowest validation loss; `held_out.unseen_range` says where its
        probabilities are evidence.

    Raises:
        UserError: the stream or an option does not fit, the stream is too short or, if it is
            cut into bins, holds a single symbol.
        TrainingStopped: SIGTERM or Ctrl-C, in the main thread.
    """
    if alphabet is None or kind == "auto":
        described = describe_stream(u16_path, alphabet=alphabet, kind=kind)
        described.stream.close()
        alphabet, kind = described.alphabet, described.kind
    folder = Path(tempfile.mkdtemp(prefix="pyseq-") if ckpt is None else Path(ckpt).parent)
    path = folder / ("model.pt" if ckpt is None else Path(ckpt).name)
    config = TrainConfig(
        u16_path=u16_path, ckpt=str(path), alphabet=alphabet, io=io, split=split, epochs=ENDLESS,
        max_time=minutes, device=device, threads=threads, seed=seed,
        **_classes(alphabet, kind, most_classes), **SMALL,
    )  # fmt: skip
    before = torch.get_num_threads()
    try:
        with torch.random.fork_rng():
            run = prepare(config)
            with run.described.stream:
                train_only(run)
    except BaseException as failure:
        if ckpt is None:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(failure, TrainingStopped):
            stopped = 128 + failure.received  # not 0 after SIGTERM: what was learned is lost
            raise TrainingStopped(failure.received, "", ADVICE, stopped) from None
        raise
    finally:
        torch.set_num_threads(before)
    return path


def _classes(alphabet: int, kind: Kind, most_classes: int) -> dict[str, Any]:
    """The flags that make at most so many classes of an alphabet."""
    if alphabet <= most_classes:
        return {"kind": kind, "bins": "none"}
    return {"kind": "values", "bins": most_classes, "binning": "adaptive"}
