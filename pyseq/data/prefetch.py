"""Batches of windows that native threads gather ahead of whoever asks for them."""

import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from pyseq.data.order import WindowOrder
from pyseq.errors import UserError
from pyseq.ops import backends

if TYPE_CHECKING:
    from pyseq.data.window_loader import WindowLoader

AHEAD_BYTES = 8 << 20  # of batches, by default
FEWEST, MOST = 2, 16  # batches, by default
# What the system is asked to load before it is gathered, if that is not in its cache.
ASKED_WINDOWS = 512
ASKED_BYTES = 64 << 20
MOST_THREADS = 8  # by default; what more would gain was not measured
VERIFIED_EVERY = 0.1  # seconds between looks at whether files were replaced


def can_pin() -> bool:
    """Whether batches are made in pinned memory.

    Not in a DataLoader's worker, which sends none, nor in a process that was forked from one that
    uses CUDA, which must not use it.
    """
    usable = torch.cuda.is_available() and not torch.cuda._is_in_bad_fork()
    return usable and get_worker_info() is None


def default_ahead(share: int, length: int, dtype: torch.dtype) -> int:
    """How many batches of a rank, `share` windows of `length`, are gathered ahead."""
    fit = AHEAD_BYTES // (share * length * dtype.itemsize)
    return max(FEWEST, min(MOST, fit))


class PrefetchedBatches:
    """Batches of a loader, of which the next ones are gathered while one is used.

    Args:
        loader (WindowLoader): whose windows they are; its stream is not kept on a GPU.
        dtype (torch.dtype): of the windows.
        ahead (int): at most so many batches are gathered, or being gathered, besides the one handed
            out; and at least half of them, rounded up.
    """

    def __init__(self, loader: "WindowLoader", dtype: torch.dtype, ahead: int):
        self.loader, self.dtype, self.ahead = loader, dtype, ahead
        self._threads: Any = None  # a _core.Prefetcher, or None before the first batch
        self._process = os.getpid()
        self._submitted: deque[tuple[Tensor, Tensor]] = deque()  # offsets and windows
        self._next: tuple[WindowOrder, int] | None = None
        self._left = 0  # batches of the epoch that were not submitted
        self._verified = 0.0
        self._lock = threading.RLock()  # the stream may be closed by another thread
        loader.stream.read_by(self)

    def at(self, order: WindowOrder, position: int) -> tuple[Tensor, Tensor]:
        """Offsets (share,) and windows (share, length) of the batch at `position` of an order.

        Raises:
            ValueError: the stream is closed, or shorter than when the loader was made.
            UserError: a file was truncated or replaced.
            RuntimeError: a file could not be read.
        """
        if os.getpid() != self._process:  # forked: there are no threads, and nobody lets go
            self._lock, self._threads, self._next = threading.RLock(), None, None
            self._process = os.getpid()
        with self._lock:
            if self._next != (order, position):
                self._begin(order, position)
            self._submit()
            try:
                self._threads.take()
                self._verify()
            except (RuntimeError, UserError):
                self.stop()
                self.loader.stream.verify()  # knows which file changed, and says so
                raise
            self._next = (order, position + self.loader.step)
            return self._submitted.popleft()

    def stop(self) -> None:
        """End the threads, and forget what was gathered ahead."""
        if os.getpid() != self._process:
            return
        with self._lock:
            if self._threads is not None:
                self._threads.stop()
            self._threads, self._next = None, None
            self._submitted.clear()

    def _begin(self, order: WindowOrder, position: int) -> None:
        self.stop()
        loader, core = self.loader, backends.core()
        if loader.stop > len(loader.stream):  # of a loader that was pickled
            raise ValueError(
                f"WindowLoader: symbols {loader.start} to {loader.stop} leave the stream of"
                f" {len(loader.stream)}, which was longer"
            )
        self._left = (loader.windows - position - loader.batch_size) // loader.step + 1
        batches = core.Batches(
            place=position + loader.rank * loader.share,
            step=loader.step,
            share=loader.share,
            count=self._left,
            length=loader.length,
            stride=loader.stride,
            start=loader.start,
            type=getattr(core.SymbolType, str(self.dtype).removeprefix("torch.")),
        )
        threads = loader.threads or min(torch.get_num_threads(), MOST_THREADS)
        asked = max(1, min(ASKED_WINDOWS, ASKED_BYTES // (2 * loader.length)))
        self._threads = core.Prefetcher(
            loader.stream.symbol_source(),
            order.native,
            batches,
            threads=threads,
            asked_ahead=self.ahead + -(-asked // loader.share),
            most_kept=self.ahead + 2,
        )

    def _submit(self) -> None:
        """Keep the threads busy: once half of the batches are used, as many again at once."""
        if len(self._submitted) > (self.ahead + 1) // 2:
            return
        pinned, share, length = can_pin(), self.loader.share, self.loader.length
        while self._left and len(self._submitted) <= self.ahead:
            offset = torch.empty(share, dtype=torch.int64)
            if pinned:  # PyTorch keeps such memory itself
                window = torch.empty(share, length, dtype=self.dtype, pin_memory=True)
            else:
                window = torch.from_numpy(self._threads.windows())
            self._threads.submit(offset.numpy(), window.numpy())
            self._submitted.append((offset, window))
            self._left -= 1

    def _verify(self) -> None:
        """What was truncated is noticed when it is read, what was replaced here."""
        now = time.monotonic()
        if now - self._verified > VERIFIED_EVERY:
            self.loader.stream.verify()
            self._verified = now
