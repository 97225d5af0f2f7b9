"""Layers of several models at once: every parameter has a leading S, one slice for each seed.

Models of this size are all overhead, so S of them cost little more than one. A slice is drawn from
its own seed's generator: what it holds does not depend on which others are in the stack.
"""

import math
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn


class Stacked(nn.Module):
    """A layer whose parameters, its own and its children's, have a leading S."""

    def reset(self, generators: Sequence[Generator]) -> None:
        """Draw fresh values: those of slice s from generators[s] alone, children in their order."""
        for child in self.children():
            if isinstance(child, Stacked):
                child.reset(generators)


Layer = TypeVar("Layer", bound=Stacked)


class StackedList(Stacked, Generic[Layer]):
    """Layers of one kind, by their number.

    Args:
        layers (sequence of Stacked): what it holds.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        for i, layer in enumerate(layers):
            self.add_module(str(i), layer)

    def __getitem__(self, i: int) -> Layer:
        return self.get_submodule(str(range(len(self))[i]))  # type: ignore[return-value]

    def __len__(self) -> int:
        return len(self._modules)


def draw(
    parameter: Tensor, generators: Sequence[Generator], fill: Callable[[Tensor, Generator], object]
) -> None:
    """Fill every slice of a parameter in place: fill(slice, its generator)."""
    with torch.no_grad():
        for piece, generator in zip(parameter, generators, strict=True):
            fill(piece, generator)


def draw_uniform(parameter: Tensor, generators: Sequence[Generator], bound: float) -> None:
    """Fill a parameter with numbers from -bound to bound."""
    draw(parameter, generators, lambda x, g: x.uniform_(-bound, bound, generator=g))


def draw_normal(parameter: Tensor, generators: Sequence[Generator], deviation: float) -> None:
    """Fill a parameter with normal numbers around 0."""
    draw(parameter, generators, lambda x, g: x.normal_(0, deviation, generator=g))


class StackedLinear(Stacked):
    """y = W_s x + b_s for every seed s.

    Args:
        seeds (int): S.
        inputs (int): features of x.
        outputs (int): features of y.

    Attributes:
        weight (Parameter (S, outputs, inputs)): drawn as torch's Linear draws it.
        bias (Parameter (S, outputs)): likewise.
    """

    def __init__(self, seeds: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(seeds, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(seeds, outputs))

    def reset(self, generators: Sequence[Generator]) -> None:
        bound = 1 / math.sqrt(self.weight.shape[2])
        draw_uniform(self.weight, generators, bound)
        draw_uniform(self.bias, generators, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (S, ..., inputs) to (S, ..., outputs)."""
        rows = x.flatten(1, -2)  # (S, N, inputs)
        return torch.baddbmm(self.bias[:, None], rows, self.weight.mT).unflatten(1, x.shape[1:-1])


class StackedEmbedding(Stacked):
    """Rows of one table per seed.

    Args:
        seeds (int): S.
        classes (int): rows of a table.
        width (int): features of a row.

    Attributes:
        weight (Parameter (S, classes, width)): drawn from the standard normal, as torch does.
    """

    def __init__(self, seeds: int, classes: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(seeds, classes, width))

    def reset(self, generators: Sequence[Generator]) -> None:
        draw_normal(self.weight, generators, 1.0)

    def forward(self, tokens: Tensor) -> Tensor:
        """Look up tokens (S, ...) int64 in the seeds' tables: (S, ..., width)."""
        # One look-up per seed: in a joint table a class too high would read the next seed's row.
        return torch.stack([F.embedding(t, w) for t, w in zip(tokens, self.weight, strict=True)])


class StackedLayerNorm(Stacked):
    """Layer normalisation with a gain and a shift per seed.

    Args:
        seeds (int): S.
        width (int): features that are normalised together.
        eps (float): added to their variance.

    Attributes:
        weight (Parameter (S, width)): the gain, 1 before training.
        bias (Parameter (S, width)): the shift, 0 before training.
    """

    def __init__(self, seeds: int, width: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(seeds, width))
        self.bias = nn.Parameter(torch.zeros(seeds, width))
        self.eps = eps

    def reset(self, generators: Sequence[Generator]) -> None:
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (S, ..., width) over its last axis."""
        normal = F.layer_norm(x.flatten(1, -2), x.shape[-1:], eps=self.eps)
        return torch.addcmul(self.bias[:, None], normal, self.weight[:, None]).view(x.shape)
