"""The checks that layers share: what they are made of, and the sequence that comes in."""

from typing import Any

from torch import Tensor


def kinds(layer: str, kind: type, **arguments: Any) -> None:
    """Constructor arguments that are all of `kind`: a bool is no int here."""
    for name, x in arguments.items():
        if not isinstance(x, kind) or (kind is int and isinstance(x, bool)):
            raise TypeError(f"{layer}: {name} is a {type(x).__name__}; a {kind.__name__} fits")


def sequence(layer: str, x: Tensor, width: int) -> None:
    """A tensor (B, T, width)."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{layer}: x is a {type(x).__name__}; a tensor fits")
    if x.dim() != 3 or x.shape[2] != width:
        raise ValueError(f"{layer}: x has shape {tuple(x.shape)}; (B, T, {width}) fits")


def state(layer: str, cache: Any, kind: type) -> None:
    """None, or the kind of cache that `new_cache` of this layer makes."""
    if cache is not None and not isinstance(cache, kind):
        raise TypeError(
            f"{layer}: cache is a {type(cache).__name__}; a {kind.__name__} from new_cache() fits"
        )


def continues(layer: str, x: Tensor, held: Tensor | None) -> None:
    """Sequences of the number and dtype that a cache's state was made of."""
    if held is None:
        return
    if len(held) != len(x):
        raise ValueError(
            f"{layer}: {len(x)} sequences, and a cache of {len(held)}; a new cache for every batch"
            " fits"
        )
    if held.dtype != x.dtype:
        raise ValueError(
            f"{layer}: the cache holds {held.dtype}, this computes in {x.dtype}; a new cache fits"
        )
