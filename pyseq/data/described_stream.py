"""A stream together with what must be known to model it: its alphabet, kind and counts."""

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from pyseq.data.stream_info import MAX_ALPHABET, Kind, StreamInfo, read_info, tokenizer_path
from pyseq.data.tokenizer import Tokenizer
from pyseq.data.u16_stream import Paths, U16Stream
from pyseq.errors import UserError

CHUNK = 1 << 22  # symbols counted at a time
SAMPLE = 1 << 20  # symbols that the guess of the kind looks at


@dataclass(frozen=True)
class DescribedStream:
    """A stream whose every symbol was found inside its alphabet.

    Attributes:
        stream (U16Stream): the symbols.
        alphabet (int): symbols are 0..alphabet-1.
        kind ("tokens" | "values"): whether a symbol's magnitude means something.
        entropy_rate (float | None): bits per symbol, where the source is known.
        remarks (tuple of str): how the alphabet and the kind were found, a sentence each.
        tokenizer (Tokenizer | None): whose tokens the symbols are; None for all other streams.
        learned_bytes (int): from how many bytes of the text, the first ones, it was learned.
    """

    stream: U16Stream
    alphabet: int
    kind: Kind
    entropy_rate: float | None
    remarks: tuple[str, ...]
    tokenizer: Tokenizer | None = None
    learned_bytes: int = 0

    def counts(self, start: int, stop: int) -> np.ndarray:
        """How often each symbol occurs in [start, stop), (alphabet,) int64."""
        return count_symbols(self.stream, start, stop)[: self.alphabet]

    def source_bytes(self, start: int, stop: int) -> int | None:
        """How many bytes the tokens in [start, stop) stand for; None for all other streams."""
        if self.tokenizer is None:
            return None
        return int(self.counts(start, stop) @ self.tokenizer.lengths)

    def learned_beyond(self, start: int) -> str | None:
        """A sentence if the tokens were learned from text in the test range too.

        Args:
            start (int): the first symbol of the test range.
        """
        before = self.source_bytes(0, start)
        if before is None or self.learned_bytes <= before:
            return None
        return (
            f"tokens: learned from the first {self.learned_bytes:,} bytes, and the test range"
            f" begins after {before:,}, so tested text shaped them; a smaller --bpe_share of"
            " `pyseq data text` avoids that"
        )


def describe_stream(
    paths: Paths,
    *,
    io: str = "mmap",
    device: torch.device | None = None,
    alphabet: int | None = None,
    kind: Literal["auto", "tokens", "values"] = "auto",
) -> DescribedStream:
    """Open a stream and find out its alphabet and kind; reads every symbol once.

    Args:
        paths (str | PathLike | list of them): a file, several, or a glob.
        io (str): how symbols are read later, see `U16Stream`.
        device (torch.device | None): where io "gpu" keeps them.
        alphabet (int | None): the declared size; None takes the JSON's, or the highest symbol + 1.
        kind (str): "tokens", "values", or "auto": the JSON's, or a guess from the data.

    Raises:
        UserError: the files do not fit (see `U16Stream`), a symbol lies outside the declared
            alphabet (told with its offset), shards describe different alphabets, or the tokenizer
            that a description names is not there.
    """
    with warnings.catch_warnings(record=True) as suspicions:
        warnings.simplefilter("always")
        stream = U16Stream(paths, io=io, device=device)
    opened = _Opened(stream)
    if alphabet is not None and not 1 <= alphabet <= MAX_ALPHABET:
        raise UserError(f"--alphabet {alphabet}; 1 to {MAX_ALPHABET} fits")
    if alphabet is not None:
        remarks = [f"alphabet: {alphabet}, as given"]
    elif opened.info is not None:
        alphabet = opened.info.alphabet
        remarks = [f"alphabet: {alphabet}, from the JSON beside the stream"]
    else:
        alphabet = opened.highest + 1
        remarks = [f"alphabet: {alphabet}, one more than the highest symbol"]
    tokenizer = opened.tokenizer(alphabet)
    if opened.highest >= alphabet:
        offset = _first_at_least(stream, alphabet)
        raise UserError(
            f"symbol {int(stream[offset : offset + 1])} at offset {offset} lies outside the"
            f" declared alphabet of {alphabet}"
        )
    kind, why = opened.kind() if kind == "auto" else (kind, "as given")
    remarks.append(f"kind: {kind}, {why}")
    learned_bytes = 0
    if tokenizer is not None:
        source_bytes, learned_bytes = opened.source_bytes()
        remarks.append(
            f"tokens: {source_bytes / len(stream):.3f} bytes/symbol, by byte-pair encoding"
        )
    remarks += [str(suspicion.message) for suspicion in suspicions]
    return DescribedStream(
        stream,
        alphabet,
        kind,
        entropy_rate=opened.info.entropy_rate if opened.info else None,
        remarks=tuple(remarks),
        tokenizer=tokenizer,
        learned_bytes=learned_bytes,
    )


class _Opened:
    """Lazy looks at a stream that was just opened."""

    def __init__(self, stream: U16Stream):
        self.stream = stream
        self.infos = _agreeing_infos(stream)
        self.info = self.infos[0] if self.infos else None

    @cached_property
    def highest(self) -> int:
        return int(np.flatnonzero(count_symbols(self.stream, 0, len(self.stream)))[-1])

    def kind(self) -> tuple[Kind, str]:
        if self.info is not None:
            return self.info.kind, "from the JSON beside the stream"
        return guess_kind(self.stream[:SAMPLE].numpy())

    def tokenizer(self, alphabet: int) -> Tokenizer | None:
        """The tokenizer beside the first shard, if there is one; it must have this alphabet."""
        if self.info is None or self.info.tokenizer is None:
            return None
        stream = self.stream.shards[0].path
        tokenizer = Tokenizer.read(tokenizer_path(stream))
        if tokenizer.sha256 != self.info.tokenizer:
            raise UserError(
                f"{tokenizer_path(stream)} is not the tokenizer that {stream} was made with; make"
                " the stream anew"
            )
        if tokenizer.alphabet != alphabet:
            raise UserError(
                f"an alphabet of {alphabet} does not fit this stream, whose tokenizer has"
                f" {tokenizer.alphabet} tokens"
            )
        return tokenizer

    def source_bytes(self) -> tuple[int, int]:
        """Bytes that the tokens stand for, and of them those up to the last learned from."""
        sizes = [info.source_bytes or 0 for info in self.infos]
        starts = itertools.accumulate(sizes, initial=0)
        learned = [info.learned_bytes or 0 for info in self.infos]
        ends = (start + size for start, size in zip(starts, learned, strict=False) if size)
        return sum(sizes), max(ends, default=0)


def _agreeing_infos(stream: U16Stream) -> Sequence[StreamInfo]:
    """The shards' descriptions, which must agree; none unless every shard has one."""
    read = [read_info(shard.path) for shard in stream.shards]
    infos = [info for info in read if info is not None]
    if len(infos) < len(read):
        return []
    first = infos[0]
    for shard, info in zip(stream.shards, infos, strict=True):
        if (info.alphabet, info.kind) != (first.alphabet, first.kind):
            raise UserError(
                f"{shard.path} has {info.alphabet} {info.kind}, {stream.shards[0].path} has"
                f" {first.alphabet} {first.kind}; shards of one stream must agree"
            )
        if info.tokenizer != first.tokenizer:
            raise UserError(
                f"{shard.path} and {stream.shards[0].path} hold tokens of different tokenizers;"
                " shards of one stream must agree"
            )
    return infos


def guess_kind(symbols: np.ndarray) -> tuple[Kind, str]:
    """Whether symbols (N,) uint16 look like values or like tokens, and why.

    Neighbouring values of a signal lie close together, and even an independent signal has a
    histogram in which neighbouring values are about equally frequent; ids have neither.
    """
    alphabet = int(symbols.max()) + 1
    if alphabet <= 256:
        return "tokens", f"a guess: only {alphabet} different codes; --kind values overrules"
    series = symbols.astype(np.float64)
    correlation = _correlation(series[:-1], series[1:])
    if correlation > 0.5:
        return "values", f"a guess: neighbouring symbols correlate ({correlation:.2f})"
    counts = np.bincount(symbols, minlength=alphabet).astype(np.float64)
    width = max(1, alphabet // 256)  # coarse enough for some counts in each bin
    coarse = np.add.reduceat(counts, np.arange(0, alphabet - width + 1, width))
    steps = np.abs(np.diff(coarse)).mean()
    noise = np.sqrt(2 * coarse.mean() * 2 / np.pi)  # mean |step| of a flat Poisson histogram
    smooth = _correlation(coarse[:-1], coarse[1:])
    if steps < 2 * noise or smooth > 0.8:
        return "values", "a guess: neighbouring symbols are about equally frequent"
    return "tokens", "a guess: neighbouring symbols differ in frequency, as ids do"


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 0 else 0.0


def count_symbols(stream: U16Stream, start: int, stop: int) -> np.ndarray:
    """How often each symbol occurs in [start, stop), (65536,) int64."""
    counts = np.zeros(MAX_ALPHABET, np.int64)
    for first in range(start, stop, CHUNK):
        symbols = stream[first : min(first + CHUNK, stop)].numpy()
        counts += np.bincount(symbols, minlength=MAX_ALPHABET)
    return counts


def _first_at_least(stream: U16Stream, bound: int) -> int:
    for first in range(0, len(stream), CHUNK):
        outside = stream[first : first + CHUNK].numpy() >= bound
        if outside.any():
            return first + int(outside.argmax())
    raise AssertionError("no symbol reaches the bound")
