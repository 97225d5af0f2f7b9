"""Where attention looks: how the weights of every head spread over what lies behind it."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from pyseq.data.u16_stream import U16Stream
from pyseq.models.predictor import Predictor
from pyseq.models.sequence_model import SequenceModel
from pyseq.models.supercharged import Supercharged
from pyseq.nn import (
    AdaptiveAttention,
    CosineAttention,
    ExponentialSmoothingAttention,
    FourierAttention,
    HardAttention,
)
from pyseq.nn.self_attention import SelfAttention
from pyseq.ops.attention import visibility

# Making weights takes time that grows with the cube of a window's length.
MOST_SYMBOLS = 4096  # in all windows, unless a single one is longer
MOST_WINDOWS = 64
_WEIGHTS_AT_ONCE = 1 << 24  # 64 MiB in float32
_KINDS = {CosineAttention: "cosine", HardAttention: "hard", AdaptiveAttention: "adaptive"}
_WEIGHTLESS = {
    FourierAttention: "Fourier mixing",
    ExponentialSmoothingAttention: "exponential smoothing",
}
Unit = Literal["symbols", "patches"]


@dataclass(frozen=True)
class HeadReach:
    """Where one query head looks, on average over the queries.

    Attributes:
        shares (tuple of floats): weight on each of the layer's bands, fractions; with `memory` they
            sum to 1.
        memory (float): weight on the memory tokens, fraction.
        mean_distance (float or None): of the weight that is not on memory tokens, in the layer's
            unit; None where there is none.
        entropy (float): of a query's weights, bits; 0 where one key has them all.
        relative_entropy (float): `entropy` over that of even weights on all the keys that the
            queries see, in [0, 1]; 0 where no query has a choice.
    """

    shares: tuple[float, ...]
    memory: float
    mean_distance: float | None
    entropy: float
    relative_entropy: float


@dataclass(frozen=True)
class LayerReach:
    """Where the heads of one attention layer look.

    Attributes:
        name (str): as in "block 2: cosine" or "inside the patch 1: cosine".
        unit ("symbols" or "patches"): of the distances.
        bands (tuple of (first, last)): distances, both included: (0, 0), (1, 1), (2, 3), (4, 7) and
            so on; at 0 lies the newest symbol or patch that the query has seen.
        heads (tuple of HeadReach): one for each query head.
        even (tuple of floats): the shares that even weights on all visible keys would have.
        even_memory (float): the share of the memory tokens then.
    """

    name: str
    unit: Unit
    bands: tuple[tuple[int, int], ...]
    heads: tuple[HeadReach, ...]
    even: tuple[float, ...]
    even_memory: float


@dataclass(frozen=True)
class AttentionReach:
    """Where the attention of a model looks.

    Attributes:
        windows (int): held-out windows that were looked at.
        length (int): symbols in each.
        layers (tuple of LayerReach): in the model's order; a layer that had no query is left out.
        weightless (tuple of str): layers that mix positions without attention weights, as in
            "after block 3: Fourier mixing".
    """

    windows: int
    length: int
    layers: tuple[LayerReach, ...]
    weightless: tuple[str, ...]


def attention_reach(
    predictor: Predictor, stream: U16Stream, start: int, stop: int, *, seq_len: int
) -> AttentionReach:
    """Look at the attention weights of every layer, as the model serves, on some windows.

    Memory tokens ask nothing here, and inside the patch the first and the last patch of a window
    are left out: they may hold places that predict nothing.

    Args:
        predictor (Predictor): whose model is looked into.
        stream (U16Stream): the symbols.
        start (int): first symbol that may be seen.
        stop (int): one past the last one.
        seq_len (int): symbols in a window at the most.

    Returns:
        AttentionReach: averages over the queries of windows at even distances.

    Raises:
        ValueError: the range is empty.
    """
    if stop <= start:
        raise ValueError(
            f"attention_reach: range [{start}, {stop}) holds no symbols; 1 or more fit"
        )
    length = min(seq_len, stop - start)
    windows = min(MOST_WINDOWS, max(1, MOST_SYMBOLS // length))
    offsets = np.unique(np.linspace(start, stop - length, windows).astype(np.int64))
    observers, weightless = _observers(predictor.model)
    with ExitStack() as hooks, torch.inference_mode():
        for observer in observers:
            hooks.callback(observer.layer.register_forward_pre_hook(observer).remove)
        for offset in offsets.tolist():  # one by one, which bounds the memory
            predictor.distribution(stream[offset : offset + length][None])
    layers = tuple(observer.reach() for observer in observers if observer.queries)
    return AttentionReach(len(offsets), length, layers, weightless)


def _observers(model: SequenceModel) -> tuple[list[_Observer], tuple[str, ...]]:
    """One observer for each attention layer, and the names of the layers that have no weights."""
    inside: set[nn.Module] = set()
    unit: Unit = "symbols"
    memory = 0
    if isinstance(model, Supercharged):
        inside, unit = set(model.local_blocks.modules()), "patches"
        if model.memory is not None and model.memory.read == "prefix":
            memory = model.memory.count
    observers: list[_Observer] = []
    weightless = []
    blocks = insides = 0
    for module in model.modules():
        if isinstance(module, SelfAttention) and module in inside:
            insides += 1
            name = f"inside the patch {insides}: {_kind(module)}"
            observers.append(_Observer(name, "symbols", module, 0, inside=True))
        elif isinstance(module, SelfAttention):
            blocks += 1
            name = f"block {blocks}: {_kind(module)}"
            observers.append(_Observer(name, unit, module, memory, inside=False))
        elif type(module) in _WEIGHTLESS:
            weightless.append(f"after block {blocks}: {_WEIGHTLESS[type(module)]}")
    return observers, tuple(weightless)


def _kind(layer: SelfAttention) -> str:
    kind = _KINDS[type(layer)]
    if isinstance(layer, HardAttention) and layer.serve_as != "hard":
        return f"{kind}, served {layer.serve_as}"
    return kind


class _Observer:
    """Adds up, over equally long inputs of one layer, where its weights lie; a forward pre-hook."""

    def __init__(self, name: str, unit: Unit, layer: SelfAttention, memory: int, *, inside: bool):
        self.name, self.unit, self.layer = name, unit, layer
        self.memory, self.inside = memory, inside
        self.length = 0  # positions of an input
        self.queries = 0
        # By head: weight in each band and, last, on the memory tokens; weight times distance; nats.
        self.mass = self.distance = self.entropy = torch.zeros((), dtype=torch.float64)

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor]) -> None:
        """See the input (B, T, width) of one window; inside the patch, B are its patches."""
        (x,) = inputs
        if self.inside:
            x = x[1:-1]
        B, T, _ = x.shape
        self.length, self.queries = T, self.queries + B * (T - self.memory)
        step = max(1, _WEIGHTS_AT_ONCE // max(1, B * self.layer.heads * T))
        for first in range(0, T, step):
            stop = min(first + step, T)
            weights = self.layer.weights(x, first=first, stop=stop)[:, :, self.memory :].double()
            self._add(weights, self._distances(first, stop, x.device))

    def _distances(self, first: int, stop: int, device: torch.device) -> Tensor:
        """Of keys from queries, (length - memory, stop - first) int64; -1 for a memory token."""
        query = torch.arange(self.memory, self.length, device=device)
        key = torch.arange(first, stop, device=device)
        return (query[:, None] - key).abs().masked_fill(key < self.memory, -1)

    def _add(self, weights: Tensor, distances: Tensor) -> None:
        """Weights (B, H, queries, keys) of keys at distances (queries, keys)."""
        by_head = weights.sum(0)
        self.mass = self.mass + self._by_band(by_head, distances).cpu()
        self.distance = self.distance + (by_head * distances.clamp_min(0)).sum((1, 2)).cpu()
        self.entropy = self.entropy + torch.special.entr(weights).sum((0, 2, 3)).cpu()

    def _by_band(self, weights: Tensor, distances: Tensor) -> Tensor:
        """Sums (H, bands + 1) of weights (H, queries, keys), the last on memory tokens."""
        bands = len(_bands(len(distances)))
        # Bit lengths: 0 is in band 0, 1 in 1, 2 and 3 in 2, and so on; frexp's exponent is that.
        band = distances.double().frexp().exponent.long().masked_fill(distances < 0, bands)
        sums = weights.new_zeros(len(weights), bands + 1)
        return sums.index_add(1, band.flatten(), weights.flatten(1))

    def reach(self) -> LayerReach:
        """The averages over all queries."""
        visible = self._visible()
        seen = visible.sum(1, keepdim=True)  # keys that a query sees; itself, at least
        even = torch.zeros(())
        step = max(1, _WEIGHTS_AT_ONCE // len(visible))
        for first in range(0, self.length, step):
            weights = visible[:, first : first + step] / seen.double()
            distances = self._distances(first, first + weights.shape[1], weights.device)
            even = even + self._by_band(weights[None], distances)[0] / len(seen)
        most = float(seen.double().log2().mean())
        return LayerReach(
            name=self.name,
            unit=self.unit,
            bands=_bands(len(seen)),
            heads=tuple(self._head(head, most) for head in range(self.layer.heads)),
            even=tuple(even[:-1].tolist()),
            even_memory=float(even[-1]),
        )

    def _visible(self) -> Tensor:
        """Which query sees which key, (length - memory, length) bool."""
        layer, T = self.layer, self.length
        window, prefix = getattr(layer, "window", None), getattr(layer, "prefix", 0)
        return visibility(T, T, causal=layer.causal, window=window, prefix=prefix)[self.memory :]

    def _head(self, head: int, most: float) -> HeadReach:
        *shares, memory = (self.mass[head] / self.queries).tolist()
        distance = float(self.distance[head]) / self.queries
        bits = max(0.0, float(self.entropy[head]) / math.log(2) / self.queries)
        return HeadReach(
            shares=tuple(shares),
            memory=memory,
            mean_distance=distance / sum(shares) if sum(shares) > 0 else None,
            entropy=bits,
            relative_entropy=min(1.0, bits / most) if most > 0 else 0.0,
        )


def _bands(positions: int) -> tuple[tuple[int, int], ...]:
    """The bands of the distances between so many positions: 0, 1, 2-3, 4-7, ..."""
    farthest = positions - 1
    longer = [(1 << k, min((2 << k) - 1, farthest)) for k in range(farthest.bit_length())]
    return ((0, 0), *longer)
