"""`pyseq data`: make a u16 stream from what people have, or a synthetic one with a known answer."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Union

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pyseq.cli import flags
from pyseq.data import importers
from pyseq.data.importers import Imported
from pyseq.data.stream_info import (
    Kind,
    StreamInfo,
    require_new,
    tokenizer_path,
    write_stream,
)
from pyseq.data.streams import STREAMS, Stream
from pyseq.data.tokenizer import Tokenizer
from pyseq.errors import UserError

if TYPE_CHECKING:
    AnyStream = Stream
else:
    AnyStream = Union[  # noqa: UP007, the members are not known before the registry is read
        tuple(Annotated[stream, tyro.conf.subcommand(name)] for name, stream in STREAMS.items())
    ]


DEFAULT_SHARE = 0.8  # of a text, that tokens are learned from: training's own default split


@dataclass(frozen=True, kw_only=True)
class _Output:
    """What every subcommand takes."""

    out: Path
    """the stream to write; its description goes to the same name with .json behind it"""
    overwrite: bool = False
    """replace an existing stream"""


@dataclass(frozen=True, kw_only=True)
class _FromFiles(_Output, ABC):
    @abstractmethod
    def read(self) -> Imported:
        """The source, checked."""


@dataclass(frozen=True, kw_only=True)
class Text(_FromFiles):
    """The bytes of text files (256 tokens), or tokens of several bytes (--bpe)."""

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """files, and folders whose text files are taken in sorted order"""
    pattern: str = "*"
    """which files of folders, for example "*.py" """
    stdlib: bool = False
    """take the source of Python's standard library on this machine, and no paths"""
    bpe: int | None = None
    """learn so many tokens by byte-pair encoding, 256 to 65536, and write those instead of bytes;
    they are stored beside the stream with .tokenizer.json behind its name, and in every model that
    is trained on it"""
    bpe_share: float | None = None
    """of the text, from its beginning, that --bpe learns from: no more than models will be trained
    on, so that held-out text does not shape the tokens; training says so if it did; default: .8"""
    tokenizer: Path | None = None
    """write the tokens in this .tokenizer.json, learned from another text; models that were trained
    on that one can read this one"""

    def read(self) -> Imported:
        if self.stdlib == bool(self.paths):
            raise UserError("data text takes either files and folders or --stdlib")
        if self.bpe is None and self.bpe_share is not None:
            raise UserError("--bpe_share is the share that --bpe learns from, and needs --bpe")
        if self.tokenizer is not None and self.bpe is not None:
            raise UserError("data text takes either --bpe or --tokenizer")
        if self.tokenizer is not None:
            return importers.with_tokenizer(self._bytes(), Tokenizer.read(self.tokenizer))
        if self.bpe is not None:
            share = DEFAULT_SHARE if self.bpe_share is None else self.bpe_share
            return importers.by_byte_pairs(self._bytes, self.bpe, share=share)
        return self._bytes()

    def _bytes(self) -> Imported:
        if self.stdlib:
            return importers.stdlib_text()
        return importers.text(self.paths, pattern=self.pattern)


@dataclass(frozen=True, kw_only=True)
class Wav(_FromFiles):
    """The samples of 16-bit PCM wav files, moved up by 32768 (65536 values)."""

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """wav files, and folders of them; all are sorted by full path"""
    channel: int | Literal["mix"] | None = None
    """channel to take, from 0, or mix for their mean; needed where there are several"""

    def read(self) -> Imported:
        return importers.wav(self.paths, self.channel)


@dataclass(frozen=True, kw_only=True)
class _Numbers(_FromFiles, ABC):
    path: tyro.conf.Positional[Path]
    """the file"""
    alphabet: int | None = None
    """number of symbols; by default the largest value plus one"""
    kind: Kind = "values"
    """whether the magnitude of a number means something"""


@dataclass(frozen=True, kw_only=True)
class Npy(_Numbers):
    """A 1-D array of whole numbers 0..65535 (or int16) that numpy.save wrote."""

    def read(self) -> Imported:
        return importers.npy(self.path, alphabet=self.alphabet, kind=self.kind)


@dataclass(frozen=True, kw_only=True)
class Csv(_Numbers):
    """One column of whole numbers 0..65535 of a table."""

    column: int | str = 0
    """index from 0, or name in the first line"""
    delimiter: str = ","
    """one character between cells"""

    def read(self) -> Imported:
        return importers.csv(
            self.path,
            self.column,
            delimiter=self.delimiter,
            alphabet=self.alphabet,
            kind=self.kind,
        )


@dataclass(frozen=True, kw_only=True)
class Synthetic(_Output):
    """A generated stream whose entropy rate is known."""

    stream: AnyStream
    count: int = 1_000_000
    """number of symbols"""
    seed: int = 0
    """the same seed gives the same stream"""


AnySource = (
    Annotated[Text, tyro.conf.subcommand("text")]
    | Annotated[Wav, tyro.conf.subcommand("wav")]
    | Annotated[Npy, tyro.conf.subcommand("npy")]
    | Annotated[Csv, tyro.conf.subcommand("csv")]
    | Annotated[Synthetic, tyro.conf.subcommand("synthetic")]
)


def main(arguments: list[str]) -> int:
    """Run `pyseq data`.

    Args:
        arguments (list of str): what follows `pyseq data` on the command line.

    Returns:
        int, 0: the stream is written.

    Raises:
        UserError: a wrong flag, bad input, or an output that exists already.
        SystemExit: by tyro, after --help (0).
    """
    with flags.one_sentence():
        source: Text | Wav | Npy | Csv | Synthetic = tyro.cli(
            AnySource,
            prog="pyseq data",
            description=__doc__,
            args=arguments,
            use_underscores=True,
            config=(
                tyro.conf.OmitArgPrefixes,
                tyro.conf.OmitSubcommandPrefixes,
                tyro.conf.CascadeSubcommandArgs,
                tyro.conf.FlagCreatePairsOff,
            ),
        )
    if not source.overwrite:
        require_new(source.out)
    info = _write_synthetic(source) if isinstance(source, Synthetic) else _write_files(source)
    print(_summary(source.out, info))
    if info.tokenizer is not None:
        print(_about_tokens(source.out, info))
    if isinstance(source, Text) and source.bpe is not None and info.alphabet < source.bpe:
        print(f"fewer than {source.bpe} tokens: no other pair is in the text twice")
    return 0


def _write_synthetic(request: Synthetic) -> StreamInfo:
    stream = request.stream
    chunks = stream.chunks(request.count, request.seed)
    with _progress() as progress:
        return write_stream(
            request.out,
            _shown(chunks, request.count, progress),
            alphabet=stream.alphabet,
            kind=stream.kind,
            source=stream.describe(request.seed),
            entropy_rate=stream.entropy_rate,
            min_entropy=stream.min_entropy,
        )


def _write_files(request: _FromFiles) -> StreamInfo:
    imported = request.read()
    with _progress() as progress:
        return write_stream(
            request.out,
            _shown(imported.chunks, imported.count, progress),
            alphabet=imported.alphabet,
            kind=imported.kind,
            source=imported.source,
            tokenizer=imported.tokenizer,
            learned_bytes=imported.learned_bytes,
        )


def _progress() -> Progress:
    """A bar on stderr that goes away at the end; nothing where stderr is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty())


def _shown(
    chunks: Iterator[np.ndarray], count: int | None, progress: Progress
) -> Iterator[np.ndarray]:
    task = progress.add_task("writing", total=count)
    for chunk in chunks:
        yield chunk
        progress.advance(task, chunk.size)


def _summary(out: Path, info: StreamInfo) -> str:
    entropy = ""
    if info.entropy_rate is not None:
        entropy = f", entropy rate {info.entropy_rate:.5f} bits/symbol"
    return (
        f"{out}: {info.count:,} symbols, alphabet {info.alphabet}, {info.kind}{entropy}, "
        f"sha256 {info.sha256[:12]}"
    )


def _about_tokens(out: Path, info: StreamInfo) -> str:
    assert info.source_bytes is not None
    assert info.learned_bytes is not None
    learned = f"learned from the first {info.learned_bytes:,} of {info.source_bytes:,} bytes"
    return (
        f"{tokenizer_path(out)}: {info.source_bytes / info.count:.3f} bytes/symbol, "
        f"{learned if info.learned_bytes else 'learned from another text'}"
    )
