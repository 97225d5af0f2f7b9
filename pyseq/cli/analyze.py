"""`pyseq analyze`: is this stream predictable, and by how much?"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pyseq.cli import flags
from pyseq.errors import UserError

if TYPE_CHECKING:
    from pyseq.analysis.predictability.learned_evidence import LearnedEvidence
    from pyseq.analysis.randomness.marginal import DeclaredLaw
    from pyseq.data import U16Stream

_LEARNED_SYMBOLS = 200_000  # that a trained model is asked for: a minute or two on a CPU


@dataclass(frozen=True)
class AnalyzeConfig:
    """Say whether a stream has structure, with p-values that hold, and in bits how predictable it
    is."""

    u16_path: str
    """The stream, or a glob of shards; with --symbol_bits below 16, a file of bytes."""
    null: str | None = None
    """A stream whose marginal this one should have; default: uniform over the alphabet."""
    alphabet: int | None = None
    """Symbols are 0..alphabet-1; default: what the JSON beside the stream says, or the highest
    symbol + 1."""
    symbol_bits: Literal[16, 8, 4, 2, 1] = 16
    """Below 16: cut each byte of the file into symbols of so many bits, high bits first, or read
    one symbol per byte where no byte is too large for it, as NIST's program does."""
    max_samples: int | None = None
    """Read the first symbols only, so many."""
    ckpt: str | None = None
    """Also let a trained model predict what it has not seen."""
    train: float | None = None
    """Also train a small model for so many minutes, on the first .7 of the stream, and let it
    predict the rest."""
    level: float = 0.01
    """Chance that a stream without structure is said to have some: of all tests together."""
    seed: int = 0
    """Of shuffles and bootstraps."""
    mixture_symbols: int = 2_097_152
    """The online mixture predicts the first symbols, so many."""
    predictor_symbols: int = 1_048_576
    """The predictors of SP 800-90B read the first symbols, so many."""
    report: str = "analysis.html"
    """The page."""
    json: str = "analysis.json"
    """The same as data."""
    io: Literal["mmap", "pread", "ram"] = "pread"
    """How the file is read."""
    threads: int | None = None
    """CPU threads; default: as many as PyTorch uses."""
    device: str = "auto"
    """Where a trained model runs: auto, cpu, cuda, or cuda:N."""


def main(arguments: list[str]) -> int:
    """Print both verdicts; write the page and the JSON."""
    config = flags.parse(AnalyzeConfig, "analyze", arguments)
    _check(config)
    import torch
    from rich.console import Console

    from pyseq.analysis.analyze_stream import Settings, analyze_stream
    from pyseq.analysis.report.stream import write_stream_report
    from pyseq.analysis.stream_json import write_json
    from pyseq.cli.analysis_progress import AnalysisProgress
    from pyseq.cli.stream_table import print_analysis

    began = time.monotonic()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    console = Console()
    symbols, facts, alphabet, entropy_rate = _open(config)
    learned = _learned(config, symbols, alphabet) if config.symbol_bits == 16 else []
    settings = Settings(
        level=config.level, seed=config.seed, mixture_symbols=config.mixture_symbols,
        predictor_symbols=config.predictor_symbols,
    )  # fmt: skip
    with AnalysisProgress(console, config.level) as watcher:
        analysis = analyze_stream(
            _First(symbols, config.max_samples), alphabet=alphabet, settings=settings,
            law=_law(config, alphabet), learned=learned, facts=facts, entropy_rate=entropy_rate,
            watcher=watcher,
        )  # fmt: skip
    symbols.close()
    print_analysis(analysis, console)
    write_stream_report(Path(config.report), analysis)
    write_json(Path(config.json), analysis)
    print(f"{watcher.times}, all {time.monotonic() - began:,.1f}")
    print(f"report: {config.report}, data: {config.json}")
    return 0


def _check(config: AnalyzeConfig) -> None:
    """Refuse what cannot work before anything is read."""
    if not 0 < config.level < 0.5:
        raise UserError(f"--level {config.level}; a number between 0 and 0.5 fits")
    for name in ("max_samples", "mixture_symbols", "predictor_symbols", "threads"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}; 1 or more fits")
    if config.seed < 0:
        raise UserError(f"--seed {config.seed}; 0 or more fits")
    if config.train is not None and not config.train > 0:
        raise UserError(f"--train {config.train} minutes; more than 0 fits")
    if config.alphabet is not None and not 1 <= config.alphabet <= 65_536:
        raise UserError(f"--alphabet {config.alphabet}; 1 to 65536 fits")
    if config.max_samples is not None and (config.ckpt is not None or config.train is not None):
        raise UserError("--ckpt and --train read the whole stream, and --max_samples a part of it")
    if config.symbol_bits < 16 and config.null is not None:
        raise UserError("--null is a u16 stream, and --symbol_bits cuts up bytes")
    if config.symbol_bits < 16 and (config.ckpt is not None or config.train is not None):
        raise UserError("--ckpt and --train read u16 streams, and --symbol_bits cuts up bytes")
    for name, ending in (("report", ".html"), ("json", ".json")):
        path = Path(getattr(config, name))
        if path.suffix.lower() != ending:
            raise UserError(f"--{name} {path}; a name that ends in {ending} fits")
        if path.is_dir() or not path.parent.is_dir():
            what = "is a folder" if path.is_dir() else f"has no folder {path.parent} to lie in"
            raise UserError(f"--{name} {path} {what}")


class _First:
    """The first symbols of a stream."""

    def __init__(self, symbols, count: int | None):
        self._symbols = symbols
        self._count = len(symbols) if count is None else min(count, len(symbols))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, window: slice):
        start, stop, _ = window.indices(self._count)
        return self._symbols[start:stop]


def _open(config: AnalyzeConfig):
    """The symbols, facts about them, and alphabet and entropy rate where these are known."""
    from pyseq.analysis.byte_symbols import BytesAsSymbols
    from pyseq.data.stream_info import read_info
    from pyseq.data.u16_stream import U16Stream

    facts: list[tuple[str, object]] = [("stream", config.u16_path)]
    if config.symbol_bits < 16:
        cut = BytesAsSymbols(config.u16_path, config.symbol_bits)
        facts.append(("read as", cut.words))
        return cut, facts, config.alphabet or 1 << config.symbol_bits, None
    stream = U16Stream(config.u16_path, io=config.io)
    infos = [read_info(shard.path) for shard in stream.shards]
    known = [info for info in infos if info is not None]
    alphabets = {info.alphabet for info in known}
    if config.alphabet is not None:
        facts.append(("alphabet", f"{config.alphabet:,}, as given"))
        alphabet = config.alphabet
    elif len(known) == len(infos) and len(alphabets) == 1:
        alphabet = alphabets.pop()
        facts.append(("alphabet", f"{alphabet:,}, from the JSON beside the stream"))
    else:
        alphabet = None
        facts.append(("alphabet", "one more than the highest symbol"))
    described = len(infos) == 1 and bool(known)
    if described and known[0].source:
        facts.append(("source", known[0].source))
    return stream, facts, alphabet, known[0].entropy_rate if described else None


def _law(config: AnalyzeConfig, alphabet: int | None) -> DeclaredLaw | None:
    """The law behind --null."""
    if config.null is None:
        return None
    import numpy as np

    from pyseq.analysis.randomness.marginal import DeclaredLaw
    from pyseq.data.described_stream import count_symbols
    from pyseq.data.u16_stream import U16Stream

    with U16Stream(config.null, io=config.io) as stream:
        counts = count_symbols(stream, 0, len(stream))
        words = f"that of the {len(stream):,} symbols of {config.null}"
    highest = int(np.flatnonzero(counts)[-1])
    return DeclaredLaw(words, max(alphabet or 2, highest + 1), counts)


def _learned(
    config: AnalyzeConfig, stream: U16Stream, alphabet: int | None
) -> list[LearnedEvidence]:
    """What trained models show."""
    if config.ckpt is None and config.train is None:
        return []
    from pyseq.analysis.predictability.learned_evidence import learned_evidence
    from pyseq.models.device import choose_device
    from pyseq.models.predictor import load
    from pyseq.training.timed_training import train_predictor

    device = choose_device(config.device)
    found = []

    def judge(name: str, path: Path | str) -> None:
        predictor = load(path, device=device)
        print(f"{name}: predicts what it has not seen", file=sys.stderr)
        found.append(
            learned_evidence(
                name, predictor, stream, most_symbols=_LEARNED_SYMBOLS,
                level=config.level, seed=config.seed,
            )
        )  # fmt: skip

    if config.ckpt is not None:
        judge(f"model {Path(config.ckpt).name}", config.ckpt)
    if config.train is not None:
        print(f"training a model for {config.train:g} minutes", file=sys.stderr)
        path = train_predictor(
            config.u16_path, config.train, alphabet=alphabet, device=config.device,
            threads=config.threads, seed=config.seed,
        )  # fmt: skip
        try:
            judge(f"model trained for {config.train:g} minutes", path)
        finally:
            shutil.rmtree(path.parent, ignore_errors=True)
    return found
