"""A WindowLoader for training loops that want a dataset of PyTorch's."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from pyseq.data.window_loader import WindowLoader

MOST_WORKERS = 1024


class WindowDataset(IterableDataset):
    """The batches of a loader as an `IterableDataset`, in the same order for any workers.

    Its items are whole batches: ``DataLoader(dataset, batch_size=None, num_workers=...)``. Workers
    take turns, each gathers every num_workers-th batch, and DataLoader puts them back into the
    loader's order. Workers are not needed for speed, as the loader has threads of its own.

    Each `iter()` of a DataLoader is the next epoch, also where its workers are new ones each time.

    Args:
        loader (WindowLoader): whose batches they are. It is copied, so it stays where it is.

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
        self._loader = loader.part(0, 1)
        # One place for each worker, since a DataLoader makes and ends its workers as it likes.
        self._epochs = torch.full((MOST_WORKERS,), loader.epoch).share_memory_()
        self._resumed: dict[str, Any] | None = None
        self._current = self._loader

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._loader)

    def set_epoch(self, epoch: int) -> None:
        """Let the next `iter()` be that of `epoch`."""
        self._epochs.fill_(epoch)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield this worker's batches of the next epoch, or what is left of a resumed one."""
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        self._current = loader = self._loader.part(worker, workers)
        loader.set_epoch(int(self._epochs[worker]))
        if self._resumed is not None:
            loader.load_state_dict(self._resumed)
            self._resumed = None
        self._epochs[worker] = loader.epoch + 1
        yield from loader

    def state_dict(self) -> dict[str, Any]:
        """Where this worker is, for loaders that save and restore each worker, as torchdata's."""
        return self._current.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next `iter()` go on where `state` was taken, by the same one of as many workers.

        Args:
            state (dict): what `state_dict` returned.
        """
        self._resumed = state
