"""What a training run is: everything that is settled, and checked, before the first step."""

import dataclasses
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from pyseq.analysis.ceilings import Ceiling
from pyseq.analysis.evaluation import stream_ceiling
from pyseq.data import WindowLoader
from pyseq.data.augmentation import Augmentation
from pyseq.data.binning import Binning
from pyseq.data.described_stream import DescribedStream, describe_stream
from pyseq.data.splits import Splits, split_stream
from pyseq.data.stream_info import Kind, info_path
from pyseq.errors import UserError
from pyseq.models.checkpoint import MODELS, ModelCard, is_model_file
from pyseq.models.device import choose_device, mixed_precision, stream_device
from pyseq.models.sequence_model import SequenceModel
from pyseq.training.batches import TrainingBatches
from pyseq.training.config import TrainConfig, threads_to_use

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
        augmentation (Augmentation | None): what training does to what the model reads.
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
    augmentation: Augmentation | None
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


def choose_binning(
    config: TrainConfig, described: DescribedStream, counts: np.ndarray
) -> tuple[Binning, str]:
    """The classes that `--bins` and `--binning` mean, and a sentence about them.

    Args:
        config (TrainConfig): the flags.
        described (DescribedStream): the stream.
        counts (array (alphabet,), int64): of the symbols that the model is trained on.

    Returns:
        tuple (Binning, str): uniform bins are of the alphabet alone, adaptive ones of the counts.

    Raises:
        UserError: the bins do not fit the alphabet, the kind, or each other.
    """
    alphabet, kind, bins = described.alphabet, described.kind, config.bins
    if bins == "auto":
        bins = DEFAULT_BINS if kind == "values" and alphabet > DEFAULT_BINS else "none"
    if config.binning == "adaptive":
        return _adaptive_binning(bins, kind, counts)
    if bins == "none":
        return Binning(alphabet), f"classes: {alphabet}, one for each symbol"
    return Binning.uniform(alphabet, bins), f"classes: {bins} bins of equal width over {alphabet}"


def _adaptive_binning(
    bins: int | Literal["none"], kind: Kind, counts: np.ndarray
) -> tuple[Binning, str]:
    if kind != "values":
        raise UserError(
            f"--binning adaptive needs values, and this stream holds {kind}: neighbouring ids have"
            " nothing in common"
        )
    if bins == "none":
        raise UserError(
            "--binning adaptive needs a number of --bins; without one each of these"
            f" {len(counts)} symbols is a class of its own"
        )
    binning = Binning.adaptive(counts, bins)
    if binning.classes < bins:
        return binning, (
            f"classes: {binning.classes} and not {bins}, one for each symbol that is trained on"
        )
    sizes = np.bincount(binning.table(), weights=counts).astype(np.int64)
    return binning, (
        f"classes: {bins} bins of {sizes.min():,} to {sizes.max():,} training symbols each over"
        f" {len(counts)}"
    )


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
    config, about_rate = _keep_found_rate(config)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    described = describe_stream(
        config.u16_path, io=config.io, device=stream_device(config.io, device),
        alphabet=config.alphabet, kind=config.kind,
    )  # fmt: skip
    splits = split_stream(len(described.stream), config.seq_len + 1, config.split)
    trained = _training_range(config, splits)
    counts = described.counts(*splits.train)
    trained_counts = counts if trained == splits.train else described.counts(*trained)
    binning, about_bins = choose_binning(config, described, trained_counts)
    augmentation = _augmentation(config, described.kind, binning, trained_counts)
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
    names = [field.name for field in dataclasses.fields(config_type) if field.name in vars(config)]
    settings = {name: getattr(config, name) for name in names}
    model_config = config_type(
        classes=binning.classes, mask_symbol=config.augment_mask > 0, **settings
    )
    model = model_type(model_config)
    threads, about_workers = threads_to_use(config.workers)
    _, about_precision = mixed_precision(config.use_amp, device)
    batches, steps = _training_batches(config, described, trained, stride, threads)
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
        tokenizer=None if described.tokenizer is None else described.tokenizer.json,
    )
    _check_target(Path(config.ckpt), described)
    about_tokens = described.learned_beyond(splits.test[0])
    decisions = (
        *described.remarks, about_tokens, about_bins, about_workers, about_precision, about_rate
    )  # fmt: skip
    return Run(
        config=config,
        described=described,
        binning=binning,
        splits=splits,
        ceiling=stream_ceiling(counts, binning),
        model=model,
        card=card,
        batches=batches,
        augmentation=augmentation,
        validation=_validation_loader(config, described, splits, threads),
        steps=steps,
        device=device,
        remarks=tuple(remark for remark in decisions if remark is not None),
    )


def _keep_found_rate(config: TrainConfig) -> tuple[TrainConfig, str | None]:
    """With --lr_find, a run that goes on keeps the rate that it began with."""
    if not config.lr_find or config.resume != "auto":
        return config, None
    from pyseq.training.resume import settings_to_resume  # which imports lightning

    before = settings_to_resume(run_folder(config.ckpt))
    if before is None:
        return config, None
    rate = before.get("lr", config.lr)
    return dataclasses.replace(config, lr=rate, lr_find=False), (
        f"learning rate: {rate:g}, of the run that goes on; --lr_find searches at a run's beginning"
    )


def _augmentation(
    config: TrainConfig, kind: Kind, binning: Binning, counts: np.ndarray
) -> Augmentation | None:
    shares = {
        "noise": config.augment_noise,
        "replace": config.augment_replace,
        "mask": config.augment_mask,
    }
    return Augmentation(kind, binning, counts, **shares) if any(shares.values()) else None


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


def _training_range(config: TrainConfig, splits: Splits) -> tuple[int, int]:
    start, stop = splits.train
    if config.max_samples is None:
        return start, stop
    window = config.seq_len + 1
    if config.max_samples < window:
        raise UserError(f"--max_samples {config.max_samples} is less than one window of {window}")
    return start, min(stop, start + config.max_samples)


def _training_batches(
    config: TrainConfig,
    described: DescribedStream,
    trained: tuple[int, int],
    stride: int,
    threads: int | None,
) -> tuple[TrainingBatches, int]:
    start, stop = trained
    window = config.seq_len + 1
    windows = (stop - start - window) // stride + 1
    if windows < config.batch:
        raise UserError(
            f"the training range holds {windows} windows of {window} at stride {stride}, less than"
            f" one batch of {config.batch}; use a smaller --batch or --stride, or a longer stream"
        )
    loader = WindowLoader(
        described.stream, window, config.batch, seed=config.seed, stride=stride, start=start,
        stop=stop, threads=threads, device=_batch_device(config),
    )  # fmt: skip
    steps = math.ceil(len(loader) * config.epochs / config.gradient_accumulation)
    steps = min(steps, config.max_steps or steps)
    batches = min(len(loader) * config.epochs, steps * config.gradient_accumulation)
    return TrainingBatches(loader, batches, config.ignore_fingerprint), steps


def _batch_device(config: TrainConfig) -> str | None:
    """The GPU that batches are copied to, if the model runs on one."""
    return None if config.device == "cpu" else config.device


def _validation_loader(
    config: TrainConfig, described: DescribedStream, splits: Splits, threads: int | None
) -> WindowLoader:
    start, stop = splits.validation
    stop = min(stop, start + max(config.eval_symbols, config.seq_len) + 1)
    windows = (stop - start - config.seq_len - 1) // config.seq_len + 1
    return WindowLoader(
        described.stream, config.seq_len + 1, min(config.batch, windows), shuffle=False,
        stride=config.seq_len, start=start, stop=stop, threads=threads,
        device=_batch_device(config),
    )  # fmt: skip
