"""Batches of windows of a stream, in an order that needs no memory and resumes anywhere."""

import copy
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from pyseq.data.order import WindowOrder
from pyseq.data.prefetch import PrefetchedBatches, can_pin, default_ahead
from pyseq.data.transfer import Transfer, usable_device
from pyseq.data.u16_stream import U16Stream
from pyseq.ops import backends, gather_windows
from pyseq.ops.gather_windows.api import DTYPES

STATE_VERSION = 1
_MUST_MATCH = ("length", "stride", "start", "stop", "shuffle")


class WindowLoader:
    """Iterates over batches {"window": (batch, length), "offset": (batch,) int64}.

    Windows start at multiples of `stride` inside [start, stop). The order of an epoch is a pure
    function of (seed, epoch, index): every window comes once, any number of ranks sees the same
    global order, and an epoch can be resumed in the middle. Batch b is windows b*batch_size onwards
    of that order; rank r takes its r-th contiguous slice; the last, smaller batch is dropped.

    Each `iter()` starts the next epoch; the first one after `load_state_dict` or `set_epoch` goes
    on from there instead.

    "offset" is always on the CPU. "window" is where the stream is kept, if its `io` is "gpu".
    Otherwise it is on `device`, where symbols arrive as 2 bytes and are widened, one batch ahead
    of what the GPU computes; or without a `device` on the CPU, pinned when CUDA is there. Nothing
    waits for a GPU: it orders the work by itself for the stream that is current at `next()`.

    The next batches are gathered ahead by threads of the iterator, native code that never holds the
    GIL. They end with it, with the epoch, or when the stream is closed. Windows that are not in the
    system's cache are asked for some 512 windows before they are read. A loader may be pickled, and
    used before and after a fork. `copy.copy` gives one that goes its own way.

    Lightning saves and restores its place by `state_dict` and `load_state_dict`. Batches that were
    gathered and not handed out are not counted, so none is lost.

    Args:
        stream (U16Stream): where the symbols come from.
        length (int): symbols per window.
        batch_size (int): windows per batch over **all** ranks.
        seed (int): chooses the family of orders.
        rank (int): which slice of every batch is ours, 0..world_size-1.
        world_size (int): number of ranks; must divide batch_size.
        shuffle (bool): False takes the windows in the order of the stream.
        stride (int): distance in symbols between neighbouring windows; 1 allows any offset.
        dtype (torch.dtype): uint16, int32, int64 or float32.
        start (int): first symbol that may be used.
        stop (int): one past the last symbol that may be used; None is the end of the stream.
        threads (int): that gather batches, at least 1; None is `torch.get_num_threads()`, at most
            8.
        prefetch (int): batches gathered ahead; None is what fits into 8 MiB, 2 to 16; with 0 they
            are gathered when they are asked for, without further threads.
        device (torch.device | str | None): where windows are wanted; None leaves them where they
            are gathered, which is all that fits a stream that a GPU keeps, but that GPU itself.

    Raises:
        TypeError: `dtype` is another one.
        ValueError: the range holds less than one batch of windows, or an argument does not fit.
        UserError: torch can use no such device.
    """

    def __init__(
        self,
        stream: U16Stream,
        length: int,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        stride: int = 1,
        dtype: torch.dtype = torch.int64,
        start: int = 0,
        stop: int | None = None,
        threads: int | None = None,
        prefetch: int | None = None,
        device: torch.device | str | None = None,
    ):
        stop = len(stream) if stop is None else stop
        _check(len(stream), length, batch_size, rank, world_size, stride, start, stop, threads)
        if dtype not in DTYPES:
            raise TypeError(f"WindowLoader: dtype is {dtype}; uint16, int32, int64 or float32 fits")
        if prefetch is not None and prefetch < 0:
            raise ValueError(f"WindowLoader: prefetch is {prefetch}; 0 or more fits")
        self.stream, self.length, self.batch_size = stream, length, batch_size
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.shuffle, self.stride, self.dtype = shuffle, stride, dtype
        self.start, self.stop, self.threads, self.prefetch = start, stop, threads, prefetch
        self._copied_to = _copied_to(stream, device)
        self.windows = (stop - start - length) // stride + 1
        if self.windows < batch_size:
            raise ValueError(
                f"WindowLoader: symbols {start} to {stop} hold {self.windows} windows of {length}"
                f" at stride {stride}, less than one batch of {batch_size}"
            )
        self._goes_on = True  # whether the next iter() continues the epoch we are in
        self._turn, self._turns = 0, 1
        self._begin(epoch=0)

    def __len__(self) -> int:
        """Batches per epoch."""
        return self.windows // self.batch_size

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to, if the pass goes on."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Let the next `iter()` start at the beginning of `epoch`."""
        self._begin(epoch)
        self._goes_on = True

    @property
    def following_epoch(self) -> int:
        """The epoch that the next `iter()` goes on with, or begins."""
        return self._epoch if self._goes_on else self._epoch + 1

    @property
    def share(self) -> int:
        """Windows of a batch that are this rank's."""
        return self.batch_size // self.world_size

    @property
    def step(self) -> int:
        """Windows of the epoch from one batch of ours to the next."""
        return self.batch_size * self._turns

    def _of_epoch(self, epoch: int, turn: int, turns: int) -> "WindowLoader":
        """Every `turns`-th batch of an epoch, from number `turn` on; its state means nothing."""
        loader = copy.copy(self)
        loader._turn, loader._turns = turn, turns
        loader.set_epoch(epoch)
        return loader

    def _begin(self, epoch: int, position: int | None = None) -> None:
        self._epoch = epoch
        self._position = self._turn * self.batch_size if position is None else position
        self._order = WindowOrder(self.windows, self.seed, epoch, shuffle=self.shuffle)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield the batches of one epoch, or what is left of it."""
        if not self._goes_on:
            self._begin(self.following_epoch)
        batches = _batches(self)
        try:
            while self._position + self.batch_size <= self.windows:
                offset, window = batches.at(self._order, self._position)
                self._goes_on = False
                self._position += self.step
                yield {"window": window, "offset": offset}
        finally:
            batches.stop()
        self._goes_on = False

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is, in numbers that do not depend on ranks or batch size."""
        epoch, position = self._epoch, self._position
        if position + self.batch_size > self.windows:
            epoch, position = epoch + 1, 0
        return {
            "version": STATE_VERSION,
            "fingerprint": self.stream.fingerprint,
            "seed": self.seed,
            "epoch": epoch,
            "position": position,
            **{name: getattr(self, name) for name in _MUST_MATCH},
        }

    def load_state_dict(self, state: dict[str, Any], *, ignore_fingerprint: bool = False) -> None:
        """Go on exactly where `state` was taken, also with another batch or world size.

        Args:
            state (dict): what `state_dict` returned; its seed replaces ours.
            ignore_fingerprint (bool): accept a state that was taken on other data.

        Raises:
            ValueError: another version, other data, or other windows than the state's.
        """
        if state.get("version") != STATE_VERSION:
            raise ValueError(
                f"WindowLoader: a state of version {state.get('version')}; {STATE_VERSION} fits"
            )
        if state["fingerprint"] != self.stream.fingerprint and not ignore_fingerprint:
            raise ValueError(
                f"WindowLoader: the state was taken on other data (fingerprint"
                f" {state['fingerprint']}, this stream {self.stream.fingerprint});"
                " ignore_fingerprint=True accepts it"
            )
        if state["epoch"] < 0 or state["position"] < 0:
            raise ValueError(
                f"WindowLoader: a state at position {state['position']} of epoch {state['epoch']};"
                " neither can be negative"
            )
        for name in _MUST_MATCH:
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"WindowLoader: the state has {name} {state[name]}, this loader"
                    f" {getattr(self, name)}; the same windows fit"
                )
        self.seed = state["seed"]
        self._begin(state["epoch"], state["position"])
        self._goes_on = True


class _Batches(Protocol):
    """One way to make batches."""

    def at(self, order: WindowOrder, position: int) -> tuple[Tensor, Tensor]:
        """Offsets and windows of the batch at a position of an order."""

    def stop(self) -> None:
        """Do nothing in the background any more."""


def _batches(loader: WindowLoader) -> _Batches:
    if loader._copied_to is None:
        return _made_in_memory(loader, loader.dtype)
    return _Sent(loader, loader._copied_to)


def _made_in_memory(loader: WindowLoader, dtype: torch.dtype) -> _Batches:
    """On the CPU, or on the GPU that keeps the stream."""
    ahead = loader.prefetch
    if ahead is None:
        ahead = default_ahead(loader.share, loader.length, dtype)
    if ahead == 0 or loader.stream.device is not None:
        return _Gathered(loader, dtype)
    refusals = {"native": backends.refuse_native}
    if backends.choose("gather_windows", "auto", refusals) != "native":
        return _Gathered(loader, dtype)
    return PrefetchedBatches(loader, dtype, ahead)


class _Gathered:
    """Batches that are gathered when they are asked for."""

    def __init__(self, loader: WindowLoader, dtype: torch.dtype):
        self.loader, self.dtype = loader, dtype
        self.pinned = loader.stream.device is None and can_pin()

    def at(self, order: WindowOrder, position: int) -> tuple[Tensor, Tensor]:
        loader = self.loader
        windows = torch.from_numpy(order(position + loader.rank * loader.share, loader.share))
        offset, out = windows * loader.stride + loader.start, None
        if self.pinned:
            out = torch.empty(loader.share, loader.length, dtype=self.dtype, pin_memory=True)
        window = gather_windows(
            loader.stream, offset, loader.length, dtype=self.dtype, out=out, threads=loader.threads
        )
        return offset, window

    def stop(self) -> None:
        pass


class _Sent:
    """Batches on their way to a device; the next one is sent before the last is handed out."""

    def __init__(self, loader: WindowLoader, device: torch.device):
        self.loader = loader
        self.made = _made_in_memory(loader, torch.uint16)
        self.transfer = Transfer(device, loader.dtype)
        self.on_its_way: tuple[WindowOrder, int] | None = None

    def at(self, order: WindowOrder, position: int) -> tuple[Tensor, Tensor]:
        if self.on_its_way != (order, position):  # the first one, or the loader was set elsewhere
            self.send(order, position)
        offset, window, self.on_its_way = self.next_offset, self.transfer.receive(), None
        following = position + self.loader.step
        if following + self.loader.batch_size <= self.loader.windows:
            self.send(order, following)
        return offset, window

    def send(self, order: WindowOrder, position: int) -> None:
        self.next_offset, symbols = self.made.at(order, position)
        self.transfer.send(symbols)
        self.on_its_way = (order, position)

    def stop(self) -> None:
        self.made.stop()


def _copied_to(stream: U16Stream, wanted: torch.device | str | None) -> torch.device | None:
    """Where windows are copied after they were gathered, if anywhere."""
    if wanted is None:
        return None
    device = usable_device("WindowLoader(device=...)", wanted, "'cpu' or None fits")
    if stream.device is None:
        return device
    if stream.device != device:
        raise ValueError(
            f"WindowLoader: device is {device}; the stream is kept on {stream.device}, which fits"
        )
    return None


def _check(symbols, length, batch_size, rank, world_size, stride, start, stop, threads) -> None:
    if length < 1 or batch_size < 1 or stride < 1 or world_size < 1:
        raise ValueError(
            "WindowLoader: length, batch_size, stride and world_size must be at least 1; got"
            f" {length}, {batch_size}, {stride}, {world_size}"
        )
    if threads is not None and threads < 1:
        raise ValueError(f"WindowLoader: threads is {threads}; at least 1 fits")
    if batch_size % world_size != 0:
        raise ValueError(
            f"WindowLoader: batch_size {batch_size} is global and must be a multiple of"
            f" world_size {world_size}"
        )
    if not 0 <= rank < world_size:
        raise ValueError(f"WindowLoader: rank {rank}; 0 to {world_size - 1} fits")
    if not 0 <= start <= stop <= symbols:
        raise ValueError(
            f"WindowLoader: range [{start}, {stop}) leaves the stream of {symbols} symbols"
        )
    if stop - start < length:
        raise ValueError(
            f"WindowLoader: {stop - start} symbols are shorter than one window of {length}"
        )
