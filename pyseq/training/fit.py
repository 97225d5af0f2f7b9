"""One training run, from the flags to the report."""

import contextlib
import dataclasses
import fcntl
import json
import logging
import math
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger

from pyseq.analysis.ceilings import Ceiling
from pyseq.analysis.evaluation import Evaluation, evaluate, stream_ceiling
from pyseq.data import WindowLoader
from pyseq.data.binning import Binning
from pyseq.data.described_stream import DescribedStream, describe_stream
from pyseq.data.splits import Splits, split_stream
from pyseq.data.stream_info import info_path
from pyseq.errors import UserError
from pyseq.models.checkpoint import MODELS, ModelCard, is_model_file
from pyseq.models.device import choose_device
from pyseq.models.predictor import load
from pyseq.models.sequence_model import SequenceModel
from pyseq.training import callbacks
from pyseq.training.batches import TrainingBatches
from pyseq.training.checkpoint_io import SafetensorsCheckpointIO, has_checkpoint
from pyseq.training.config import TrainConfig, threads_to_use
from pyseq.training.lightning_module import SequenceTraining
from pyseq.training.metrics_file import MetricsFile
from pyseq.training.run_report import write_run_report

DEFAULT_BINS = 1024


@dataclass(frozen=True)
class Run:
    """Everything that is settled before the first step.

    Attributes:
        config (TrainConfig): resolved: nothing is left to be decided.
        described (DescribedStream): the stream.
        binning (Binning): symbols to classes.
        splits (Splits): ranges of the stream.
        ceiling (Ceiling): the best that is possible on independent symbols.
        model (SequenceModel): with fresh weights.
        card (ModelCard): what is saved beside the weights.
        batches (TrainingBatches): the whole training.
        validation (WindowLoader): windows of the validation range.
        steps (int): optimiser steps at the most.
        device (torch.device): where the model runs.
        remarks (tuple of str): decisions that the user should see, a sentence each.
    """

    config: TrainConfig
    described: DescribedStream
    binning: Binning
    splits: Splits
    ceiling: Ceiling
    model: SequenceModel
    card: ModelCard
    batches: TrainingBatches
    validation: WindowLoader
    steps: int
    device: torch.device
    remarks: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """The run folder."""
        return run_folder(self.config.ckpt)


def run_folder(ckpt: str | Path) -> Path:
    """PATH without its suffix, plus .run."""
    return Path(ckpt).with_suffix(".run")


def choose_binning(bins: int | str, alphabet: int, kind: str) -> tuple[Binning, str]:
    """The binning that `--bins` means, and a sentence about it."""
    if bins == "auto":
        bins = DEFAULT_BINS if kind == "values" and alphabet > DEFAULT_BINS else "none"
    if bins == "none":
        return Binning(alphabet), f"classes: {alphabet}, one for each symbol"
    assert isinstance(bins, int)
    return Binning.uniform(alphabet, bins), f"classes: {bins} bins of equal width over {alphabet}"


def prepare(config: TrainConfig) -> Run:
    """Settle everything that can be wrong before anything is written or trained.

    Args:
        config (TrainConfig): the flags; `threads` is set for the whole process.

    Returns:
        Run: ready for `fit`.

    Raises:
        UserError: the stream or a flag does not fit; one sentence.
    """
    config.check()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    described = describe_stream(
        config.u16_path, io=config.io, alphabet=config.alphabet, kind=config.kind
    )
    binning, about_bins = choose_binning(config.bins, described.alphabet, described.kind)
    window = config.seq_len + 1
    splits = split_stream(len(described.stream), window, config.split)
    counts = described.counts(*splits.train)
    stride = config.seq_len if config.stride is None else config.stride
    config = dataclasses.replace(
        config,
        kind=described.kind,
        alphabet=described.alphabet,
        bins="none" if binning.edges is None else binning.classes,
        nhead_kv=_key_heads(config),
        dropout=_dropout(config),
        stride=stride,
        device=str(device),
        threads=torch.get_num_threads(),
    )
    torch.manual_seed(config.seed)
    config_type, model_type = MODELS[config.model]
    names = [field.name for field in dataclasses.fields(config_type) if field.name != "classes"]
    settings = {name: getattr(config, name) for name in names}
    model_config = config_type(classes=binning.classes, **settings)
    model = model_type(model_config)
    threads, about_workers = threads_to_use(config.workers)
    batches, steps = _training_batches(config, described, splits, stride, threads)
    trained = (batches.loader.start, batches.loader.stop)
    card = ModelCard(
        model=config.model,
        config=asdict(model_config),
        binning=binning,
        kind=described.kind,
        seq_len=config.seq_len,
        data={
            "fingerprint": described.stream.fingerprint,
            "symbols": len(described.stream),
            "splits": asdict(splits),
            "trained": list(trained),
            "trained_print": described.stream.range_fingerprint(*trained),
        },
        training=config.to_dict(),
    )
    _check_target(Path(config.ckpt), described)
    remarks = [*described.remarks, about_bins, *([about_workers] if about_workers else [])]
    return Run(
        config=config,
        described=described,
        binning=binning,
        splits=splits,
        ceiling=stream_ceiling(counts, binning),
        model=model,
        card=card,
        batches=batches,
        validation=_validation_loader(config, described, splits, threads),
        steps=steps,
        device=device,
        remarks=tuple(remarks),
    )


def _key_heads(config: TrainConfig) -> int:
    if config.nhead_kv is not None:
        return config.nhead_kv
    halved = config.model == "supercharged" and config.nhead % 2 == 0
    return config.nhead // 2 if halved else config.nhead


def _dropout(config: TrainConfig) -> float:
    if config.dropout is not None:
        return config.dropout
    return 0.1 if config.model == "supercharged" else 0.0


def _check_target(path: Path, described: DescribedStream) -> None:
    """Refuse a model file that cannot be written, or that would overwrite the stream."""
    if path.suffix == ".run":
        raise UserError(f"--ckpt {path} would be its own run folder; another suffix fits")
    if path.is_dir():
        raise UserError(f"--ckpt {path} is a directory; a file name fits")
    if path.exists() and not is_model_file(path):
        raise UserError(f"--ckpt {path} exists and is no model of pyseq; another name fits")
    folder = run_folder(path)
    for shard in described.stream.shards:
        for file in (shard.path, info_path(shard.path)):
            if folder.resolve() in file.resolve().parents:
                raise UserError(f"{file} lies in the run folder of --ckpt {path}, which is cleared")
    probe = path.with_name(f".{path.name}.probe")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"--ckpt {path} cannot be written: {error.strerror}") from error


def _training_batches(
    config: TrainConfig,
    described: DescribedStream,
    splits: Splits,
    stride: int,
    threads: int | None,
) -> tuple[TrainingBatches, int]:
    start, stop = splits.train
    if config.max_samples is not None:
        stop = min(stop, start + config.max_samples)
    window = config.seq_len + 1
    if stop - start < window:
        raise UserError(f"--max_samples {config.max_samples} is less than one window of {window}")
    windows = (stop - start - window) // stride + 1
    if windows < config.batch:
        raise UserError(
            f"the training range holds {windows} windows of {window} at stride {stride}, less than"
            f" one batch of {config.batch}; use a smaller --batch or --stride, or a longer stream"
        )
    loader = WindowLoader(
        described.stream, window, config.batch, seed=config.seed, stride=stride, start=start,
        stop=stop, threads=threads,
    )  # fmt: skip
    steps = math.ceil(len(loader) * config.epochs / config.gradient_accumulation)
    steps = min(steps, config.max_steps or steps)
    batches = min(len(loader) * config.epochs, steps * config.gradient_accumulation)
    return TrainingBatches(loader, batches, config.ignore_fingerprint), steps


def _validation_loader(
    config: TrainConfig, described: DescribedStream, splits: Splits, threads: int | None
) -> WindowLoader:
    start, stop = splits.validation
    stop = min(stop, start + max(config.eval_symbols, config.seq_len) + 1)
    windows = (stop - start - config.seq_len - 1) // config.seq_len + 1
    return WindowLoader(
        described.stream, config.seq_len + 1, min(config.batch, windows), shuffle=False,
        stride=config.seq_len, start=start, stop=stop, threads=threads,
    )  # fmt: skip


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


# What may differ between a run and its continuation: where it runs, what it tells, its patience.
_MAY_CHANGE = {
    "u16_path", "ckpt", "io", "device", "threads", "workers", "save_every", "log_every", "patience",
    "resume", "ignore_fingerprint",
}  # fmt: skip


def checkpoint_to_resume(run: Run) -> Path | None:
    """The state to go on from, if `--resume auto` finds one.

    Args:
        run (Run): what is to be trained.

    Returns:
        Path of the checkpoint folder, or None.

    Raises:
        UserError: the state belongs to other settings or other data.
    """
    folder = run.folder / "last"
    if run.config.resume != "auto" or not has_checkpoint(folder):
        return None
    try:
        before = yaml.safe_load((run.folder / "config.yaml").read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{run.folder / 'config.yaml'} cannot be read: {error}") from error
    now = yaml.safe_load(run.config.to_yaml())
    for name in now.keys() - _MAY_CHANGE:
        if before.get(name) != now[name]:
            raise UserError(
                f"--resume auto: the run in {run.folder} had {name} {before.get(name)}, now it is"
                f" {now[name]}; the same settings fit, or --resume never"
            )
    data = SafetensorsCheckpointIO().load_checkpoint(folder)["data"]
    if data["fingerprint"] != run.card.data["fingerprint"] and not run.config.ignore_fingerprint:
        raise UserError(
            f"--resume auto: the run in {run.folder} was trained on other data (fingerprint"
            f" {data['fingerprint']}, now {run.card.data['fingerprint']}); --ignore_fingerprint"
            " goes on all the same"
        )
    return folder


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
