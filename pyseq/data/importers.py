"""What people have (text, audio, arrays, tables) as 16-bit symbols, ready for write_stream."""

import array
import csv as csv_reader
import math
import os
import platform
import sysconfig
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pyseq.data.stream_info import MAX_ALPHABET, Kind
from pyseq.data.tokenizer import Bytes, Tokenizer
from pyseq.errors import UserError

SIGN_OFFSET = 32_768  # turns int16 into uint16 without changing the order of the samples
READ_BYTES = 2**20
STDLIB_LEFT_OUT = frozenset({"site-packages", "dist-packages", "test", "tests"})

PathLike = str | os.PathLike[str]
Paths = PathLike | Sequence[PathLike]


@dataclass(frozen=True)
class Imported:
    """A source that is checked as far as its headers go, and not yet read.

    Args:
        chunks (Iterator of ndarray (n,), uint16): the symbols, once; reading may raise UserError.
        alphabet (int): symbols lie in 0..alphabet-1.
        kind ("values" | "tokens"): whether the magnitude of a symbol means something.
        source (str): where they come from, in words.
        count (int | None): number of symbols to expect, where it is known.
        tokenizer (Tokenizer | None): whose tokens the symbols are.
        learned_bytes (int): from how many bytes of the source, the first ones, it was learned.
    """

    chunks: Iterator[np.ndarray]
    alphabet: int
    kind: Kind
    source: str
    count: int | None
    tokenizer: Tokenizer | None = None
    learned_bytes: int = 0


def text(paths: Paths, *, pattern: str = "*") -> Imported:
    """The bytes of text files, one after another with nothing between them.

    Args:
        paths (path or sequence of paths): files are taken as they are, in the order given; folders
            are walked, without hidden entries, in the order of their full paths, and of their
            files those are taken that match the pattern and look like text (no zero byte in the
            first 8000, which is how git decides).
        pattern (str): shell pattern for the names of the files in folders, for example "*.py".

    Returns:
        Imported: alphabet 256, tokens.

    Raises:
        UserError: a path that is missing or cannot be read, or no text at all.
    """
    files = _files(paths, lambda file: fnmatchcase(file.name, pattern) and _looks_like_text(file))
    if not files:
        raise UserError(f"no text file that matches {pattern!r} lies in {_named(paths)}")
    return _bytes_of(files, f"text: {_plural(len(files), 'file')} from {_named(paths)}")


def stdlib_text() -> Imported:
    """The source of the running Python's standard library, a real text every machine has.

    All *.py outside folders named site-packages, dist-packages, test or tests, sorted by path.

    Returns:
        Imported: alphabet 256, tokens; `source` tells the version of Python and the files.

    Raises:
        UserError: this Python has no source files (a zipped library).
    """
    root = Path(sysconfig.get_path("stdlib"))
    files = [file for file in _walk(root, left_out=STDLIB_LEFT_OUT) if file.suffix == ".py"]
    if not files:
        raise UserError(f"{root} holds no *.py; name a folder of text instead")
    version = f"{platform.python_implementation()} {platform.python_version()}"
    return _bytes_of(files, f"text: standard library of {version}, {len(files)} .py files")


def by_byte_pairs(
    read: Callable[[], Imported],
    alphabet: int,
    *,
    share: float = 0.8,
) -> Imported:
    """Text as tokens of several bytes, learned from its beginning alone.

    Args:
        read (callable without arguments -> Imported): gives the bytes of the text, each time anew;
            it is called twice.
        alphabet (int): tokens to learn; 256..65536.
        share (float): of the bytes, from the first on, that the tokens are learned from, so that
            what a model is tested on later does not shape them; in (0, 1].

    Returns:
        Imported: tokens; the alphabet is smaller than asked for where the text has no more pairs
            of bytes or tokens that occur twice.

    Raises:
        UserError: a number is out of its range, no pair of bytes occurs twice, or what `read`
            raises.
    """
    if not 0 < share <= 1:
        raise UserError(f"--bpe_share {share}; a share above 0 and up to 1 fits")
    source = read()
    assert source.count is not None  # of bytes, which are counted before they are read
    learned_bytes = math.floor(share * source.count)
    tokenizer = Tokenizer.learn(_first(learned_bytes, _as_bytes(source)), alphabet)
    if tokenizer.alphabet == 256 < alphabet:
        raise UserError(
            f"--bpe learns from the first {share:g} of the text, {learned_bytes} bytes, which are"
            " too few: no pair of them occurs twice"
        )
    about = f"byte-pair tokens learned from the first {learned_bytes} bytes of {source.source}"
    return _tokens_of(read(), tokenizer, about, learned_bytes)


def with_tokenizer(source: Imported, tokenizer: Tokenizer) -> Imported:
    """Text as tokens that were learned from another text.

    Args:
        source (Imported): bytes.
        tokenizer (Tokenizer): as `by_byte_pairs` learns it.

    Returns:
        Imported: tokens.
    """
    about = f"byte-pair tokens learned elsewhere, of {source.source}"
    return _tokens_of(source, tokenizer, about, learned_bytes=0)


def wav(paths: Paths, channel: int | Literal["mix"] | None = None) -> Imported:
    """Samples of 16-bit PCM wav files, moved up by 32768.

    Args:
        paths (path or sequence of paths): files, and folders that are walked for *.wav; all of
            them are sorted by full path and follow one another.
        channel (int | "mix" | None): which channel (0 is the first), their rounded mean, or None
            for files that have one.

    Returns:
        Imported: alphabet 65536, values.

    Raises:
        UserError: no wav file, another format than 16-bit PCM, no frames, several channels without
            a choice, or sampling rates that differ.
    """
    files = sorted(_files(paths, lambda file: file.suffix.lower() == ".wav"), key=os.fspath)
    if not files:
        raise UserError(f"no *.wav lies in {_named(paths)}")
    headers = [_wav_header(file, channel) for file in files]
    for file, header in zip(files, headers, strict=True):
        if header.framerate != headers[0].framerate:
            raise UserError(
                f"{file} has {header.framerate} samples/s but {files[0]} has "
                f"{headers[0].framerate}; files of one rate fit"
            )
    chosen = "" if channel is None else f", channel {channel}"
    return Imported(
        chunks=(chunk for file in files for chunk in _wav_samples(file, channel)),
        alphabet=MAX_ALPHABET,
        kind="values",
        source=f"wav: {_plural(len(files), 'file')} from {_named(paths)}, "
        f"{headers[0].framerate} samples/s{chosen}",
        count=sum(header.nframes for header in headers),
    )


def npy(path: PathLike, *, alphabet: int | None = None, kind: Kind = "values") -> Imported:
    """A 1-D integer array that numpy.save wrote.

    Args:
        path (path): the .npy file. All values must lie in 0..65535, except that int16 with a
            negative value is moved up by 32768 (alphabet 65536).
        alphabet (int | None): number of symbols; None takes the largest value plus one.
        kind ("values" | "tokens"): what the numbers mean.

    Returns:
        Imported.

    Raises:
        UserError: no such file, no array, another shape or dtype, or a value out of range.
    """
    path = _existing_file(path)
    try:
        values = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a .npy array: {error}") from error
    if values.ndim != 1 or values.dtype.kind not in "iu" or values.size == 0:
        raise UserError(
            f"{path} holds {values.dtype} of shape {values.shape}; "
            f"a 1-D array of at least one whole number fits"
        )
    low, high = int(values.min()), int(values.max())
    offset = SIGN_OFFSET if low < 0 and values.dtype.itemsize == 2 else 0
    if low + offset < 0 or high + offset >= MAX_ALPHABET:
        wrong = int(np.argmax((values < 0) | (values >= MAX_ALPHABET)))
        raise UserError(
            f"{path} holds {values[wrong]} at offset {wrong}; 0..{MAX_ALPHABET - 1} fit, "
            f"and int16 of either sign"
        )
    if alphabet is None:
        alphabet = MAX_ALPHABET if offset else high + 1
    moved = f", moved up by {offset}" if offset else ""
    return Imported(
        chunks=(
            (values[start : start + READ_BYTES].astype(np.int64) + offset).astype(np.uint16)
            for start in range(0, values.size, READ_BYTES)
        ),
        alphabet=alphabet,
        kind=kind,
        source=f"npy: {path}, {values.dtype}{moved}",
        count=values.size,
    )


def csv(
    path: PathLike,
    column: str | int = 0,
    *,
    delimiter: str = ",",
    alphabet: int | None = None,
    kind: Kind = "values",
) -> Imported:
    """One column of whole numbers 0..65535 of a table in UTF-8.

    Args:
        path (path): the table. Empty lines are skipped.
        column (str | int): a name in the first line, or an index from 0; with an index a first
            line that holds no number there is taken for names.
        delimiter (str): one character between cells.
        alphabet (int | None): number of symbols; None takes the largest value plus one.
        kind ("values" | "tokens"): what the numbers mean.

    Returns:
        Imported.

    Raises:
        UserError: no such file, no such column, or (with its line) a cell that does not fit.
    """
    path = _existing_file(path)
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise UserError(f"the delimiter is {delimiter!r}; one character fits")
    symbols = array.array("H")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            symbols.extend(_csv_cells(path, csv_reader.reader(file, delimiter=delimiter), column))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8: {error.reason}") from error
    if not symbols:
        raise UserError(f"{path} holds no numbers in column {column!r}")
    values = np.frombuffer(symbols, dtype=np.uint16)
    return Imported(
        chunks=iter([values]),
        alphabet=int(values.max()) + 1 if alphabet is None else alphabet,
        kind=kind,
        source=f"csv: {path}, column {column!r}",
        count=values.size,
    )


def _csv_cells(path: Path, reader: Any, column: str | int) -> Iterator[int]:
    """The numbers of one column; `reader` is a csv.reader."""
    index = -1 if isinstance(column, str) else column  # a name is looked up in the first line
    try:
        for number, row in enumerate(row for row in reader if row):
            if number == 0 and isinstance(column, str):
                if column not in row:
                    raise UserError(f"{path} has no column {column!r}; it has {', '.join(row)}")
                index = row.index(column)
                continue
            cell = row[index].strip() if 0 <= index < len(row) else None
            if number == 0 and cell is not None and not _is_number(cell):
                continue
            if cell is None:
                raise UserError(
                    f"line {reader.line_num} of {path} has no column {column!r}; "
                    f"0..{len(row) - 1} fit"
                )
            symbol = int(cell) if cell.isascii() and cell.isdecimal() and len(cell) < 20 else -1
            if not 0 <= symbol < MAX_ALPHABET:
                raise UserError(
                    f"line {reader.line_num} of {path} holds {cell[:40]!r} in column {column!r}; "
                    f"a whole number in 0..{MAX_ALPHABET - 1} fits"
                )
            yield symbol
    except csv_reader.Error as error:
        raise UserError(f"line {reader.line_num} of {path} is no table row: {error}") from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _wav_header(file: Path, channel: int | Literal["mix"] | None) -> Any:
    """The header of a wav file that fits, as wave.getparams gives it."""
    with _opened_wav(file) as reader:
        header = reader.getparams()
    if header.sampwidth != 2:
        raise UserError(f"{file} has {8 * header.sampwidth}-bit samples; 16-bit PCM fits")
    if header.nframes == 0:
        raise UserError(f"{file} holds no frames")
    if channel is None and header.nchannels != 1:
        raise UserError(
            f"{file} has {header.nchannels} channels; choose 0..{header.nchannels - 1} or mix"
        )
    if isinstance(channel, int) and not 0 <= channel < header.nchannels:
        raise UserError(f"{file} has no channel {channel}; 0..{header.nchannels - 1} or mix fits")
    return header


def _wav_samples(file: Path, channel: int | Literal["mix"] | None) -> Iterator[np.ndarray]:
    with _opened_wav(file) as reader:
        header = reader.getparams()
        left = header.nframes
        while left:
            data = reader.readframes(min(left, READ_BYTES))
            # the wave module hands out native byte order
            frames = np.frombuffer(data[: len(data) // 2 * 2], dtype=np.int16)
            frames = frames[: frames.size // header.nchannels * header.nchannels]
            frames = frames.reshape(-1, header.nchannels)  # (frames, channels)
            if not len(frames):
                raise UserError(
                    f"{file} ends after {header.nframes - left} of the {header.nframes} frames "
                    f"that its header tells of"
                )
            left -= len(frames)
            samples = (
                np.rint(frames.mean(axis=1)).astype(np.int32)
                if channel == "mix"
                else frames[:, channel or 0].astype(np.int32)
            )
            yield (samples + SIGN_OFFSET).astype(np.uint16)


def _opened_wav(file: Path) -> wave.Wave_read:
    try:
        return wave.open(os.fspath(file), "rb")
    except (wave.Error, EOFError) as error:
        reason = str(error) or "it ends within its header"
        raise UserError(f"{file} is no wav file of 16-bit PCM: {reason}") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error


def _tokens_of(source: Imported, tokenizer: Tokenizer, about: str, learned_bytes: int) -> Imported:
    return Imported(
        chunks=tokenizer.encode_chunks(_as_bytes(source)),
        alphabet=tokenizer.alphabet,
        kind="tokens",
        source=about,
        count=None,
        tokenizer=tokenizer,
        learned_bytes=learned_bytes,
    )


def _as_bytes(source: Imported) -> Iterator[bytes]:
    return (chunk.astype(np.uint8).tobytes() for chunk in source.chunks)


def _first(count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The first `count` bytes."""
    for chunk in chunks:
        yield chunk[:count]
        count -= len(chunk)
        if count <= 0:
            return


def _bytes_of(files: Sequence[Path], source: str) -> Imported:
    count = sum(file.stat().st_size for file in files)
    if count == 0:
        raise UserError(f"{_named(files)} holds no bytes")
    return Imported(
        chunks=(chunk for file in files for chunk in _bytes_in(file)),
        alphabet=256,
        kind="tokens",
        source=source,
        count=count,
    )


def _bytes_in(file: Path) -> Iterator[np.ndarray]:
    try:
        with open(file, "rb") as opened:
            while data := opened.read(READ_BYTES):
                yield Bytes().encode(data)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error


def _looks_like_text(file: Path) -> bool:
    try:
        with open(file, "rb") as opened:
            return b"\0" not in opened.read(8000)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error


def _files(paths: Paths, wanted: Callable[[Path], bool]) -> list[Path]:
    """The named files, and the wanted ones of the named folders."""
    files: list[Path] = []
    if not _listed(paths):
        raise UserError("no path came; at least one file or folder fits")
    for path in _listed(paths):
        if os.path.isdir(path):
            files += [file for file in _walk(path) if wanted(file)]
        else:
            files.append(_existing_file(path))
    return files


def _walk(folder: Path, left_out: frozenset[str] = frozenset()) -> list[Path]:
    """The visible files below a folder, but for folders left out, sorted by full path as text."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error

    found = []
    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in left_out]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted((file for file in found if file.is_file()), key=os.fspath)


def _existing_file(path: PathLike) -> Path:
    path = Path(path)
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder; a file fits")
    if not os.path.exists(path):
        raise UserError(f"{path} does not exist")
    if not path.is_file():
        raise UserError(f"{path} is no regular file")
    return path


def _listed(paths: Paths) -> list[Path]:
    return [Path(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


def _named(paths: Paths) -> str:
    """The paths for a sentence; of many only the first three."""
    listed = [str(path) for path in _listed(paths)]
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + more


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
