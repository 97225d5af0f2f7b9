"""WindowLoader against the ways people read windows of a u16 file today, warm and cold.

Warm: the file is in the page cache, and results rotate past the processor's caches. What a loader
made ahead while another contestant ran is used up before each of its samples, so that a sample
counts what is made in its time.

Cold: before each sample nothing of the file is in the page cache, and it is opened anew. A call is
the first `COLD_BATCHES` batches. A DataLoader with workers takes no part: their mappings would keep
the file in the cache. The rate of a plain read of as many bytes from the start to the end is the
ceiling; whoever reads 2 KiB here and there cannot reach it.

Floor of a warm batch at B=256 T=1024: 0.5 MB are read and, as int64, 2.1 MB written; at 20 GB/s
that is 131 us. Of a cold one: 256 windows lie in 384 pages on average, and most page caches read 32
pages around a fault that nobody announced, which is 21 times as much.
"""

import gc
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from benchmarks import windows
from benchmarks.harness import Call, Case, Ceiling, Contestant, WrongAnswer
from benchmarks.windows import IO_MODES, Batches, Inputs
from pyseq.data import WindowLoader
from pyseq.data.prefetch import default_ahead

OP = "window_loader"
SHAPES = ((256, 1024), (512, 128), (64, 256))
DTYPES = (torch.int64, torch.uint16)
SYMBOLS = 1 << 27  # 256 MiB
QUICK_SHAPES = ((16, 128),)
QUICK_SYMBOLS = 1 << 20
COLD_SHAPE = (256, 1024)
COLD_SYMBOLS = 1 << 29  # 1 GiB
COLD_BATCHES = 8
COLD_MODES = ("mmap", "pread")
PROBES = 64  # places that are looked for in the page cache
FORGETTING_SECONDS = 10.0


def cases(quick: bool = False, device: str = "cpu") -> list[Case]:
    """Every shape and output dtype, warm; one cold. None on a GPU: see gather_windows there."""
    if device != "cpu":
        return []
    shapes, symbols = (QUICK_SHAPES, QUICK_SYMBOLS) if quick else (SHAPES, SYMBOLS)
    found = [_warm(*shape, dtype, symbols) for shape in shapes for dtype in DTYPES]
    cold = (*QUICK_SHAPES[0], QUICK_SYMBOLS) if quick else (*COLD_SHAPE, COLD_SYMBOLS)
    return [*found, _cold(*cold, quick)]


def _warm(batch: int, length: int, dtype: torch.dtype, symbols: int) -> Case:
    tokens = batch * length
    result_bytes = tokens * dtype.itemsize
    return Case(
        op=OP,
        direction="warm",
        shape=f"B={batch} T={length}",
        dtype=str(dtype).removeprefix("torch."),
        inputs=partial(windows.file_inputs, batch, length, dtype, symbols),
        contestants=[
            *(Contestant(io, partial(_loader, io)) for io in IO_MODES),
            Contestant("ram, not ahead", partial(_loader, "ram", prefetch=0)),
            *windows.peers(dtype),
        ],
        check=windows.check,
        unit="tokens/s",
        work=tokens,
        ceilings=windows.ceilings(result_bytes),
        ceiling_work=result_bytes / 1e9,
        result_bytes=result_bytes,
        checked_calls=3,
    )


def _cold(batch: int, length: int, symbols: int, quick: bool) -> Case:
    dtype, tokens = torch.int64, COLD_BATCHES * batch * length
    contestants = [Contestant(io, partial(_loader, io)) for io in COLD_MODES]
    contestants += windows.peers(dtype, cold=True)
    return Case(
        op=OP,
        direction="cold",
        shape=f"B={batch} T={length} batches={COLD_BATCHES}",
        dtype="int64",
        inputs=partial(windows.file_inputs, batch, length, dtype, symbols, modes=()),
        contestants=[
            replace(x, make=partial(_Cold, x.make, quick), hold=False) for x in contestants
        ],
        check=windows.check,
        unit="tokens/s",
        work=tokens,
        ceilings=[Ceiling("read", "GB/s", 2 * tokens / 1e9, partial(_Read, 2 * tokens, quick))],
        ceiling_work=2 * tokens / 1e9,
    )


def _loader(io: str, inputs: Inputs, prefetch: int | None = None) -> Call:
    loader = WindowLoader(
        inputs.streams[io], inputs.length, inputs.batch, dtype=inputs.dtype, seed=1,
        prefetch=prefetch,
    )  # fmt: skip
    ahead = 0
    if prefetch is None:
        ahead = default_ahead(inputs.batch, inputs.length, inputs.dtype) + 1
    return Batches(iter(loader), lambda batch: (batch["offset"], batch["window"]), ahead)


class _Cold:
    """A contestant whose every sample begins with nothing of the file in the page cache."""

    def __init__(self, make, quick: bool, inputs: Inputs):
        self._make, self._quick, self._inputs = make, quick, inputs
        self._call: Call | None = None
        self._open = ExitStack()

    def resume(self):
        _leave_cache(self._inputs, self._quick)
        streams = self._open.enter_context(windows.opened(self._inputs.path, COLD_MODES))
        data = np.memmap(self._inputs.path, np.uint16, mode="r")
        self._call = self._make(replace(self._inputs, streams=streams, data=data))

    def __call__(self):
        assert self._call is not None
        first, *_ = [self._call() for _ in range(COLD_BATCHES)]
        return first

    def pause(self):
        getattr(self._call, "close", lambda: None)()
        self._call = None
        self._open.close()
        gc.collect()  # whoever keeps the file mapped keeps it in the cache


class _Read:
    """As many bytes, one after the other from the start of the file, that are not in the cache."""

    def __init__(self, count: int, quick: bool, inputs: Inputs):
        self._quick, self._inputs = quick, inputs
        self._into = np.ones(count, np.uint8)
        self._open = ExitStack()

    def resume(self):
        _leave_cache(self._inputs, self._quick)
        self._file = self._open.enter_context(self._inputs.path.open("rb", buffering=0))

    def __call__(self):
        return self._file.readinto(self._into)  # what comes after the last call's

    def pause(self):
        self._open.close()


def _leave_cache(inputs: Inputs, quick: bool) -> None:
    """Have the system forget the file, which nobody may have mapped; refuse if it does not."""
    with inputs.path.open("rb") as file:
        until = time.monotonic() + FORGETTING_SECONDS
        while True:  # what was read or mapped a moment ago can stay for some more
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            found = _cached_places(file.fileno())
            if quick or found == 0:  # a file system in memory, for example, cannot forget
                return
            if time.monotonic() > until:
                raise WrongAnswer(
                    f"{found} of {PROBES} places of {inputs.path} stayed in the cache"
                )
            time.sleep(0.1)


def _cached_places(handle: int) -> int:
    size, found = os.fstat(handle).st_size, 0
    for place in range(0, size, size // PROBES):
        try:
            found += os.preadv(handle, [bytearray(1)], place, os.RWF_NOWAIT)
        except BlockingIOError:
            continue
    return found
