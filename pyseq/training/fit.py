"""One training run, from what `prepare` settled to the report."""

import contextlib
import json
import shlex
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger

from pyseq.analysis.evaluation import Evaluation, evaluate
from pyseq.analysis.prediction_analysis import analyze_predictions
from pyseq.analysis.report import write_report
from pyseq.data.durable_file import replace_file
from pyseq.models.device import mixed_precision
from pyseq.models.predictor import load
from pyseq.training import callbacks
from pyseq.training.checkpoint_io import SafetensorsCheckpointIO
from pyseq.training.folder_lock import locked
from pyseq.training.interruption import Interruption
from pyseq.training.lightning_module import SequenceTraining
from pyseq.training.lightning_trainer import make_trainer, quietly
from pyseq.training.metrics_file import MetricsFile
from pyseq.training.rate_finder import CURVE, with_found_rate
from pyseq.training.resume import checkpoint_to_resume
from pyseq.training.run import Run
from pyseq.training.run_report import run_report, run_summary


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        run (Run): what it was.
        evaluation (Evaluation): of the best model on the test range.
        summary (dict): what summary.json holds.
        report (Path): the report.
    """

    run: Run
    evaluation: Evaluation
    summary: dict[str, Any]
    report: Path


def fit(run: Run) -> Outcome:
    """Train, keep the best model, score it on the test range and write the report.

    Args:
        run (Run): what `prepare` settled.

    Returns:
        Outcome: with the evaluation of the best model.

    Raises:
        UserError: the loss is no longer finite, `--resume auto` finds another run's state, or the
            disk is full.
        TrainingStopped: SIGTERM or Ctrl-C, in the main thread. While steps are made, the state
            is saved first.
    """
    with _trained(run, told=True) as (trained, steps):
        return _conclude(trained, steps)


def train_only(run: Run) -> int:
    """Train and keep the best model, without a word and without scoring it.

    Args:
        run (Run): what `prepare` settled.

    Returns:
        int: optimiser steps that were made.

    Raises:
        UserError: as `fit`.
        TrainingStopped: as `fit`.
    """
    with _trained(run, told=False) as (_, steps):
        return steps


@contextlib.contextmanager
def _trained(run: Run, told: bool) -> Iterator[tuple[Run, int]]:
    """The run, with its final rate, after its training; signals and the folder's lock hold on."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with Interruption() as interruption, locked(run.folder, "--ckpt"):
        checkpoint = checkpoint_to_resume(run)
        if checkpoint is None:
            _clear(run.folder)
            run = with_found_rate(run)
        yield run, _train(run, checkpoint, interruption, told)


def _train(run: Run, checkpoint: Path | None, interruption: Interruption, told: bool) -> int:
    """Make the steps that are left; returns how many there are in all."""
    config, folder = run.config, run.folder
    resumed_step, finished = 0, False
    if checkpoint is not None:
        state = SafetensorsCheckpointIO().load_checkpoint(checkpoint)
        resumed_step, finished = state["global_step"], state["finished"]
    settings = folder / "config.yaml"
    replace_file(settings, lambda path: path.write_text(config.to_yaml()))
    interruption.advice = (
        f"to go on: pyseq train --config {shlex.quote(str(settings))} --resume auto"
    )
    rows = MetricsFile(folder, resumed_step)
    if finished:
        return resumed_step
    module = SequenceTraining(
        run.model, config, run.binning, run.steps, run.card.data, run.augmentation
    )
    trainer = _trainer(run, rows, resumed_step, interruption, told)
    with interruption.deferred(), _tensorboard_told_once():
        quietly(trainer.fit, module, run.batches, run.validation, ckpt_path=checkpoint)
    return trainer.global_step


@contextlib.contextmanager
def _tensorboard_told_once() -> Iterator[None]:
    """Where TensorBoard's thread cannot write, keep its traceback: the next row raises the same."""
    before = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if not type(failure.thread).__module__.startswith("tensorboard"):
            before(failure)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def _clear(folder: Path) -> None:
    """Remove what an earlier training left."""
    SafetensorsCheckpointIO().remove_checkpoint(folder / "last")
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    for leftover in ("summary.json", "report.html", CURVE):
        (folder / leftover).unlink(missing_ok=True)


def _trainer(
    run: Run, file: MetricsFile, resumed_step: int, interruption: Interruption, told: bool
) -> lightning.Trainer:
    config, folder = run.config, run.folder
    interactive = told and sys.stdout.isatty()
    rows = callbacks.MetricsRows(file, run.batches, config.batch * config.seq_len, config.log_every)
    parts: list[Any] = [
        rows,
        callbacks.BestModel(Path(config.ckpt), run.card),
        callbacks.StopAtEnd(),
    ]
    if config.patience is not None:
        parts.append(
            EarlyStopping("val_bits", patience=config.patience, check_on_train_epoch_end=False)
        )
    if interactive:
        parts.append(callbacks.BitsProgressBar(rows, run.ceiling.bits))
    elif told:
        parts.append(callbacks.LinePrinter(rows, run.ceiling.bits, run.steps))
    parts.append(  # the last one, since it saves the others
        callbacks.LastCheckpoint(folder / "last", config.save_every, file, interruption)
    )
    evaluations = min(config.eval_every, run.steps) * config.gradient_accumulation
    return make_trainer(
        config,
        run.device,
        val_check_interval=min(evaluations, len(run.batches)),
        check_val_every_n_epoch=None,
        callbacks=parts,
        logger=TensorBoardLogger(
            folder, name="", version="tensorboard", purge_step=resumed_step + 1
        ),
        plugins=[SafetensorsCheckpointIO()],
        enable_progress_bar=interactive,
    )


def _conclude(run: Run, steps: int) -> Outcome:
    config = run.config
    start, stop = run.splits.test
    predictor = load(config.ckpt, device=run.device)
    autocast, _ = mixed_precision(config.use_amp, run.device)
    stream, binning = run.described.stream, run.binning
    counted = (run.batches.loader.start, run.batches.loader.stop)
    scored = (start, min(stop, start + config.eval_symbols + 1))
    evaluation = evaluate(
        predictor, stream, counted, scored, binning=binning, ceiling=run.ceiling,
        seq_len=config.seq_len, autocast=autocast, symbol_bytes=predictor.card.symbol_bytes,
    )  # fmt: skip
    analysis = analyze_predictions(
        predictor, stream, counted, scored, binning=binning, seq_len=config.seq_len,
        autocast=autocast,
    )  # fmt: skip
    report = run_report(run, predictor, evaluation, analysis, MetricsFile.read(run.folder), steps)
    summary = run_summary(run, report, steps)
    text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    replace_file(run.folder / "summary.json", lambda path: path.write_text(text))
    write_report(run.folder / "report.html", report)
    return Outcome(run, evaluation, summary, run.folder / "report.html")
