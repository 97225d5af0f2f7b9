"""One training run, from the flags to the report."""

import json
import logging
import math
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger

from pyseq.analysis.ceilings import Ceiling
from pyseq.analysis.evaluation import Evaluation, evaluate, stream_ceiling
from pyseq.data import WindowLoader
from pyseq.data.binning import Binning
from pyseq.data.described_stream import DescribedStream, describe_stream
from pyseq.data.splits import Splits, split_stream
from pyseq.errors import UserError
from pyseq.models.baseline import Baseline, BaselineConfig
from pyseq.models.checkpoint import ModelCard
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
        config (TrainConfig): as given.
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


def run_folder(ckpt: str) -> Path:
    """PATH without its suffix, plus .run."""
    return Path(ckpt).with_suffix(".run")


def choose_device(name: str) -> torch.device:
    """The device that `--device` means.

    Raises:
        UserError: no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}; auto, cpu, cuda or cuda:N fits") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}; auto, cpu, cuda or cuda:N fits")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}, but torch sees {torch.cuda.device_count()} CUDA devices")
    return device


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

    Raises:
        UserError: the stream or a flag does not fit; one sentence.
    """
    config.check()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    check_writable(Path(config.ckpt))
    described = describe_stream(
        config.u16_path, io=config.io, alphabet=config.alphabet, kind=config.kind
    )
    binning, about_bins = choose_binning(config.bins, described.alphabet, described.kind)
    window = config.seq_len + 1
    splits = split_stream(len(described.stream), window, config.split)
    counts = described.counts(*splits.train)
    torch.manual_seed(config.seed)
    model_config = BaselineConfig(
        classes=binning.classes,
        kind=described.kind,
        d_model=config.d_model,
        nlayers=config.nlayers,
        nhead=config.nhead,
        nhead_kv=config.nhead_kv or config.nhead,
        dim_ff=config.dim_ff,
        dropout=config.dropout,
    )
    model = Baseline(model_config)
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
        },
        training=config.to_dict(),
    )
    threads, about_workers = threads_to_use(config.workers)
    batches, steps = _training_batches(config, described, splits, threads)
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


def check_writable(path: Path) -> None:
    """Raise UserError unless a file can be made at `path`."""
    if path.is_dir():
        raise UserError(f"--ckpt {path} is a directory; a file name fits")
    probe = path.with_name(f".{path.name}.probe")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"--ckpt {path} cannot be written: {error.strerror}") from error


def _training_batches(
    config: TrainConfig, described: DescribedStream, splits: Splits, threads: int | None
) -> tuple[TrainingBatches, int]:
    start, stop = splits.train
    if config.max_samples is not None:
        stop = min(stop, start + config.max_samples)
    window = config.seq_len + 1
    if stop - start < window:
        raise UserError(f"--max_samples {config.max_samples} is less than one window of {window}")
    stride = config.stride or config.seq_len
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
    return TrainingBatches(loader, batches), steps


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
    """Train, keep the best model, score it on the test range and write the report."""
    config, folder = run.config, run.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(config.to_yaml())
    checkpoint = _checkpoint_to_resume(run)
    module = SequenceTraining(run.model, config, run.binning, run.steps)
    resumed_step = _resumed_step(checkpoint)
    rows = callbacks.MetricsRows(
        MetricsFile(folder, resumed_step), run.batches, config.batch * config.seq_len,
        config.log_every,
    )  # fmt: skip
    trainer = _quietly(_trainer, run, rows)
    if resumed_step < run.steps:
        _quietly(trainer.fit, module, run.batches, run.validation, ckpt_path=checkpoint)
    if trainer.global_step not in (0, rows.validated_step):
        _quietly(trainer.validate, module, run.validation, verbose=False)
    return _conclude(run, trainer.global_step or resumed_step)


def _trainer(run: Run, rows: callbacks.MetricsRows) -> lightning.Trainer:
    config, folder = run.config, run.folder
    interactive = sys.stdout.isatty()
    parts: list[Any] = [
        rows,
        callbacks.BestModel(Path(config.ckpt), run.card),
        callbacks.LastCheckpoint(folder / "last", config.save_every),
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
        logger=TensorBoardLogger(folder, name="", version="tensorboard"),
        plugins=[SafetensorsCheckpointIO()],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=interactive,
    )


def _checkpoint_to_resume(run: Run) -> Path | None:
    folder = run.folder / "last"
    return folder if run.config.resume == "auto" and has_checkpoint(folder) else None


def _resumed_step(checkpoint: Path | None) -> int:
    if checkpoint is None:
        return 0
    return SafetensorsCheckpointIO().load_checkpoint(checkpoint)["global_step"]


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
        run.splits.train,
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
    (run.folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    report = run.folder / "report.html"
    write_run_report(report, run.config, run.described, evaluation, rows, summary)
    return Outcome(run, evaluation, summary, report)
