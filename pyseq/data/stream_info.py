"""The JSON beside a u16 stream, and the one way in which streams are written."""

import contextlib
import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, asdict, dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np

from pyseq.errors import UserError

VERSION = 1
MAX_ALPHABET = 65_536
LLM_C_HEADER_BYTES = 1024

Kind = Literal["values", "tokens"]


@dataclass(frozen=True)
class StreamInfo:
    """What is known about a stream; `<stream>.json` holds it.

    Args:
        alphabet (int): symbols lie in 0..alphabet-1; 1..65536.
        kind ("values" | "tokens"): whether the magnitude of a symbol means something.
        source (str): where the stream comes from, in words.
        count (int): number of symbols, at least 1.
        sha256 (str): hash of the stream's bytes, 64 lower-case hexadecimal digits.
        entropy_rate (float | None): bits/symbol, where the source is known.
        min_entropy (float | None): min-entropy rate in bits/symbol, where the source is known.

    Raises:
        UserError: a field has the wrong kind or lies outside its range.
    """

    alphabet: int
    kind: Kind
    source: str
    count: int
    sha256: str
    entropy_rate: float | None = None
    min_entropy: float | None = None

    def __post_init__(self) -> None:
        _check_description(
            self.alphabet, self.kind, self.source, self.entropy_rate, self.min_entropy
        )
        if not _is_int(self.count) or self.count < 1:
            raise UserError(f"count is {self.count!r}; a whole number of at least 1 fits")
        digits = self.sha256 if isinstance(self.sha256, str) else ""
        if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
            raise UserError(f"sha256 is {self.sha256!r}; 64 lower-case hexadecimal digits fit")


def info_path(path: str | os.PathLike[str]) -> Path:
    """Where the description of a stream lies: `rolls.u16` has `rolls.u16.json`.

    Args:
        path (str | PathLike): the stream.

    Returns:
        Path, in the same folder.
    """
    path = Path(path)
    return path.with_name(path.name + ".json")


def read_info(path: str | os.PathLike[str]) -> StreamInfo | None:
    """Read the description of a stream.

    Args:
        path (str | PathLike): the stream itself, not its JSON.

    Returns:
        StreamInfo, or None where no JSON lies beside the stream.

    Raises:
        UserError: the JSON cannot be read, is malformed, or tells of another number of symbols
            than the stream has (with or without the 1024-byte header of llm.c).
    """
    described = info_path(path)
    try:
        fields = json.loads(described.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{described} cannot be read: {error.strerror}") from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise UserError(f"{described} is no JSON: {error}") from error
    try:
        info = _from_fields(fields)
    except UserError as error:
        raise UserError(f"{described} does not describe a stream: {error}") from error
    with contextlib.suppress(OSError):  # opening a stream that is not there reports it better
        size = Path(path).stat().st_size
        if size not in (2 * info.count, 2 * info.count + LLM_C_HEADER_BYTES):
            raise UserError(
                f"{described} tells of {info.count} symbols but {path} has {size} bytes; "
                f"{2 * info.count} bytes fit: make the stream anew or remove the JSON"
            )
    return info


def write_stream(
    path: str | os.PathLike[str],
    chunks: Iterable[np.ndarray],
    *,
    alphabet: int,
    kind: Kind,
    source: str,
    entropy_rate: float | None = None,
    min_entropy: float | None = None,
) -> StreamInfo:
    """Write a raw little-endian u16 stream and its JSON; both appear whole or not at all.

    Everything goes to temporary files in the same folder first, which any exception (Ctrl-C too)
    removes again. Then the files are renamed in the order that never pairs a stream with the JSON
    of another: an older JSON goes away, the stream appears, its JSON appears.

    Args:
        path (str | PathLike): the stream to make; an existing one is replaced on success only.
        chunks (Iterable of ndarray (n,), uint16): the symbols, in order; empty arrays are fine.
        alphabet (int): symbols must lie in 0..alphabet-1; 1..65536.
        kind ("values" | "tokens"): whether the magnitude of a symbol means something.
        source (str): where the stream comes from, in words.
        entropy_rate (float | None): bits/symbol, where known.
        min_entropy (float | None): bits/symbol, where known.

    Returns:
        StreamInfo, with the count and the SHA-256 of what was written.

    Raises:
        UserError: a symbol outside the alphabet (with its offset), no symbols at all, an output
            folder that is missing or cannot be written, a full disk.
        TypeError: a chunk is not a 1-D uint16 array.
    """
    path = Path(path)
    _check_description(alphabet, kind, source, entropy_rate, min_entropy)
    if not os.path.isdir(path.parent):
        raise UserError(f"{path} cannot be written: there is no folder {path.parent}")
    for target in (path, info_path(path)):
        if os.path.isdir(target):  # False, not an error, for a name that is too long
            raise UserError(f"{target} is a folder; a file is to be written there")
    with _part_beside(path) as stream_part, _part_beside(path) as info_part:
        count, sha256 = _write_symbols(stream_part, chunks, alphabet, path)
        if count == 0:
            raise UserError(f"{path} was not written: the source holds no symbols")
        info = StreamInfo(alphabet, kind, source, count, sha256, entropy_rate, min_entropy)
        text = json.dumps({"version": VERSION, **asdict(info)}, indent=2, ensure_ascii=False)
        with _output_errors(path):
            info_part.write(text.encode() + b"\n")
            for part in (stream_part, info_part):
                part.flush()
                os.fsync(part.fileno())
            _rename_pair(Path(stream_part.name), Path(info_part.name), path)
    return info


def _write_symbols(
    file: BinaryIO, chunks: Iterable[np.ndarray], alphabet: int, path: Path
) -> tuple[int, str]:
    """Write the chunks; their number of symbols and the SHA-256 of their bytes."""
    count, digest = 0, hashlib.sha256()
    for chunk in chunks:
        if chunk.ndim != 1 or chunk.dtype.newbyteorder("=") != np.uint16:
            raise TypeError(
                f"write_stream: a chunk of {chunk.dtype} came; 1-D uint16 arrays fit; "
                f"chunk {chunk.shape}"
            )
        if chunk.size and chunk.max() >= alphabet:
            first = int(np.argmax(chunk >= alphabet))
            raise UserError(
                f"symbol {chunk[first]} at offset {count + first} does not fit the alphabet; "
                f"0..{alphabet - 1} fit"
            )
        data = np.ascontiguousarray(chunk, dtype="<u2").data
        digest.update(data)
        with _output_errors(path):
            file.write(data)
        count += chunk.size
    return count, digest.hexdigest()


@contextlib.contextmanager
def _part_beside(path: Path) -> Iterator[BinaryIO]:
    """A new file in the folder of `path`; whatever of it is left at the end is removed."""
    part = path.with_name(f".pyseq-{secrets.token_hex(8)}.part")
    file = None
    try:
        with _output_errors(path):
            file = open(part, "xb")  # noqa: SIM115, its removal hangs on the same block
        yield file
    finally:
        if file is not None:
            with contextlib.suppress(OSError):  # a full disk fails here once more
                file.close()
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    """Around operations on the output only: an OSError of the source is not about `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def _rename_pair(stream_part: Path, info_part: Path, path: Path) -> None:
    """Rename both; wherever an interrupt falls, no stream lies beside the JSON of another."""
    info = info_path(path)
    aside = path.with_name(f".pyseq-{secrets.token_hex(8)}.old")
    try:
        with contextlib.suppress(FileNotFoundError):
            os.replace(info, aside)
        os.replace(stream_part, path)
    finally:
        if stream_part.exists():
            with contextlib.suppress(FileNotFoundError):
                os.replace(aside, info)
        else:
            aside.unlink(missing_ok=True)
            os.replace(info_part, info)


def _from_fields(fields: Any) -> StreamInfo:
    """The description in a decoded JSON; every deviation is a UserError."""
    if not isinstance(fields, dict):
        raise UserError("it holds no JSON object")
    fields = dict(fields)
    version = fields.pop("version", None)
    if version != VERSION:
        raise UserError(f"its version is {version!r}; {VERSION} fits")
    known = {field.name: field.default is MISSING for field in dataclass_fields(StreamInfo)}
    missing = [name for name, required in known.items() if required and name not in fields]
    unknown = [name for name in fields if name not in known]
    if missing or unknown:
        raise UserError(
            f"missing fields: {', '.join(missing) or 'none'}; "
            f"unknown fields: {', '.join(unknown) or 'none'}"
        )
    return StreamInfo(**fields)


def _check_description(
    alphabet: int, kind: str, source: str, entropy_rate: float | None, min_entropy: float | None
) -> None:
    """The fields that are known before the first symbol is."""
    if not _is_int(alphabet) or not 1 <= alphabet <= MAX_ALPHABET:
        raise UserError(f"the alphabet is {alphabet!r}; 1..{MAX_ALPHABET} fits")
    if kind not in get_args(Kind):
        raise UserError(f"the kind is {kind!r}; {' or '.join(get_args(Kind))} fits")
    if not isinstance(source, str):
        raise UserError(f"the source is {source!r}; a string fits")
    for name, bits in (("entropy_rate", entropy_rate), ("min_entropy", min_entropy)):
        if bits is not None and not _is_bits(bits, alphabet):
            raise UserError(f"{name} is {bits!r}; 0..{math.log2(alphabet):.6g} bits/symbol fits")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_bits(value: object, alphabet: int) -> bool:
    """Whether a number can be an entropy of such symbols; rounding may add 1e-9."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= math.log2(alphabet) + 1e-9
