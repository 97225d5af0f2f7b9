"""One training run, from what `prepare` settled to the report."""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger

from pyseq.analysis.evaluation import Evaluation, evaluate
from pyseq.errors import UserError
from pyseq.models.predictor import load
from pyseq.training import callbacks
from pyseq.training.checkpoint_io import SafetensorsCheckpointIO
from pyseq.training.lightning_module import SequenceTraining
from pyseq.training.metrics_file import MetricsFile
from pyseq.training.resume import checkpoint_to_resume
from pyseq.training.run import Run
from pyseq.training.run_report import write_run_report


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
        UserError: the loss is no longer finite, or `--resume auto` finds another run's state.
        KeyboardInterrupt: Ctrl-C.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    with _locked(run.folder):
        return _fit_and_conclude(run)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second training out of the run folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another training is writing to {folder}; another --ckpt fits"
            ) from error
        yield
    finally:
        os.close(handle)


def _fit_and_conclude(run: Run) -> Outcome:
    config, folder = run.config, run.folder
    checkpoint = checkpoint_to_resume(run)
    resumed_step, finished = 0, False
    if checkpoint is None:
        for leftover in ("last", "tensorboard"):
            shutil.rmtree(folder / leftover, ignore_errors=True)
        for leftover in ("summary.json", "report.html"):
            (folder / leftover).unlink(missing_ok=True)
    else:
        state = SafetensorsCheckpointIO().load_checkpoint(checkpoint)
        resumed_step, finished = state["global_step"], state["finished"]
    (folder / "config.yaml").write_text(config.to_yaml())
    module = SequenceTraining(run.model, config, run.binning, run.steps, run.card.data)
    rows = callbacks.MetricsRows(
        MetricsFile(folder, resumed_step), run.batches, config.batch * config.seq_len,
        config.log_every,
    )  # fmt: skip
    trainer = _quietly(_trainer, run, rows, resumed_step)
    if not finished:
        _fit(trainer, module, run, checkpoint)
    if trainer.global_step not in (0, rows.validated_step):
        _quietly(trainer.validate, module, run.validation, verbose=False)
    return _conclude(run, trainer.global_step or resumed_step)


def _fit(trainer: lightning.Trainer, module, run: Run, checkpoint: Path | None) -> None:
    try:
        _quietly(trainer.fit, module, run.batches, run.validation, ckpt_path=checkpoint)
    except SystemExit as end:  # how Lightning ends after Ctrl-C
        if trainer.interrupted:
            raise KeyboardInterrupt from end
        raise


def _trainer(run: Run, rows: callbacks.MetricsRows, resumed_step: int) -> lightning.Trainer:
    config, folder = run.config, run.folder
    interactive = sys.stdout.isatty()
    parts: list[Any] = [
        rows,
        callbacks.BestModel(Path(config.ckpt), run.card),
        callbacks.StopAtTime(),
    ]
    if config.patience is not None:
        parts.append(
            EarlyStopping("val_bits", patience=config.patience, check_on_train_epoch_end=False)
        )
    if interactive:
        parts.append(callbacks.BitsProgressBar(rows, run.ceiling.bits))
    else:
        parts.append(callbacks.LinePrinter(rows, run.ceiling.bits, run.steps))
    parts.append(callbacks.LastCheckpoint(folder / "last", config.save_every))  # saves the others
    evaluations = min(config.eval_every, run.steps) * config.gradient_accumulation
    return lightning.Trainer(
        accelerator=run.device.type,
        devices=[run.device.index or 0] if run.device.type == "cuda" else 1,
        precision="bf16-mixed" if config.use_amp else "32-true",
        max_epochs=1,  # TrainingBatches strings the epochs together
        accumulate_grad_batches=config.gradient_accumulation,
        gradient_clip_val=config.clip or None,
        val_check_interval=min(evaluations, len(run.batches)),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=parts,
        logger=TensorBoardLogger(
            folder, name="", version="tensorboard", purge_step=resumed_step + 1
        ),
        plugins=[SafetensorsCheckpointIO()],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=interactive,
    )


def _quietly(call, *args, **kwargs):
    """Run a Lightning entry point without its remarks on hardware and data loaders."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            return call(*args, **kwargs)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _conclude(run: Run, steps: int) -> Outcome:
    config = run.config
    start, stop = run.splits.test
    predictor = load(config.ckpt, device=run.device)
    evaluation = evaluate(
        predictor,
        run.described.stream,
        (run.batches.loader.start, run.batches.loader.stop),
        (start, min(stop, start + config.eval_symbols + 1)),
        binning=run.binning,
        ceiling=run.ceiling,
        seq_len=config.seq_len,
        autocast=config.use_amp,
    )
    rows = MetricsFile.read(run.folder)
    summary = {
        "model": config.model,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "steps": steps,
        "seconds": rows[-1]["seconds"] if rows else 0.0,
        "best_validation_bits": min((r["val_bits"] for r in rows if "val_bits" in r), default=None),
        "entropy_rate_bits": run.described.entropy_rate,
        "test": evaluation.to_dict(),
    }
    (run.folder / "summary.json").write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
    report = run.folder / "report.html"
    write_run_report(report, run.config, run.described, evaluation, rows, summary)
    return Outcome(run, evaluation, summary, report)
