"""The JSON beside a u16 stream, and the one way in which streams are written."""

import contextlib
import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, asdict, dataclass, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeGuard, get_args

import numpy as np

from pyseq.errors import UserError

if TYPE_CHECKING:
    from pyseq.data.tokenizer import Tokenizer

VERSION = 1
MAX_ALPHABET = 65_536
LLM_C_HEADER_BYTES = 1024

Kind = Literal["values", "tokens"]


@dataclass(frozen=True)
class StreamInfo:
    """What is known about a stream; `<stream>.json` holds it, without what is None.

    The last three fields came after the format's version 1 and did not raise it: descriptions
    without them read as ever, and a reader that does not know them refuses them by their names.

    Args:
        alphabet (int): symbols lie in 0..alphabet-1; 1..65536.
        kind ("values" | "tokens"): whether the magnitude of a symbol means something.
        source (str): where the stream comes from, in words.
        count (int): number of symbols, at least 1.
        sha256 (str): hash of the stream's bytes, 64 lower-case hexadecimal digits.
        entropy_rate (float | None): bits/symbol, where the source is known.
        min_entropy (float | None): min-entropy rate in bits/symbol, where the source is known.
        tokenizer (str | None): SHA-256 of the file at `tokenizer_path`, for the tokens of a
            `Tokenizer`.
        source_bytes (int | None): how many bytes those tokens stand for.
        learned_bytes (int | None): from how many of them, the first ones, the tokens were learned.

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
    tokenizer: str | None = None
    source_bytes: int | None = None
    learned_bytes: int | None = None

    def __post_init__(self) -> None:
        _check_description(
            self.alphabet, self.kind, self.source, self.entropy_rate, self.min_entropy
        )
        if not _is_int(self.count) or self.count < 1:
            raise UserError(f"count is {self.count!r}; a whole number of at least 1 fits")
        _check_digest("sha256", self.sha256)
        source, learned = self.source_bytes, self.learned_bytes
        if (self.tokenizer, source, learned) == (None, None, None):
            return
        _check_digest("tokenizer", self.tokenizer)
        if not (_is_int(source) and _is_int(learned) and 0 <= learned <= source):
            raise UserError(
                f"learned_bytes is {learned!r} and source_bytes is {source!r}; whole numbers fit, "
                "of which the first is not the larger"
            )


def info_path(path: str | os.PathLike[str]) -> Path:
    """Where the description of a stream lies: `rolls.u16` has `rolls.u16.json`.

    Args:
        path (str | PathLike): the stream.

    Returns:
        Path, in the same folder.
    """
    path = Path(path)
    return path.with_name(path.name + ".json")


def tokenizer_path(path: str | os.PathLike[str]) -> Path:
    """Where the tokenizer of a stream of tokens lies: `a.u16` has `a.u16.tokenizer.json`.

    Args:
        path (str | PathLike): the stream.

    Returns:
        Path, in the same folder.
    """
    path = Path(path)
    return path.with_name(path.name + ".tokenizer.json")


def require_new(path: str | os.PathLike[str]) -> None:
    """Refuse an output where a stream, or what lies beside one, exists already.

    Args:
        path (str | PathLike): the stream to make.

    Raises:
        UserError: one of the files exists.
    """
    for existing in _files_of(path):
        if os.path.isfile(existing):
            raise UserError(f"{existing} exists already; another --out or --overwrite fits")


def _files_of(path: str | os.PathLike[str]) -> tuple[Path, Path, Path]:
    return Path(path), info_path(path), tokenizer_path(path)


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
    tokenizer: "Tokenizer | None" = None,
    learned_bytes: int = 0,
) -> StreamInfo:
    """Write a raw little-endian u16 stream and its JSON; both appear whole or not at all.

    Everything goes to temporary files in the same folder first, which any exception (Ctrl-C too)
    removes again. Then the files are renamed in the order that never pairs a stream with the JSON
    or the tokenizer of another: older ones go away, the stream appears, its own appear.

    Args:
        path (str | PathLike): the stream to make; an existing one is replaced on success only.
        chunks (Iterable of ndarray (n,), uint16): the symbols, in order; empty arrays are fine.
        alphabet (int): symbols must lie in 0..alphabet-1; 1..65536.
        kind ("values" | "tokens"): whether the magnitude of a symbol means something.
        source (str): where the stream comes from, in words.
        entropy_rate (float | None): bits/symbol, where known.
        min_entropy (float | None): bits/symbol, where known.
        tokenizer (Tokenizer | None): whose tokens the symbols are; it is stored beside the stream.
        learned_bytes (int): from how many bytes of this source, the first ones, it was learned.

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
    for target in _files_of(path):
        if os.path.isdir(target):  # False, not an error, for a name that is too long
            raise UserError(f"{target} is a folder; a file is to be written there")
    with contextlib.ExitStack() as parts:
        stream_part, info_part = (parts.enter_context(_part_beside(path)) for _ in range(2))
        count, sha256, source_bytes = _write_symbols(stream_part, chunks, alphabet, path, tokenizer)
        if count == 0:
            raise UserError(f"{path} was not written: the source holds no symbols")
        info = StreamInfo(alphabet, kind, source, count, sha256, entropy_rate, min_entropy)
        tokenizer_part = None
        if tokenizer is not None:
            info = replace(
                info,
                tokenizer=tokenizer.sha256,
                source_bytes=source_bytes,
                learned_bytes=learned_bytes,
            )
            tokenizer_part = parts.enter_context(_part_beside(path))
            with _output_errors(path):
                tokenizer_part.write(tokenizer.json.encode())
        with _output_errors(path):
            info_part.write(_as_json(info).encode())
            beside = {tokenizer_path(path): tokenizer_part, info_path(path): info_part}
            for part in filter(None, (stream_part, *beside.values())):
                part.flush()
                os.fsync(part.fileno())
            _rename_all(stream_part, path, beside)
    return info


def _as_json(info: StreamInfo) -> str:
    fields = {name: value for name, value in asdict(info).items() if value is not None}
    return json.dumps({"version": VERSION, **fields}, indent=2, ensure_ascii=False) + "\n"


def _write_symbols(
    file: BinaryIO,
    chunks: Iterable[np.ndarray],
    alphabet: int,
    path: Path,
    tokenizer: "Tokenizer | None",
) -> tuple[int, str, int]:
    """Write the chunks; number of symbols, SHA-256 of the file, bytes the tokens stand for."""
    count, digest, source_bytes = 0, hashlib.sha256(), 0
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
        if tokenizer is not None:
            source_bytes += int(tokenizer.lengths[chunk].sum())
    return count, digest.hexdigest(), source_bytes


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


def _rename_all(stream_part: BinaryIO, path: Path, beside: dict[Path, BinaryIO | None]) -> None:
    """Rename the stream and what lies beside it; what has no new part goes away.

    Wherever an interrupt falls, no stream lies beside the JSON or the tokenizer of another.
    """
    aside = {target: target.with_name(f".pyseq-{secrets.token_hex(8)}.old") for target in beside}
    try:
        for target, old in aside.items():
            with contextlib.suppress(FileNotFoundError):
                os.replace(target, old)
        os.replace(stream_part.name, path)
    finally:
        if os.path.exists(stream_part.name):
            for target, old in aside.items():
                with contextlib.suppress(FileNotFoundError):
                    os.replace(old, target)
        else:
            for old in aside.values():
                old.unlink(missing_ok=True)
            for target, part in beside.items():
                if part is not None:
                    os.replace(part.name, target)


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


def _check_digest(name: str, digest: object) -> None:
    digits = digest if isinstance(digest, str) else ""
    if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise UserError(f"{name} is {digest!r}; 64 lower-case hexadecimal digits fit")


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


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_bits(value: object, alphabet: int) -> bool:
    """Whether a number can be an entropy of such symbols; rounding may add 1e-9."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= math.log2(alphabet) + 1e-9
