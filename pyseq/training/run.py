"""What a training run is: everything that is settled, and checked, before the first step."""

import dataclasses
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from pyseq.analysis.ceilings import Ceiling
from pyseq.analysis.evaluation import stream_ceiling
from pyseq.data import WindowLoader
from pyseq.data.binning import Binning
from pyseq.data.described_stream import DescribedStream, describe_stream
from pyseq.data.splits import Splits, split_stream
from pyseq.data.stream_info import info_path
from pyseq.errors import UserError
from pyseq.models.checkpoint import MODELS, ModelCard, is_model_file
from pyseq.models.device import choose_device
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
    names = [field.name for field in dataclasses.fields(config_type) if field.name in vars(config)]
    settings = {name: getattr(config, name) for name in names}
    model_config = config_type(
        classes=binning.classes, mask_symbol=config.augment_mask > 0, **settings
    )
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
