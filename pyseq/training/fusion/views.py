"""Different views of the same objects for test-time augmentation, and passes with dropout on."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pyseq.data.modalities import Batch, Graph

# In standard deviations of the training data: mild enough to leave the class as it is.
NOISE, SHIFT = 0.1, 0.1
CHANGES = ("itself", "noise", "shift", "drop", "noise and shift")


def views(batch: Batch, count: int, seed: int) -> Iterator[Batch]:
    """Different views of a batch: the objects themselves, with noise, shifted, without a modality.

    They come in the order of `CHANGES`, over and over with new numbers. Noise is added to every
    feature; a shift moves an object's whole modality by one number, and a sequence by a step; of
    tokens, noise replaces a tenth by others of the same object. A drop hides one modality that an
    object has, another one in the next round, and never the last one. No object's view depends on
    the values of another object. Averaging over views that are all alike would change nothing, nor
    do dropout's passes belong here: `dropout_on`.

    Args:
        batch (Batch): standardised, on any device.
        count (int): of views, at least 1.
        seed (int): of what is drawn.

    Yields:
        Batch: the next view; the given one is left as it is.

    Raises:
        ValueError: count is below 1.
    """
    if count < 1:
        raise ValueError(f"views: count {count}; at least 1 fits")
    for number in range(count):
        draw = torch.Generator().manual_seed((seed << 16) + number)
        change, again = CHANGES[number % len(CHANGES)], number // len(CHANGES)
        if change == "itself":
            # One copy of the objects is enough; later rounds have noise in its place.
            yield batch if not again else _changed(batch, draw, noise=NOISE, shift=0.0)
        elif change == "drop":
            yield _without_one(batch, draw, again)
        else:
            yield _changed(
                batch, draw, noise=NOISE * ("noise" in change), shift=SHIFT * ("shift" in change)
            )


def _changed(batch: Batch, draw: torch.Generator, *, noise: float, shift: float) -> Batch:
    values = {
        name: _of_graph(value, draw, noise, shift)
        if isinstance(value, Graph)
        else _of_tensor(value, draw, noise, shift)
        for name, value in batch.values.items()
    }
    return Batch(values, batch.present, batch.label)


def _of_tensor(value: Tensor, draw: torch.Generator, noise: float, shift: float) -> Tensor:
    if not value.is_floating_point():
        return _of_tokens(value, draw, noise, shift)
    if shift and value.ndim == 3:
        # The first step stands twice: rolling would put the end before the beginning.
        value = torch.cat((value[:, :1], value[:, :-1]), 1)
    return value + _moves(value, draw, noise, shift)


def _of_tokens(value: Tensor, draw: torch.Generator, noise: float, shift: float) -> Tensor:
    if shift:
        value = torch.cat((value[:, :1], value[:, :-1]), 1)
    if noise:
        replaced = torch.rand(value.shape, generator=draw) < 0.1
        others = value[:, torch.randperm(value.shape[1], generator=draw).to(value.device)]
        value = torch.where(replaced.to(value.device), others, value)
    return value


def _of_graph(value: Graph, draw: torch.Generator, noise: float, shift: float) -> Graph:
    real = torch.arange(value.features.shape[1], device=value.nodes.device) < value.nodes[:, None]
    moves = _moves(value.features, draw, noise, shift) * real[..., None]
    return Graph(value.features + moves, value.adjacency, value.nodes)


def _moves(value: Tensor, draw: torch.Generator, noise: float, shift: float) -> Tensor:
    """What is added: the noise of each feature, and the shift of each object."""
    # Drawn on the CPU, so that a view is the same on every device.
    added = noise * torch.randn(value.shape, generator=draw)
    common = (len(value), *[1] * (value.ndim - 1))
    return (added + shift * torch.randn(common, generator=draw)).to(value)


def _without_one(batch: Batch, draw: torch.Generator, again: int) -> Batch:
    """Hide of each object the `again`-th modality of a random order of those that it has."""
    present = batch.present
    order = torch.rand(present.shape, generator=draw).to(present.device)
    ranks = order.masked_fill(~present, 2.0).argsort(1).argsort(1)  # those it has come first
    has = present.sum(1, keepdim=True)
    hidden = (ranks == again % has.clamp(min=1)) & (has > 1)
    return Batch(batch.values, present & ~hidden, batch.label)


@contextlib.contextmanager
def dropout_on(model: nn.Module, seed: int) -> Iterator[None]:
    """In this block dropout drops, as in training, and everything else is in eval mode.

    Args:
        model (Module): in eval mode; hiding whole modalities is not dropout and stays off.
        seed (int): of the passes in the block; torch's generators are afterwards as before.

    Source: Gal and Ghahramani 2016, Dropout as a Bayesian Approximation (arXiv 1506.02142).
    """
    layers = [part for part in model.modules() if isinstance(part, nn.Dropout)]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for layer in layers:
            layer.train()
        try:
            yield
        finally:
            for layer in layers:
                layer.eval()
