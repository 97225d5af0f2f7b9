"""What training and serving ask of every model of this package."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class SequenceModel(nn.Module, ABC):
    """A causal model of classes: every symbol gets a distribution given the symbols before it."""

    @abstractmethod
    def forward(self, symbols: Tensor, *, cache: Any = None) -> Tensor:
        """Say what may follow each symbol of a sequence, or of the next piece of one.

        Args:
            symbols (Tensor (B, T), int64): classes; with a cache, what follows those it has seen.
            cache (what `new_cache` gave, or None): what came before, which symbols are added to.
                Pieces of any lengths give, within rounding, what the whole sequence gives. For
                inference: nothing flows back into what is held.

        Returns:
            Tensor (B, T, classes): logits of the class after each symbol, unnormalised, in nats.
        """

    @abstractmethod
    def new_cache(self) -> Any:
        """An empty cache for `forward`; one serves one batch of sequences in evaluation mode."""

    @abstractmethod
    def loss(self, window: Tensor) -> Tensor:
        """Mean negative log-likelihood in nats, (), of window (B, T + 1) int64 given its past."""

    @abstractmethod
    def objective(self, window: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What training minimises, and beside it the loss.

        Args:
            window (Tensor (B, T + 1), int64): classes; all but the first are to be predicted.
            seen (Tensor (B, T), int64 | None): what the model reads in place of window[:, :-1], an
                augmented copy of it; the class after the last stands for a masked symbol in models
                that were made with `mask_symbol`.

        Returns:
            tuple of two Tensor (), in nats: the objective, and the loss, through which nothing
                flows back.
        """

    @abstractmethod
    def flops_per_symbol(self, seq_len: int) -> int:
        """Floating-point operations of one training step per symbol of a window of seq_len."""
