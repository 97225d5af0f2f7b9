"""A WindowLoader for training loops that want a dataset of PyTorch's."""

import multiprocessing
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from pyseq.data.window_loader import WindowLoader

PASSES_REMEMBERED = 8


class WindowDataset(IterableDataset):
    """The batches of a loader as an `IterableDataset`, in the same order for any workers.

    Its items are whole batches: ``DataLoader(dataset, batch_size=None, num_workers=...)``. Workers
    take turns, each gathers every num_workers-th batch, and DataLoader puts them back into the
    loader's order. Workers are not needed for speed, as the loader has threads of its own.

    Each `iter()` of a DataLoader is the next epoch, from its beginning, also where its workers are
    new ones each time. To go on in the middle of an epoch use the loader itself.

    Args:
        loader (WindowLoader): whose batches they are, from the epoch that it would go on with. It
            is copied, so it stays where it is.

    Example:
        >>> import tempfile, numpy as np
        >>> from torch.utils.data import DataLoader
        >>> from pyseq.data import U16Stream, WindowDataset, WindowLoader
        >>> folder = tempfile.TemporaryDirectory()
        >>> np.arange(1000, dtype="<u2").tofile(folder.name + "/s.u16")
        >>> stream = U16Stream(folder.name + "/s.u16")
        >>> dataset = WindowDataset(WindowLoader(stream, 10, 4, stride=10))
        >>> batches = list(DataLoader(dataset, batch_size=None))
        >>> len(batches), tuple(batches[0]["window"].shape)
        (25, (4, 10))
    """

    def __init__(self, loader: WindowLoader):
        self._loader = loader._of_epoch(loader.following_epoch, 0, 1)
        self._begun = 0  # passes, by this process
        # What all workers see. A pass is a DataLoader's seed and a number within its workers' life:
        # the first worker of a new pass takes the next epoch for all of them.
        self._lock = multiprocessing.get_context("spawn").Lock()  # one that forks can have too
        self._next = torch.tensor([self._loader.epoch]).share_memory_()
        self._passes = torch.full((PASSES_REMEMBERED, 3), -1).share_memory_()  # seed, number, epoch

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._loader)

    def set_epoch(self, epoch: int) -> None:
        """Let the next `iter()` be that of `epoch`."""
        with self._lock:
            self._next[0] = epoch

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """The batches of the next epoch, of which a worker of a DataLoader yields its own."""
        info = get_worker_info()
        self._begun += 1
        with self._lock:
            if info is None:
                epoch = self._take_epoch()
            else:
                epoch = self._epoch_of_pass(info.seed - info.id, self._begun)
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(self._loader._of_epoch(epoch, worker, workers))

    def _epoch_of_pass(self, seed: int, number: int) -> int:
        for known_seed, known_number, epoch in self._passes.tolist():
            if (known_seed, known_number) == (seed, number):
                return epoch
        epoch = self._take_epoch()
        self._passes[:-1] = self._passes[1:].clone()
        self._passes[-1] = torch.tensor([seed, number, epoch])
        return epoch

    def _take_epoch(self) -> int:
        epoch = int(self._next)
        self._next += 1
        return epoch
