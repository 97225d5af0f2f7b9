"""gather_windows and WindowLoader against the ways people read windows of a u16 file today.

Every contestant returns (offsets, windows), B windows of T symbols from random places of one file
in the page cache, so that any of them can be checked against a plain read. A call counts as B * T
tokens for all; nanoGPT's get_batch makes two windows per sample, so it also runs as one half.
Offsets and outputs rotate past the caches.

On a GPU the stream is a tensor in its memory, and the calls of one rotation are replayed from a
CUDA graph. Floor at B=4096 T=1024, int64: 8.4 MB are read and 33.6 MB written, at 4.3 TB/s 9.8 us;
at B=256 0.6 us, less than a launch.
"""

import itertools
import mmap
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks import attention, ceilings, graphs
from benchmarks.harness import (
    Call,
    Case,
    Ceiling,
    Contestant,
    WrongAnswer,
    results_past_cache,
    rotate,
)
from pyseq.data import U16Stream, WindowLoader
from pyseq.ops import gather_windows

SHAPES = ((256, 1024), (512, 128), (64, 256))
DTYPES = (torch.int64, torch.uint16)
IO_MODES = ("mmap", "pread", "ram")
SYMBOLS = 1 << 27  # 256 MiB
MOST_SETS = 32  # of offsets, in a GPU's graph
SETTLE_SECONDS = 0.05  # for the few batches that loaders make ahead
GPU_SHAPES = ((256, 1024), (4096, 1024))
QUICK_SHAPES = ((16, 128),)
QUICK_SYMBOLS = 1 << 20


@dataclass(frozen=True)
class Inputs:
    """One file, opened in every way, and the sets of offsets that calls go through."""

    path: Path
    data: np.memmap
    streams: dict[str, U16Stream]
    batch: int
    length: int
    dtype: torch.dtype
    offsets: Sequence[torch.Tensor]  # each (B,) int64

    @property
    def numpy_dtype(self) -> np.dtype:
        return torch.empty(0, dtype=self.dtype).numpy().dtype


def cases(quick: bool = False, device: str = "cpu", symbols: int | None = None) -> list[Case]:
    """Every shape and output dtype: of a file on the CPU, of a tensor on a GPU.

    Triton's interpreter, where it is asked for, stands for a GPU at small sizes.
    """
    symbols = symbols or (QUICK_SYMBOLS if quick else SYMBOLS)
    shapes = QUICK_SHAPES if quick else SHAPES if device == "cpu" else GPU_SHAPES
    make = _case if device == "cpu" else partial(_tensor_case, device, quick)
    found = [make(*shape, dtype, symbols) for shape in shapes for dtype in DTYPES]
    if device == "cpu" and "triton" in attention.backends_on("gather_windows", device, quick):
        found.append(_tensor_case(device, quick, 3, 70, torch.int64, symbols))
    return found


def _case(batch: int, length: int, dtype: torch.dtype, symbols: int) -> Case:
    tokens = batch * length
    result_bytes = tokens * dtype.itemsize
    contestants = [
        *(Contestant(f"native {io}", partial(_gather, io, "native")) for io in IO_MODES),
        *(Contestant(f"loader {io}", partial(_loader, io)) for io in IO_MODES),
        Contestant("reference ram", partial(_gather, "ram", "reference")),
        Contestant("numpy", _numpy, peer=True),
        Contestant("DataLoader", partial(_dataloader, 0), peer=True),
        # Not held: each result is a fresh shared mapping with a file descriptor.
        Contestant("DataLoader 2 workers", partial(_dataloader, 2), peer=True, hold=False),
    ]
    if dtype == torch.int64:  # get_batch knows no other
        contestants += [
            Contestant("get_batch", partial(_get_batch, (0, 1)), peer=True),
            Contestant("get_batch without targets", partial(_get_batch, (0,)), peer=True),
        ]
    return Case(
        op="gather_windows",
        direction="forward",
        shape=f"B={batch} T={length}",
        dtype=str(dtype).removeprefix("torch."),
        inputs=partial(_inputs, batch, length, dtype, symbols),
        contestants=contestants,
        check=check,
        unit="tokens/s",
        work=tokens,
        ceilings=[
            Ceiling("memcpy", "GB/s", result_bytes / 1e9, _memcpy),
            Ceiling("parallel copy", "GB/s", result_bytes / 1e9, _parallel_copy),
        ],
        ceiling_work=result_bytes / 1e9,
        result_bytes=result_bytes,
        checked_calls=3,
    )


def check(inputs: Inputs, result: tuple) -> None:
    """Refuse unless every tensor behind the offsets, the k-th shifted by k, is as in the file."""
    offsets, *shifted = result
    starts = [int(offset) for offset in offsets]
    if len(set(starts)) < inputs.batch // 2:
        raise WrongAnswer(f"{len(set(starts))} different offsets among {inputs.batch}")
    for shift, windows in enumerate(shifted):
        if tuple(windows.shape) != (inputs.batch, inputs.length):
            raise WrongAnswer(f"shape {tuple(windows.shape)}")
        if windows.dtype not in (inputs.dtype, inputs.numpy_dtype):
            raise WrongAnswer(f"dtype {windows.dtype}")
        places = ((start + shift, start + shift + inputs.length) for start in starts)
        if not np.array_equal(windows, np.stack([inputs.data[a:b] for a, b in places])):
            raise WrongAnswer(f"symbols {shift} after the offsets differ from those in the file")


@contextmanager
def _inputs(batch: int, length: int, dtype: torch.dtype, symbols: int) -> Iterator[Inputs]:
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="pyseq-benchmark-") as folder:
        path = Path(folder) / "stream.u16"
        generator.integers(0, 1 << 16, symbols, np.uint16).tofile(path)
        sets = results_past_cache(2 * batch * length)
        offsets = list(torch.from_numpy(generator.integers(0, symbols - length, (sets, batch))))
        streams = {io: U16Stream(path, io=io) for io in IO_MODES}
        data = np.memmap(path, np.uint16, mode="r")
        yield Inputs(path, data, streams, batch, length, dtype, offsets)
        for stream in streams.values():
            stream.close()


def _gather(io: str, backend: str, inputs: Inputs) -> Call:
    stream, following = inputs.streams[io], rotate(inputs.offsets)

    def call():
        offsets = following()
        windows = gather_windows(
            stream, offsets, inputs.length, dtype=inputs.dtype, backend=backend
        )
        return offsets, windows

    return call


class _Batches:
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


def _loader(io: str, inputs: Inputs) -> Call:
    loader = WindowLoader(
        inputs.streams[io], inputs.length, inputs.batch, dtype=inputs.dtype, seed=1
    )
    return _Batches(iter(loader), lambda batch: (batch["offset"], batch["window"]), ahead=4)


def _numpy(inputs: Inputs) -> Call:
    following = rotate([offsets.numpy() for offsets in inputs.offsets])
    data, length, dtype = inputs.data, inputs.length, inputs.numpy_dtype

    def call():
        offsets = following()
        windows = np.lib.stride_tricks.sliding_window_view(data, length)[offsets]
        return offsets, windows.astype(dtype, copy=False)

    return call


def _get_batch(shifts: tuple[int, ...], inputs: Inputs) -> Call:
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
    every page touched once, as after some time of training.
    """

    def __init__(self, path: Path, length: int, dtype: np.dtype):
        self.path, self.length, self.dtype = path, length, dtype

    @cached_property
    def data(self) -> np.memmap:
        data = np.memmap(self.path, np.uint16, mode="r")
        data[:: mmap.PAGESIZE // data.itemsize].max()
        return data

    def __getitem__(self, start: int) -> torch.Tensor:
        return torch.from_numpy(self.data[start : start + self.length].astype(self.dtype))


def _dataloader(workers: int, inputs: Inputs) -> Call:
    sets = [offsets.tolist() for offsets in inputs.offsets]
    dataset = _Windows(inputs.path, inputs.length, inputs.numpy_dtype)
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
    return _Batches(iter(loader), lambda windows: (following(), windows), 2 * made_ahead)


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


@dataclass(frozen=True)
class TensorInputs:
    """A stream in a device's memory, and the offsets that calls go through."""

    stream: torch.Tensor  # (S,) uint16
    length: int
    dtype: torch.dtype
    offsets: list[torch.Tensor]  # each (B,) int64


def _tensor_case(
    device: str, quick: bool, batch: int, length: int, dtype: torch.dtype, symbols: int
) -> Case:
    tokens = batch * length
    moved = tokens * (torch.uint16.itemsize + dtype.itemsize) / 1e9
    ours = attention.backends_on("gather_windows", device, quick)
    peers = {"unfold": _unfold, "index": _index}
    return Case(
        op="gather_windows",
        direction="forward",
        shape=f"B={batch} T={length} of a tensor",
        dtype=str(dtype).removeprefix("torch."),
        inputs=partial(_tensor_inputs, device, batch, length, dtype, symbols),
        contestants=[
            *(Contestant(name, partial(_gather_tensor, name, device)) for name in ours),
            *(
                Contestant(name, partial(_peer_tensor, read, device), peer=True, optional=True)
                for name, read in peers.items()
            ),
        ],
        check=_check_tensor,
        unit="tokens/s",
        work=tokens,
        ceilings=ceilings.memory(device, quick),
        ceiling_work=moved,
        checked_calls=3,
        device=device,
    )


@contextmanager
def _tensor_inputs(
    device: str, batch: int, length: int, dtype: torch.dtype, symbols: int
) -> Iterator[TensorInputs]:
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, 1 << 16, symbols, np.uint16)
    sets = min(MOST_SETS, results_past_cache(batch * length * dtype.itemsize, device))
    offsets = generator.integers(0, symbols - length, (sets, batch))
    offsets[:, 0], offsets[:, -1] = 0, symbols - length  # the ends of the stream too
    yield TensorInputs(
        torch.from_numpy(drawn).to(device),
        length,
        dtype,
        list(torch.from_numpy(offsets).to(device)),
    )


def _check_tensor(inputs: TensorInputs, result: tuple[int, dict[str, torch.Tensor]]) -> None:
    """Refuse unless every symbol is that of the stream, in the dtype that was asked for."""
    number, windows = result[0], result[1]["windows"]
    if windows.dtype != inputs.dtype:
        raise WrongAnswer(f"dtype {windows.dtype}")
    stream, found = inputs.stream.cpu().numpy(), windows.cpu().numpy()
    views = np.lib.stride_tricks.sliding_window_view(stream, inputs.length)
    if not np.array_equal(found, views[inputs.offsets[number].cpu().numpy()]):
        raise WrongAnswer("symbols differ from those of the stream")


def _gather_tensor(backend: str, device: str, inputs: TensorInputs) -> Call:
    def gather(offsets: torch.Tensor) -> dict[str, torch.Tensor]:
        windows = gather_windows(
            inputs.stream, offsets, inputs.length, dtype=inputs.dtype, backend=backend
        )
        return {"windows": windows}

    return graphs.each_set(gather, [(x,) for x in inputs.offsets], device)


def _peer_tensor(read: Callable[..., torch.Tensor], device: str, inputs: TensorInputs) -> Call:
    # uint16 cannot be index-selected; int16 with its sign taken off again can.
    signed = inputs.stream.view(torch.int16)

    def gather(offsets: torch.Tensor) -> dict[str, torch.Tensor]:
        found = read(signed, offsets, inputs.length)
        unsigned = found.view(torch.uint16)
        return {"windows": unsigned if inputs.dtype == torch.uint16 else unsigned.to(inputs.dtype)}

    return graphs.each_set(gather, [(x,) for x in inputs.offsets], device)


def _unfold(stream: torch.Tensor, offsets: torch.Tensor, length: int) -> torch.Tensor:
    return stream.unfold(0, length, 1)[offsets]


def _index(stream: torch.Tensor, offsets: torch.Tensor, length: int) -> torch.Tensor:
    return stream[offsets[:, None] + torch.arange(length, device=offsets.device)]


def _buffers(inputs: Inputs) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Sources and targets (n, B, T) in the case's dtype, all touched."""
    count = results_past_cache(inputs.batch * inputs.length * inputs.dtype.itemsize)
    shape = (count, inputs.batch, inputs.length)
    sources = torch.randint(0, 1 << 15, shape, dtype=torch.int16).to(inputs.dtype)
    return list(sources), list(torch.full(shape, 1, dtype=inputs.dtype))
