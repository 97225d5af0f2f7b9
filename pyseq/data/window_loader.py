"""Batches of windows of a stream, in an order that needs no memory and resumes anywhere."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pyseq.data.order import WindowOrder
from pyseq.data.u16_stream import U16Stream
from pyseq.ops import gather_windows

STATE_VERSION = 1
_MUST_MATCH = ("length", "stride", "start", "stop", "shuffle")


class WindowLoader:
    """Iterates over batches {"window": (batch, length), "offset": (batch,) int64}.

    Windows start at multiples of `stride` inside [start, stop). The order of an epoch is a pure
    function of (seed, epoch, index): every window comes once, any number of ranks sees the same
    global order, and an epoch can be resumed in the middle. Batch b is windows b*batch_size onwards
    of that order; rank r takes its r-th contiguous slice; the last, smaller batch is dropped.

    Each `iter()` starts the next epoch; the first one after `load_state_dict` or `set_epoch` goes
    on from there instead. Batches are pinned in memory when CUDA is there.

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
        threads (int): that gather a batch, at least 1; None is `torch.get_num_threads()`.

    Raises:
        ValueError: the range holds less than one batch of windows, or an argument does not fit.
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
    ):
        stop = len(stream) if stop is None else stop
        _check(len(stream), length, batch_size, rank, world_size, stride, start, stop, threads)
        self.stream, self.length, self.batch_size = stream, length, batch_size
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.shuffle, self.stride, self.dtype = shuffle, stride, dtype
        self.start, self.stop, self.threads = start, stop, threads
        self.windows = (stop - start - length) // stride + 1
        if self.windows < batch_size:
            raise ValueError(
                f"WindowLoader: symbols {start} to {stop} hold {self.windows} windows of {length}"
                f" at stride {stride}, less than one batch of {batch_size}"
            )
        self._goes_on = True  # whether the next iter() continues the epoch we are in
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

    def _begin(self, epoch: int, position: int = 0) -> None:
        self._epoch, self._position = epoch, position
        self._order = WindowOrder(self.windows, self.seed, epoch, shuffle=self.shuffle)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield the batches of one epoch, or what is left of it."""
        if not self._goes_on:
            self._begin(self._epoch + 1)
        while self._position + self.batch_size <= self.windows:
            batch = self._batch(self._position)
            self._goes_on = False
            self._position += self.batch_size
            yield batch
        self._goes_on = False

    def _batch(self, position: int) -> dict[str, Tensor]:
        share = self.batch_size // self.world_size
        windows = torch.from_numpy(self._order(position + self.rank * share, share))
        offset = windows * self.stride + self.start
        window = torch.empty(
            share, self.length, dtype=self.dtype, pin_memory=torch.cuda.is_available()
        )
        gather_windows(
            self.stream, offset, self.length, dtype=self.dtype, out=window, threads=self.threads
        )
        return {"window": window, "offset": offset}

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
        for name in _MUST_MATCH:
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"WindowLoader: the state has {name} {state[name]}, this loader"
                    f" {getattr(self, name)}; the same windows fit"
                )
        self.seed = state["seed"]
        self._begin(state["epoch"], state["position"])
        self._goes_on = True


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
