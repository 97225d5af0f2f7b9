"""The checks that ops share: kinds, dtypes, shapes and Python numbers, never values of tensors.

Every message reads `op: what came; what fits; shapes`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

FLOATING = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LARGEST = torch.finfo(torch.float32).max
SMALLEST = torch.finfo(torch.float32).tiny
NORMS = ("l2", "rms", "layer", None)


def tensor(op: str, name: str, x: Tensor, dtypes: Sequence[torch.dtype] = FLOATING) -> None:
    """A tensor of one of `dtypes`."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: {name} is a {type(x).__name__}; a tensor fits")
    if x.layout != torch.strided:
        raise TypeError(f"{op}: {name} is {x.layout}; a dense tensor fits")
    if x.dtype not in dtypes:
        raise TypeError(f"{op}: {name} is {x.dtype}; {_names(dtypes)} fits")


def one_dtype(op: str, **tensors: Tensor) -> None:
    """Tensors that share a dtype."""
    if len({x.dtype for x in tensors.values()}) > 1:
        raise TypeError(f"{op}: {_each(tensors, 'dtype', 'is')}; one dtype fits")


def one_device(op: str, **tensors: Tensor) -> None:
    """Tensors that share a device."""
    if len({x.device for x in tensors.values()}) > 1:
        raise ValueError(f"{op}: {_each(tensors, 'device', 'on', every=True)}; one device fits")


def attention(op: str, query: Tensor, key: Tensor, value: Tensor, suffix: str = "") -> None:
    """Query (B, H, T, D), key and value (B, G, S, D), floating, H a multiple of G.

    `suffix` ends the names of key and value in messages.
    """
    key_name, value_name = f"key{suffix}", f"value{suffix}"
    named = {"query": query, key_name: key, value_name: value}
    for name, x in named.items():
        tensor(op, name, x)
    one_dtype(op, **named)
    one_device(op, **named)
    if not query.dim() == key.dim() == value.dim() == 4:
        raise ValueError(
            f"{op}: {query.dim()}, {key.dim()} and {value.dim()} dimensions; query (B, H, T, D)"
            f" and {key_name} and {value_name} (B, G, S, D) fit; {shapes_of(**named)}"
        )
    B, H, _, D = query.shape
    G = key.shape[1]
    if key.shape[0] != B:
        raise ValueError(
            f"{op}: batches of {B} and {key.shape[0]}; equal batches fit; {shapes_of(**named)}"
        )
    if key.shape[3] != D or D == 0:
        raise ValueError(
            f"{op}: head widths {D} and {key.shape[3]}; equal widths of at least 1 fit;"
            f" {shapes_of(**named)}"
        )
    if value.shape != key.shape:
        raise ValueError(
            f"{op}: {key_name} and {value_name} differ; both (B, G, S, D) fit; {shapes_of(**named)}"
        )
    if G == 0 or H == 0 or H % G:
        raise ValueError(
            f"{op}: {H} query heads cannot share {G} key heads; H must be a multiple of G;"
            f" {shapes_of(**named)}"
        )


def parameter(op: str, name: str, x: Tensor, device: torch.device, beside: str) -> None:
    """A floating tensor where the tensor `beside` it is; its shape is checked by the caller."""
    if x.dtype not in FLOATING:
        raise TypeError(f"{op}: {name} is {x.dtype}; a floating dtype fits")
    if x.device != device:
        raise ValueError(f"{op}: {name} on {x.device}; {device}, as {beside}, fits")


def scale(
    op: str, x: float | Tensor, bound: float | None, no_gains: bool, *, query: Tensor
) -> None:
    """A finite number or a tensor () or (H,), and a promised bound that a number keeps."""
    if bound is not None:
        positive(op, "scale_bound", bound)
    if isinstance(x, Tensor):
        H = query.shape[1]
        if x.dim() > 1 or (x.dim() == 1 and x.shape[0] != H):
            raise ValueError(
                f"{op}: scale has shape {tuple(x.shape)}; () or ({H},) fits;"
                f" {shapes_of(query=query)}"
            )
        parameter(op, "scale", x, query.device, "query")
        return
    if isinstance(x, bool) or not isinstance(x, int | float):
        raise TypeError(f"{op}: scale is a {type(x).__name__}; a float or a tensor fits")
    finite(op, "scale", x)
    if bound is not None and no_gains and abs(x) > bound:
        raise ValueError(f"{op}: scale is {x}; at most scale_bound, {bound}, fits")


def norm(op: str, name: str | None, eps: float) -> None:
    """One of `NORMS`, and what keeps it finite."""
    if name not in NORMS:
        raise ValueError(f"{op}: norm is {name!r}; 'l2', 'rms', 'layer' or None fits")
    positive(op, "eps", eps)


def gain(op: str, name: str, weight: Tensor | None, **beside: Tensor) -> None:
    """None, or a floating (D,) for the last axis of the one tensor `beside` it."""
    if weight is None:
        return
    if not isinstance(weight, Tensor):
        raise TypeError(f"{op}: {name} is a {type(weight).__name__}; a tensor or None fits")
    [(normed, x)] = beside.items()
    if weight.dim() != 1 or weight.shape[0] != x.shape[-1]:
        raise ValueError(
            f"{op}: {name} has shape {tuple(weight.shape)}; ({x.shape[-1]},) fits;"
            f" {shapes_of(**beside)}"
        )
    parameter(op, name, weight, x.device, normed)


def rope(op: str, tables: tuple[Tensor, Tensor], D: int, rows: int, **beside: Tensor) -> None:
    """A pair (cos, sin) of constants, each (at least `rows`, D/2), beside the first tensor."""
    pair = tuple(tables) if isinstance(tables, tuple | list) else ()
    if len(pair) != 2 or not all(isinstance(table, Tensor) for table in pair):
        kind = type(tables).__name__
        raise TypeError(f"{op}: rope is a {kind}; a pair of tensors (cos, sin) fits")
    cos, sin = pair
    first_name, first = next(iter(beside.items()))
    if D % 2:
        raise ValueError(
            f"{op}: rope cannot pair {D} features; an even D fits; {shapes_of(**beside)}"
        )
    if cos.shape != sin.shape or cos.dim() != 2 or cos.shape[1] != D // 2 or cos.shape[0] < rows:
        raise ValueError(
            f"{op}: rope has shapes {tuple(cos.shape)} and {tuple(sin.shape)};"
            f" two of (at least {rows}, {D // 2}) fit; {shapes_of(**beside)}"
        )
    for name, table in (("rope's cos", cos), ("rope's sin", sin)):
        parameter(op, name, table, first.device, first_name)
        constant(op, name, table)


def constant(op: str, name: str, x: Tensor) -> None:
    """A tensor that the op has no gradient for."""
    if x.requires_grad:
        raise ValueError(f"{op}: {name} requires a gradient; a constant fits")


def finite(op: str, name: str, number: float) -> None:
    """A Python number that float32 can hold."""
    _number(op, name, number)
    if not -LARGEST <= number <= LARGEST:
        raise ValueError(f"{op}: {name} is {number}; a finite number of float32 fits")


def positive(op: str, name: str, number: float) -> None:
    """A Python number above 0 that float32 can hold in full precision."""
    _number(op, name, number)
    if not SMALLEST <= number <= LARGEST:
        raise ValueError(
            f"{op}: {name} is {number}; a positive finite number of float32 fits,"
            f" {SMALLEST:.3g} to {LARGEST:.3g}"
        )


def count(op: str, name: str, number: int, least: int) -> None:
    """A Python int, or a traced one, of at least `least`."""
    if isinstance(number, bool) or not isinstance(number, int | torch.SymInt):
        raise TypeError(f"{op}: {name} is a {type(number).__name__}; an int fits")
    if number < least:
        raise ValueError(f"{op}: {name} is {number}; at least {least} fits")
    if number >= 2**63:
        raise ValueError(f"{op}: {name} is {number}; less than 2^63 fits")


def flag(op: str, name: str, x: bool) -> None:
    """True or False."""
    if not isinstance(x, bool):
        raise TypeError(f"{op}: {name} is a {type(x).__name__}; True or False fits")


def shapes_of(**tensors: Tensor) -> str:
    """The end of a message: "query (2, 8, 16, 32), key (2, 4, 16, 32)".

    Only to be called where an error is certain: dynamo cannot trace it over symbolic sizes.
    """
    return ", ".join(f"{name} {tuple(x.shape)}" for name, x in tensors.items())


def _number(op: str, name: str, number: float) -> None:
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise TypeError(f"{op}: {name} is a {type(number).__name__}; a float fits")


def _names(dtypes: Sequence[torch.dtype]) -> str:
    *most, last = (str(dtype).removeprefix("torch.") for dtype in dtypes)
    return f"{', '.join(most)} or {last}" if most else last


def _each(tensors: dict[str, Tensor], what: str, word: str, every: bool = False) -> str:
    """ "query is torch.float32, key torch.float16"."""
    first, *rest = ((name, getattr(x, what)) for name, x in tensors.items())
    join = f" {word} " if every else " "
    return ", ".join([f"{first[0]} {word} {first[1]}", *(f"{n}{join}{x}" for n, x in rest)])
