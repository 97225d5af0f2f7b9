"""What the benchmarks of windows share: a file, the ways people read windows of it, a check.

Every contestant returns (offsets, windows), B windows of T symbols from random places of one file,
so that any of them can be checked against a plain read. A call counts as B * T tokens for all;
nanoGPT's get_batch makes two windows per sample, so it also runs as one half.
"""

import itertools
import mmap
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.harness import Call, Ceiling, Contestant, WrongAnswer, results_past_cache, rotate
from pyseq.data import U16Stream

IO_MODES = ("mmap", "pread", "ram")
SETTLE_SECONDS = 0.05  # for the few batches that loaders make ahead


@dataclass(frozen=True)
class Inputs:
    """One file, opened in every way, and the sets of offsets that calls go through."""

    path: Path
    data: np.memmap  # for contestants; checks read the file, which maps nothing
    streams: dict[str, U16Stream]
    batch: int
    length: int
    dtype: torch.dtype
    offsets: Sequence[torch.Tensor]  # each (B,) int64

    @property
    def numpy_dtype(self) -> np.dtype:
        return torch.empty(0, dtype=self.dtype).numpy().dtype


def peers(dtype: torch.dtype, cold: bool = False) -> list[Contestant]:
    """numpy's gather in one line, a DataLoader over a memory map, nanoGPT's batch."""
    found = [
        Contestant("numpy", numpy_gather, peer=True),
        Contestant("DataLoader", partial(dataloader, 0, touched=not cold), peer=True),
    ]
    if not cold:  # not held: each result is a fresh shared mapping with a file descriptor
        make = partial(dataloader, 2)
        found.append(Contestant("DataLoader 2 workers", make, peer=True, hold=False))
    if dtype == torch.int64:  # get_batch knows no other
        found += [
            Contestant("get_batch", partial(get_batch, (0, 1)), peer=True),
            Contestant("get_batch without targets", partial(get_batch, (0,)), peer=True),
        ]
    return found


def ceilings(result_bytes: int) -> list[Ceiling]:
    """Copies of as many bytes as a result has."""
    return [
        Ceiling("memcpy", "GB/s", result_bytes / 1e9, _memcpy),
        Ceiling("parallel copy", "GB/s", result_bytes / 1e9, _parallel_copy),
    ]


def check(inputs: Inputs, result: tuple) -> None:
    """Refuse unless every tensor behind the offsets, the k-th shifted by k, is as in the file."""

    def plain(start: int) -> np.ndarray:
        return np.fromfile(inputs.path, np.uint16, inputs.length, offset=2 * start)

    offsets, *shifted = result
    starts = [int(offset) for offset in offsets]
    if len(set(starts)) < inputs.batch // 2:
        raise WrongAnswer(f"{len(set(starts))} different offsets among {inputs.batch}")
    for shift, windows in enumerate(shifted):
        if tuple(windows.shape) != (inputs.batch, inputs.length):
            raise WrongAnswer(f"shape {tuple(windows.shape)}")
        if windows.dtype not in (inputs.dtype, inputs.numpy_dtype):
            raise WrongAnswer(f"dtype {windows.dtype}")
        if not np.array_equal(windows, np.stack([plain(start + shift) for start in starts])):
            raise WrongAnswer(f"symbols {shift} after the offsets differ from those in the file")


@contextmanager
def file_inputs(
    batch: int, length: int, dtype: torch.dtype, symbols: int, modes: Sequence[str] = IO_MODES
) -> Iterator[Inputs]:
    """A file of random symbols in a temporary folder, opened in every mode."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="pyseq-benchmark-") as folder:
        path = Path(folder) / "stream.u16"
        generator.integers(0, 1 << 16, symbols, np.uint16).tofile(path)
        with path.open("rb") as file:
            os.fsync(file.fileno())  # what was not written yet cannot leave the cache
        sets = results_past_cache(2 * batch * length)
        offsets = list(torch.from_numpy(generator.integers(0, symbols - length, (sets, batch))))
        with opened(path, modes) as streams:
            data = np.memmap(path, np.uint16, mode="r")
            yield Inputs(path, data, streams, batch, length, dtype, offsets)


@contextmanager
def opened(path: Path, modes: Sequence[str] = IO_MODES) -> Iterator[dict[str, U16Stream]]:
    """The file as a stream of each io mode."""
    with ExitStack() as stack:
        yield {io: stack.enter_context(U16Stream(path, io=io)) for io in modes}


class Batches:
    """Successive batches of an iterator that may work ahead."""

    def __init__(self, iterator, pair, ahead: int):
        self._iterator, self._pair, self._ahead = iterator, pair, ahead

    def __call__(self):
        return self._pair(next(self._iterator))

    def resume(self):
        for _ in range(self._ahead):
            self()

    def pause(self):
        if self._ahead:
            time.sleep(SETTLE_SECONDS)

    def close(self):
        self._iterator = None  # a DataLoader's workers end with its iterator


def numpy_gather(inputs: Inputs) -> Call:
    following = rotate([offsets.numpy() for offsets in inputs.offsets])
    data, length, dtype = inputs.data, inputs.length, inputs.numpy_dtype

    def call():
        offsets = following()
        windows = np.lib.stride_tricks.sliding_window_view(data, length)[offsets]
        return offsets, windows.astype(dtype, copy=False)

    return call


def get_batch(shifts: tuple[int, ...], inputs: Inputs) -> Call:
    """nanoGPT's batch: the file mapped anew each time, one slice and cast per sample and shift."""

    def call():
        data = np.memmap(inputs.path, np.uint16, mode="r")
        starts = torch.randint(len(data) - inputs.length, (inputs.batch,))
        shifted = []
        for shift in shifts:
            rows = (data[i + shift : i + shift + inputs.length].astype(np.int64) for i in starts)
            shifted.append(torch.stack([torch.from_numpy(row) for row in rows]))
        return starts, *shifted

    return call


class _Windows(Dataset):
    """A map-style dataset over a memory map, as tutorials write it; the index is the offset.

    The map is opened on first use, in the process that reads it (pickled, it would be a copy), and
    if `touched` every page read once, as after some time of training.
    """

    def __init__(self, path: Path, length: int, dtype: np.dtype, touched: bool):
        self.path, self.length, self.dtype, self.touched = path, length, dtype, touched

    @cached_property
    def data(self) -> np.memmap:
        data = np.memmap(self.path, np.uint16, mode="r")
        if self.touched:
            data[:: mmap.PAGESIZE // data.itemsize].max()
        return data

    def __getitem__(self, start: int) -> torch.Tensor:
        return torch.from_numpy(self.data[start : start + self.length].astype(self.dtype))


def dataloader(workers: int, inputs: Inputs, touched: bool = True) -> Call:
    sets = [offsets.tolist() for offsets in inputs.offsets]
    dataset = _Windows(inputs.path, inputs.length, inputs.numpy_dtype, touched)
    # Forking this process would mark its memory copy-on-write, and whoever is timed next would pay.
    context = multiprocessing.get_context("forkserver") if workers else None
    if context is not None:
        context.set_forkserver_preload(["torch"])
    loader = DataLoader(
        dataset,
        batch_sampler=_Forever(sets),
        num_workers=workers,
        multiprocessing_context=context,
    )
    following = rotate(inputs.offsets)
    made_ahead = workers * (loader.prefetch_factor or 0)
    return Batches(iter(loader), lambda windows: (following(), windows), 2 * made_ahead)


class _Forever:
    """A batch sampler that goes through the sets of offsets again and again."""

    def __init__(self, sets: list[list[int]]):
        self.sets = sets

    def __iter__(self) -> Iterator[list[int]]:
        return itertools.cycle(self.sets)


def _memcpy(inputs: Inputs) -> Call:
    """The bytes of one result from cold memory to cold memory, by one thread."""
    sources, targets = (rotate([array.numpy() for array in side]) for side in _buffers(inputs))
    return lambda: np.copyto(targets(), sources())


def _parallel_copy(inputs: Inputs) -> Call:
    """The same on as many threads as the contestants may use."""
    sources, targets = (rotate(side) for side in _buffers(inputs))
    return lambda: targets().copy_(sources())


def _buffers(inputs: Inputs) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Sources and targets (n, B, T) in the case's dtype, all touched."""
    count = results_past_cache(inputs.batch * inputs.length * inputs.dtype.itemsize)
    shape = (count, inputs.batch, inputs.length)
    sources = torch.randint(0, 1 << 15, shape, dtype=torch.int16).to(inputs.dtype)
    return list(sources), list(torch.full(shape, 1, dtype=inputs.dtype))
