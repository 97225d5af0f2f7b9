"""Raw little-endian 16-bit files, one or several shards, as one long stream of symbols."""

import glob
import hashlib
import mmap
import os
import stat
import warnings
import weakref
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pyseq.data.remote import is_url, local_copies
from pyseq.data.stream_info import LLM_C_HEADER_BYTES, info_path, tokenizer_path
from pyseq.data.upload import upload, upload_device
from pyseq.errors import UserError
from pyseq.ops import backends

IO_MODES = ("mmap", "pread", "ram", "gpu")
RESIDENT_BYTES = 1 << 30  # mmap: how much of the files may count as this process's memory

# The header of llm.c and modded-nanogpt: 256 int32, of which magic, version and count are used.
HEADER_MAGIC = 20240520
HEADER_VERSION = 1
HEADER_OF_32_BIT_TOKENS = (20240801, 7)

SAMPLED_BLOCKS = 64  # for the fingerprint
BLOCK_SYMBOLS = 2048

Paths = str | os.PathLike | list[str | os.PathLike] | tuple[str | os.PathLike, ...]


@dataclass(frozen=True)
class Shard:
    """One file of a stream as it was when the stream was opened."""

    path: Path
    symbols: int
    header_bytes: int
    identity: tuple[int, int]  # device and inode


class Reader(Protocol):
    """Whoever reads a stream in the background."""

    def stop(self) -> None:
        """Return once nothing is read any more."""


class U16Stream:
    """A read-only stream of 16-bit symbols in one or several files.

    A file is raw little-endian uint16, or carries the 1024-byte header of llm.c. Shards follow one
    another in the order given, a glob's matches in sorted order.

    Args:
        path_or_paths_or_glob (str | PathLike | list of them): the file or files. A URL, such as
            "https://host/a.u16" or "s3://bucket/*.u16", is read by fsspec and copied once to a
            cache on this machine: $PYSEQ_CACHE, or pyseq in the user's folder for caches.
        io (str): how symbols are read.
            "mmap" maps the files. Pages that were read count as this process's memory although the
            system can take them back at any time; all of them are let go whenever more than 1 GiB
            is resident, and mapped again when they are read again. That is looked at after every
            64 windows of a thread, each of which may have mapped 2 MiB: with two threads 1.4 GiB
            was the most that was seen.
            "pread" reads each window with a system call: resident memory stays flat. Faster than
            "mmap" for random windows of files of more than 1 GiB, slower for smaller ones.
            "ram" loads the stream when it is opened.
            "gpu" loads it into the memory of `device` when it is opened; `gather_windows` then
            works there. Slices are copied back.
            Of "ram" and "gpu" nothing in a file matters any more once the stream is open.
        device (torch.device | str | None): where "gpu" keeps the stream; None is the current CUDA
            device. On "cpu" it behaves alike without a GPU, for tests.

    Raises:
        UserError: a file is missing, a directory, unreadable, empty, has an odd number of bytes or
            a header whose count is wrong; one sentence that names the file. Or `io` is "gpu", and
            there is no such GPU, or the stream does not fit into its free memory.

    Example:
        >>> import tempfile, numpy as np
        >>> from pyseq.data import U16Stream
        >>> folder = tempfile.TemporaryDirectory()
        >>> np.array([5, 6, 65535], dtype="<u2").tofile(folder.name + "/s.u16")
        >>> with U16Stream(folder.name + "/s.u16") as stream:
        ...     print(len(stream), stream[1:3].tolist())
        3 [6, 65535]
    """

    def __init__(
        self,
        path_or_paths_or_glob: Paths,
        *,
        io: str = "mmap",
        device: torch.device | str | None = None,
    ):
        if io not in IO_MODES:
            raise UserError(f"io is {io!r}; {', '.join(IO_MODES)} fit")
        if io != "gpu" and device is not None:
            raise ValueError(f"U16Stream: device is {device}; io='gpu', not {io!r}, has a device")
        self.io = io
        self.device = upload_device(device) if io == "gpu" else None
        self.shards = [_inspect(path) for path in _expand(path_or_paths_or_glob)]
        self.starts = np.cumsum([0] + [shard.symbols for shard in self.shards])
        self._descriptors = [_open(shard.path) for shard in self.shards]
        self._close_descriptors = weakref.finalize(self, _close, self._descriptors)
        self._closed = False
        self._maps: list[mmap.mmap] = []
        self._arrays: list[np.ndarray] = []
        self._resident: Tensor | None = None  # (S,) uint16, on the device
        self._readers: weakref.WeakSet[Reader] = weakref.WeakSet()
        if io == "mmap":
            self._map()
        elif io == "ram":
            self._load()
        elif self.device is not None:
            self._resident = upload(self._name, len(self), self.device, self._read_files)
        self._warn_if_big_endian()

    def _map(self) -> None:
        for descriptor, shard in zip(self._descriptors, self.shards, strict=True):
            mapping = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
            self._maps.append(mapping)
            self._arrays.append(
                np.frombuffer(mapping, "<u2", count=shard.symbols, offset=shard.header_bytes)
            )

    def _load(self) -> None:
        whole = np.empty(len(self), np.uint16)
        self._read_files(0, whole)
        self._arrays = [whole]

    def __len__(self) -> int:
        """Symbols in the stream."""
        return int(self.starts[-1])

    def __getitem__(self, window: slice) -> Tensor:
        """Symbols [a:b] as a uint16 tensor of its own; a and b as in Python's slices, no step."""
        if not isinstance(window, slice) or window.step not in (None, 1):
            raise TypeError(f"U16Stream: {window!r}; a slice [a:b] without a step fits")
        start, stop, _ = window.indices(len(self))
        out = np.empty(max(stop - start, 0), np.uint16)
        self._read(start, out)
        self.verify()
        return torch.from_numpy(out)

    def _read(self, start: int, out: np.ndarray) -> None:
        """Fill `out` from symbol `start` on."""
        self._require_open()
        if len(out) == 0:
            return
        if self._resident is not None:
            torch.from_numpy(out).copy_(self._resident[start : start + len(out)])
            return
        refusals = {"native": backends.refuse_native}
        # Native code survives a truncated mapping, which numpy does not; without it files are read.
        if backends.choose("gather_windows", "auto", refusals) == "native":
            offset, row = np.array([start]), out.reshape(1, -1)
            try:
                backends.core().gather_windows(self.symbol_source(), offset, row, 1)
            except RuntimeError:
                self.verify()
                raise
            return
        if self.io == "ram":
            out[:] = self._arrays[0][start : start + len(out)]
            return
        self._read_files(start, out)

    def _read_files(self, start: int, out: np.ndarray) -> None:
        done = 0
        while done < len(out):
            index = int(np.searchsorted(self.starts, start + done, side="right")) - 1
            inside = start + done - int(self.starts[index])
            here = min(self.shards[index].symbols - inside, len(out) - done)
            self._pread(index, inside, out[done : done + here])
            done += here

    def _pread(self, index: int, first: int, out: np.ndarray) -> None:
        shard, view = self.shards[index], out.data.cast("B")
        offset = shard.header_bytes + 2 * first
        while len(view):
            got = os.preadv(self._descriptors[index], [view], offset)
            if got == 0:
                self.verify()
                raise UserError(f"{shard.path} ended while it was read")
            view, offset = view[got:], offset + got

    def resident(self) -> Tensor | None:
        """The symbols (S,), uint16, where `io` "gpu" keeps them; None for other modes."""
        self._require_open()
        return self._resident

    def symbol_source(self) -> Any:
        """The stream as a `_core.SymbolSource`, which lives no longer than the stream is open.

        Raises:
            ValueError: the stream is closed, or is kept on a GPU.
        """
        self._require_open()
        if self.io == "gpu":
            raise ValueError(f"U16Stream: native code cannot read a stream kept on {self.device}")
        return self._symbol_source

    @cached_property
    def _symbol_source(self) -> Any:
        if self.io == "pread":
            return backends.core().source_in_files(
                [
                    (descriptor, shard.header_bytes, shard.symbols)
                    for descriptor, shard in zip(self._descriptors, self.shards, strict=True)
                ]
            )
        if self.io == "mmap":
            return backends.core().source_in_mapped_files(
                [
                    (array, descriptor, shard.header_bytes)
                    for array, descriptor, shard in zip(
                        self._arrays, self._descriptors, self.shards, strict=True
                    )
                ],
                RESIDENT_BYTES,
            )
        return backends.core().source_in_memory(self._arrays)

    def read_by(self, reader: Reader) -> None:
        """Have `reader.stop()` called before files and memory are let go.

        Args:
            reader (Reader): reads `symbol_source()` in threads of its own; not kept alive.
        """
        self._readers.add(reader)

    def verify(self) -> None:
        """Raise UserError if a file was truncated or replaced since the stream was opened.

        Streams that were loaded when they were opened ("ram", "gpu") stay what they are.
        """
        if self.io in ("ram", "gpu"):
            return
        for shard in self.shards:
            try:
                now = os.stat(shard.path)
            except OSError as error:
                raise UserError(f"{shard.path} is gone: {error.strerror}") from error
            if (now.st_dev, now.st_ino) != shard.identity:
                raise UserError(f"{shard.path} was replaced while it was open")
            if now.st_size < shard.header_bytes + 2 * shard.symbols:
                raise UserError(
                    f"{shard.path} was truncated while it was open: it held {shard.symbols}"
                    f" symbols, now {now.st_size} bytes"
                )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the number of symbols and up to 64 sampled 4 KiB blocks, 32 hex digits.

        It does not depend on names, on how the stream is cut into shards, on headers or io mode.
        """
        return self.range_fingerprint(0, len(self))

    def range_fingerprint(self, start: int, stop: int) -> str:
        """The fingerprint that symbols [start, stop) would have as a stream of their own.

        Args:
            start (int): first symbol of the range.
            stop (int): one past its last symbol.

        Returns:
            str: 32 hex digits.
        """
        digest = hashlib.sha256((stop - start).to_bytes(8, "little"))
        last = max(stop - start - BLOCK_SYMBOLS, 0)
        for first in sorted({last * i // (SAMPLED_BLOCKS - 1) for i in range(SAMPLED_BLOCKS)}):
            symbols = self[start + first : min(start + first + BLOCK_SYMBOLS, stop)].numpy()
            digest.update(symbols.astype("<u2").tobytes())
        return digest.hexdigest()[:32]

    def _warn_if_big_endian(self) -> None:
        if info_path(self.shards[0].path).exists():
            return
        sample = self[: 1 << 16].numpy()
        low, high = (_entropy_bits(byte) for byte in (sample & 0xFF, sample >> 8))
        if low + 1 < high:
            warnings.warn(
                f"{self.shards[0].path}: the low bytes vary less than the high bytes ({low:.2f}"
                f" and {high:.2f} bits), as if the file were big-endian; little-endian is read",
                stacklevel=3,
            )

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("U16Stream: the stream is closed")

    def close(self) -> None:
        """Let go of files and memory; reading afterwards is a ValueError.

        The memory of a GPU goes back to PyTorch, which may keep it for other tensors.
        """
        self._closed = True  # first, so that nobody begins to read again
        for reader in list(self._readers):
            reader.stop()
        self.__dict__.pop("_symbol_source", None)
        self._arrays, self._maps = [], []  # a mapping ends when nothing refers to it any more
        self._resident = None
        self._close_descriptors()

    def __enter__(self) -> "U16Stream":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __reduce__(self):
        return _reopen, ([shard.path for shard in self.shards], self.io, self.device)

    @property
    def _name(self) -> str:
        more = len(self.shards) - 1
        return f"{self.shards[0].path}{f' and {more} more' if more else ''}"

    def __repr__(self) -> str:
        return f"U16Stream({len(self.shards)} shards, {len(self)} symbols, io={self.io!r})"


def _reopen(paths: list[Path], io: str, device: torch.device | None) -> U16Stream:
    return U16Stream(list(paths), io=io, device=device)


def _expand(given: Paths) -> list[Path]:
    """Files meant by a path, several paths, or a glob."""
    if isinstance(given, list | tuple):
        if not given:
            raise UserError("an empty list of paths; at least one u16 file fits")
        return [path for one in given for path in _expand(one)]
    text = os.fspath(given)
    if is_url(text):
        return local_copies(text)
    if os.path.lexists(text) or not glob.has_magic(text):
        return [Path(text)]
    found = set(glob.glob(text))
    besides = {os.fspath(of(match)) for match in found for of in (info_path, tokenizer_path)}
    matches = sorted(found - besides)
    if not matches:
        raise UserError(f"{text} matches no file")
    return [Path(match) for match in matches]


def _inspect(path: Path) -> Shard:
    """Check one file and find out what it holds."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise UserError(f"{path} is a directory; a u16 file, several, or a glob fits")
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is not a regular file; windows need random access")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    descriptor = _open(path)
    try:
        head = os.read(descriptor, 12)
    finally:
        os.close(descriptor)
    if status.st_size == 0:
        raise UserError(f"{path} is empty")
    if status.st_size % 2 != 0:
        raise UserError(
            f"{path} has {status.st_size} bytes, an odd number; 16-bit symbols need an even one"
        )
    header_bytes = _header_bytes(path, head, status.st_size)
    symbols = (status.st_size - header_bytes) // 2
    if symbols == 0:
        raise UserError(f"{path} has a header and no symbols")
    return Shard(path, symbols, header_bytes, (status.st_dev, status.st_ino))


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _header_bytes(path: Path, head: bytes, size: int) -> int:
    fields = np.frombuffer(head.ljust(12, b"\0"), "<i4")
    magic, version, count = (int(field) for field in fields)
    # A raw stream starts with such 8 bytes by chance once in 1.8e19 times.
    if (magic, version) == HEADER_OF_32_BIT_TOKENS:
        raise UserError(f"{path} has llm.c's header for 32-bit tokens; 16-bit symbols fit")
    if magic != HEADER_MAGIC or version != HEADER_VERSION:
        return 0
    if size != LLM_C_HEADER_BYTES + 2 * count:
        raise UserError(
            f"{path} has a header that counts {count} symbols, which makes"
            f" {LLM_C_HEADER_BYTES + 2 * count} bytes; the file has {size}"
        )
    return LLM_C_HEADER_BYTES


def _entropy_bits(values: np.ndarray) -> float:
    counts = np.bincount(values.astype(np.int64))
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
