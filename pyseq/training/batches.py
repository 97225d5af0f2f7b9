"""The batches of a whole training as one sequence, so that epochs do not interrupt anything."""

import time
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from pyseq.data import WindowLoader


class TrainingBatches:
    """Batches of a loader, epoch after epoch, `batches` in all.

    It has a length and a state, which is what Lightning needs to resume without losing a batch.

    Args:
        loader (WindowLoader): its epochs follow one another.
        batches (int): how many batches the training has.
        ignore_fingerprint (bool): accept the state of a training on other data.

    Attributes:
        wait_seconds (float): time spent so far waiting for batches.
    """

    def __init__(self, loader: WindowLoader, batches: int, ignore_fingerprint: bool = False):
        self.loader, self.batches = loader, batches
        self.ignore_fingerprint = ignore_fingerprint
        self.served = 0
        self.wait_seconds = 0.0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while self.served < self.batches:
            epoch = iter(self.loader)
            while self.served < self.batches:
                asked = time.perf_counter()
                batch = next(epoch, None)
                self.wait_seconds += time.perf_counter() - asked
                if batch is None:
                    break
                self.served += 1
                yield batch

    def state_dict(self) -> dict[str, Any]:
        """How far the training is in its data."""
        return {"served": self.served, "loader": self.loader.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.served = state["served"]
        self.loader.load_state_dict(state["loader"], ignore_fingerprint=self.ignore_fingerprint)
