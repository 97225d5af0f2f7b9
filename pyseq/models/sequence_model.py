"""What training and serving ask of every model of this package."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class SequenceModel(nn.Module, ABC):
    """A causal model of classes: every symbol gets a distribution given the symbols before it."""

    @abstractmethod
    def forward(self, symbols: Tensor) -> Tensor:
        """Logits (B, T, classes) of the symbol after each of symbols (B, T) int64."""

    @abstractmethod
    def loss(self, window: Tensor) -> Tensor:
        """Mean negative log-likelihood in nats, (), of window (B, T + 1) int64 given its past."""

    def objective(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """What training minimises, and beside it the loss, both (), nats, of window (B, T + 1)."""
        loss = self.loss(window)
        return loss, loss.detach()

    @abstractmethod
    def flops_per_symbol(self, seq_len: int) -> int:
        """Floating-point operations of one training step per symbol of a window of seq_len."""
