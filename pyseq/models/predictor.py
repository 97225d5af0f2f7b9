"""A trained model as others use it: predict, score, continue a stream."""

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyseq.errors import UserError
from pyseq.models.checkpoint import ModelCard, load_model
from pyseq.models.device import choose_device
from pyseq.models.sequence_model import SequenceModel
from pyseq.models.supercharged import Supercharged


@dataclass(frozen=True)
class Prediction:
    """The most likely next classes, best first.

    Attributes:
        classes (Tensor (k,), int64): classes of the model; symbols, if it was trained without bins.
        probability (Tensor (k,), float32): of each class.
        symbols (list of (first, last)): the symbols that each class stands for, inclusive.
    """

    classes: Tensor
    probability: Tensor
    symbols: list[tuple[int, int]]


class Predictor:
    """A model with its config, in evaluation mode.

    Symbols go in as they are in the stream, 0..alphabet-1, in any integer dtype; the model's
    binning is applied here. Probabilities are of classes.

    Args:
        model (SequenceModel): the network.
        card (ModelCard): what it is and was trained for.
        device (str | torch.device): where it runs.
    """

    def __init__(self, model: SequenceModel, card: ModelCard, device: str | torch.device = "cpu"):
        self.model, self.card, self.device = model.to(device).eval(), card, torch.device(device)

    def classes_of(self, symbols: Tensor) -> Tensor:
        """The model's classes of symbols, int64, same shape, on the model's device.

        Raises:
            UserError: a symbol lies outside the alphabet.
        """
        symbols = torch.as_tensor(symbols).long()
        if symbols.numel() and not 0 <= int(symbols.min()) <= int(symbols.max()) < self._alphabet:
            wrong = symbols.flatten()[((symbols < 0) | (symbols >= self._alphabet)).flatten()][0]
            raise UserError(
                f"symbol {int(wrong)} lies outside the model's alphabet of {self._alphabet}"
            )
        return self.card.binning.apply(symbols).to(self.device)

    @property
    def _alphabet(self) -> int:
        return self.card.binning.alphabet

    @torch.inference_mode()
    def distribution(self, window: Tensor) -> Tensor:
        """Log-probabilities of the next class after every position.

        Args:
            window (Tensor (B, T), integer): symbols.

        Returns:
            Tensor (B, T, classes), float32: natural logarithms; position t has seen 0..t.
        """
        return self.model(self.classes_of(window)).float().log_softmax(-1)

    @property
    def horizons(self) -> int:
        """How many steps ahead the model has a head for; 1 is the next symbol."""
        return 1 + len(self.model.ahead) if isinstance(self.model, Supercharged) else 1

    @torch.inference_mode()
    def distributions_ahead(self, window: Tensor) -> Iterator[Tensor]:
        """Log-probabilities of the classes 1, 2, ... `horizons` steps after every position.

        Each is made when it is asked for, and the first is that of `distribution`.

        Args:
            window (Tensor (B, T), integer): symbols.

        Yields:
            Tensor (B, T, classes), float32: natural logarithms; position t has seen 0..t.
        """
        if not isinstance(self.model, Supercharged):
            yield self.distribution(window)
            return
        hidden = self.model.hidden(self.classes_of(window))
        for state in (hidden, *self.model.look_ahead(hidden)):
            yield self.model.head(state).float().log_softmax(-1)

    def log_prob(self, window: Tensor) -> Tensor:
        """Log-probability of each symbol's class given the symbols before it in the window.

        Args:
            window (Tensor (B, T) or (T,), integer): symbols, T at least 2.

        Returns:
            Tensor (B, T - 1) or (T - 1,), float32, nats: entry t is of symbol t + 1.

        Raises:
            ValueError: the window has fewer than 2 symbols.
        """
        window = torch.as_tensor(window)
        if window.dim() not in (1, 2) or window.shape[-1] < 2:
            raise ValueError(
                f"log_prob: window has shape {tuple(window.shape)}; (B, T) or (T,) with T >= 2 fits"
            )
        rows = window.reshape(-1, window.shape[-1])
        targets = self.classes_of(rows[:, 1:])
        scores = self.distribution(rows[:, :-1]).gather(-1, targets[..., None])[..., 0]
        return scores.reshape(*window.shape[:-1], -1).cpu()

    def predict(self, context: Tensor, topk: int = 10) -> Prediction:
        """The most likely classes of the symbol after `context`.

        Args:
            context (Tensor (T,), integer): the symbols before it; the last seq_len are used.
            topk (int): how many classes; at most as many as the model has.

        Raises:
            ValueError: the context is empty, or topk is not positive.
        """
        context = torch.as_tensor(context)
        if context.dim() != 1 or len(context) == 0:
            raise ValueError(
                f"predict: context has shape {tuple(context.shape)}; (T,), T >= 1 fits"
            )
        if topk < 1:
            raise ValueError(f"predict: topk is {topk}; at least 1 fits")
        logp = self.distribution(context[None, -self.card.seq_len :])[0, -1]
        best = logp.topk(min(topk, len(logp)))
        classes = best.indices.cpu()
        return Prediction(
            classes, best.values.exp().cpu(), [self._symbols(int(c)) for c in classes]
        )

    def _symbols(self, class_: int) -> tuple[int, int]:
        """First and last symbol of a class."""
        edges = self.card.binning.edges
        if edges is None:
            return class_, class_
        following = edges[class_ + 1] if class_ + 1 < len(edges) else self._alphabet
        return edges[class_], following - 1

    def generate(
        self,
        context: Tensor,
        n: int,
        *,
        temperature: float = 1.0,
        topk: int | None = None,
        seed: int = 0,
        cache: bool = True,
    ) -> Tensor:
        """Continue a stream by sampling: the first n symbols of `continuation`.

        Args:
            context (Tensor (T,), integer): the symbols to continue, T at least 1.
            n (int): symbols to generate.
            temperature (float): as for `continuation`.
            topk (int | None): as for `continuation`.
            seed (int): as for `continuation`.
            cache (bool): as for `continuation`.

        Returns:
            Tensor (n,), int64: symbols.

        Raises:
            ValueError: an argument is out of its range.
            UserError: a symbol of the context lies outside the alphabet.
        """
        if n < 0:
            raise ValueError(f"generate: n is {n}; 0 or more fits")
        symbols = self.continuation(
            context, temperature=temperature, topk=topk, seed=seed, cache=cache
        )
        return torch.tensor(list(itertools.islice(symbols, n)), dtype=torch.int64)

    def continuation(
        self,
        context: Tensor,
        *,
        temperature: float = 1.0,
        topk: int | None = None,
        seed: int = 0,
        cache: bool = True,
    ) -> Iterator[int]:
        """Continue a stream by sampling, one symbol at a time and without end.

        The model sees the last seq_len symbols at the most. Where there would be more it begins
        anew with the last seq_len / 2, so that a step needs no more than the newest symbol, and
        what a cache holds is what the model would compute without it. A class that stands for
        several symbols yields each of them with equal probability.

        Args:
            context (Tensor (T,), integer): the symbols to continue, T at least 1; the last seq_len
                are used.
            temperature (float): divides the logits; 0 takes the most likely class (and the lowest
                of its symbols) every time.
            topk (int | None): sample from so many of the most likely classes; None: from all.
            seed (int): of the sampling; at least 0.
            cache (bool): keep what was computed for earlier symbols (keys and values of the
                attentions, states of the others). Without it every step reads the whole context
                again, for the same symbols (but where rounding decides between two).

        Yields:
            int: the next symbol.

        Raises:
            ValueError: the context is empty, or another argument is out of its range.
            UserError: a symbol of the context lies outside the alphabet.
        """
        context = torch.as_tensor(context)
        if context.dim() != 1 or len(context) == 0:
            raise ValueError(
                f"generate: context has shape {tuple(context.shape)}; (T,), T >= 1 fits"
            )
        if not 0 <= temperature < math.inf:
            raise ValueError(f"generate: temperature is {temperature}; 0 or more fits")
        if topk is not None and topk < 1:
            raise ValueError(f"generate: topk is {topk}; at least 1 fits")
        if seed < 0:
            raise ValueError(f"generate: seed is {seed}; 0 or more fits")
        recent = self.classes_of(context[-self.card.seq_len :])
        return self._continue(recent, temperature, topk, np.random.default_rng(seed), cache)

    def _continue(
        self,
        recent: Tensor,
        temperature: float,
        topk: int | None,
        random: np.random.Generator,
        cached: bool,
    ) -> Iterator[int]:
        """The symbols that follow the classes `recent`, (T,) int64."""
        most = self.card.seq_len
        cache, fresh = self.model.new_cache() if cached else None, recent
        while True:
            with torch.inference_mode():
                piece = recent if cache is None else fresh
                logits = self.model(piece[None], cache=cache)[0, -1].double().cpu()
            class_ = _draw(logits, temperature, topk, random)
            first, last = self._symbols(class_)
            yield first if temperature == 0 else int(random.integers(first, last + 1))
            fresh = torch.tensor([class_], device=self.device)
            recent = torch.cat((recent, fresh))
            if len(recent) > most:
                fresh = recent = recent[-max(1, most // 2) :]
                cache = self.model.new_cache() if cached else None


def _draw(logits: Tensor, temperature: float, topk: int | None, random: np.random.Generator) -> int:
    """A class by its logits (classes,) float64."""
    if temperature == 0:
        return int(logits.argmax())
    if topk is not None and topk < len(logits):
        best = logits.topk(topk)
        logits = torch.full_like(logits, -math.inf).scatter(0, best.indices, best.values)
    reached = ((logits - logits.max()) / temperature).softmax(-1).cumsum(-1).numpy()
    # The first class whose cumulative probability exceeds the draw; its own is not 0.
    return int(np.searchsorted(reached, random.random() * reached[-1], side="right"))


def load(path: str | os.PathLike, *, device: str | torch.device = "cpu") -> Predictor:
    """A trained model with its config.

    Args:
        path (str | PathLike): the file that `pyseq train --ckpt` wrote.
        device (str | torch.device): where the model runs.

    Returns:
        Predictor: with .predict(context, topk), .log_prob(window) and .generate(context, n).

    Raises:
        UserError: the file is missing or holds no pyseq model, or there is no such device.
    """
    return Predictor(*load_model(path), device=choose_device(str(device)))
