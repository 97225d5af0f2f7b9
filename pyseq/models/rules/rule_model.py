"""What training, decoding and files ask of every model that learns a grammar."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyseq.models.rules.stacked import Stacked


@dataclass
class Description:
    """What a model is.

    Attributes:
        name (str): of what it computes, as tables name it.
        parameters (int): numbers that are trained, of one seed.
        text (str): one line with sizes and options.
    """

    name: str
    parameters: int
    text: str


class RuleModel(Stacked, ABC):
    """S models of one kind, one for each seed, that share nothing but the call.

    Args:
        config (frozen dataclass): sizes and options.
        classes (int): tokens that are told apart, SOS, EOS and PAD included.
        max_length (int): symbols of the longest word; sequences then have max_length + 1 inputs.
        seeds (sequence of int): what the parameters of each are drawn from.

    Attributes:
        seeds (int): S.
        seed_numbers (tuple of int): the seeds that are still in the stack.
    """

    kind: str  # its key in `MODELS`

    def __init__(self, config: Any, *, classes: int, max_length: int, seeds: Sequence[int]) -> None:
        super().__init__()
        if classes < 1 or max_length < 1 or not seeds:
            raise ValueError(
                f"{type(self).__name__}: {classes} classes, max_length {max_length},"
                f" {len(seeds)} seeds; at least one of each fits"
            )
        self.config, self.classes, self.max_length = config, classes, max_length
        self.seed_numbers = tuple(seeds)

    @property
    def seeds(self) -> int:
        return len(self.seed_numbers)

    @abstractmethod
    def forward(self, tokens: Tensor, *, cache: Any = None) -> Tensor:
        """Say what may follow each token of sequences, or of the next pieces of them.

        Args:
            tokens (Tensor (S, B, T), int64): seed s reads tokens[s]; with a cache, what follows
                those it has seen.
            cache (what `new_cache` gave, or None): what came before; tokens are added to it. For
                evaluation: nothing flows back into what is held.

        Returns:
            Tensor (S, B, T, classes), float32: logits of the token after each, in nats.

        Raises:
            ValueError: tokens have another shape, or are more than the model has positions for.
        """

    @abstractmethod
    def new_cache(self) -> Any:
        """An empty cache for `forward`, which serves one batch of sequences."""

    def next_logits(self, tokens: Tensor, *, cache: Any = None) -> Tensor:
        """What decoding reads: logits of the token after the last.

        Args:
            tokens (Tensor (S, B, T), int64): T at least 1; with a cache, what follows it.
            cache (what `new_cache` gave, or None): as in `forward`.

        Returns:
            Tensor (S, B, classes), float32: in nats.
        """
        return self(tokens, cache=cache)[:, :, -1]

    def attention(self, tokens: Tensor) -> list[Tensor]:
        """What share of each key every query takes, without dropout.

        Args:
            tokens (Tensor (S, B, T), int64): the sequences.

        Returns:
            list over layers of Tensor (S, B, H, T, T), float32: rows sum to 1. No layer, no entry.
        """
        return []

    @abstractmethod
    def describe(self) -> Description:
        """What the model is, and how many numbers it trains."""

    def keep(self, which: Sequence[int]) -> None:
        """Let only some seeds stay, in place: parameters remain the objects they are.

        No graph of an earlier forward may be alive: torch's gradients would keep its sizes.

        Args:
            which (sequence of int): their places in the stack, in the order they shall have.

        Raises:
            ValueError: a place is not in the stack, or there is none.
        """
        if not which or any(not 0 <= i < self.seeds for i in which):
            raise ValueError(
                f"{type(self).__name__}: keep {list(which)} of {self.seeds} seeds;"
                f" some of 0 to {self.seeds - 1} fit"
            )
        chosen = list(which)
        for parameter in self.parameters():
            gradient, parameter.grad = parameter.grad, None
            parameter.data = parameter.data[chosen].contiguous()
            parameter.grad = None if gradient is None else gradient[chosen]
        self.seed_numbers = tuple(self.seed_numbers[i] for i in chosen)

    def draw_parameters(self) -> None:
        """Draw fresh parameters, each seed's from its number."""
        self.reset([torch.Generator().manual_seed(number) for number in self.seed_numbers])

    def _check(self, tokens: Tensor) -> None:
        if tokens.dim() != 3 or len(tokens) != self.seeds or tokens.shape[2] < 1:
            raise ValueError(
                f"{type(self).__name__}: tokens {tuple(tokens.shape)};"
                f" ({self.seeds}, B, T) with T at least 1 fits"
            )

    def _parameters_of_one(self) -> int:
        return sum(p.numel() for p in self.parameters()) // self.seeds
