"""The public gather_windows: checks and choice of backend."""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pyseq.ops import backends, registration
from pyseq.ops.gather_windows import reference
from pyseq.ops.gather_windows.autograd import gather_native

DTYPES = (torch.uint16, torch.int32, torch.int64, torch.float32)


class SymbolStream(Protocol):
    """What gather_windows asks of a stream that is not a tensor; `pyseq.data.U16Stream` is one."""

    def __len__(self) -> int:
        """Symbols in the stream."""

    def __getitem__(self, window: slice) -> Tensor:
        """A uint16 copy of the symbols in `window`."""

    def resident(self) -> Tensor | None:
        """The symbols (S,), uint16, if they are kept on a device; else None."""

    def symbol_source(self) -> Any:
        """The stream as a `_core.SymbolSource`, if it is not kept on a device."""

    def verify(self) -> None:
        """Raise if what is behind the stream changed since it was opened."""


def gather_windows(
    stream: Tensor | SymbolStream,
    offsets: Tensor,
    length: int,
    *,
    dtype: torch.dtype = torch.int64,
    out: Tensor | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> Tensor:
    """Copy windows of a 16-bit stream into one dense tensor, widened to `dtype`.

    Row n of the result is ``stream[offsets[n] : offsets[n] + length]``. On the CPU the copy runs
    on several threads with the GIL released. On a GPU nothing waits for the device: two bytes of
    each symbol are read there and widened on the way.

    Args:
        stream (Tensor (S,), uint16 | U16Stream): the symbols.
        offsets (Tensor (N,), int64): first symbol of each window, in [0, S - length]. On the
            device of a tensor; on the CPU for a U16Stream, or where it is kept on a GPU, on either.
            Offsets on the CPU are checked, those on a GPU are not, as that would synchronise.
        length (int): symbols per window, 1 to S.
        dtype (torch.dtype): uint16, int32, int64 or float32.
        out (Tensor (N, length), dtype, contiguous, on the stream's device): written instead of a
            new tensor.
        threads (int): at most this many on the CPU for a U16Stream, at least 1; None is
            `torch.get_num_threads()`.
        backend (str): "auto", "native" (CPU), "triton" (GPU) or "reference".

    Returns:
        Tensor (N, length), `dtype`, on the stream's device; `out` if it was given.

    Raises:
        TypeError: an argument is of the wrong kind or dtype.
        ValueError: a shape, `length` or `threads` does not fit.
        IndexError: a window leaves the stream, told where the offsets are on the CPU.
        BackendUnavailable: a backend asked for by name cannot serve the call.

    Example:
        >>> import torch
        >>> from pyseq.ops import gather_windows
        >>> stream = torch.tensor([7, 8, 9, 65535], dtype=torch.uint16)
        >>> gather_windows(stream, torch.tensor([2, 0]), 2)
        tensor([[    9, 65535],
                [    7,     8]])
    """
    _check(stream, offsets, length, dtype, threads)
    resident = stream if isinstance(stream, Tensor) else stream.resident()
    _check_devices(stream, resident, offsets, length, dtype, out)
    if resident is None:
        return _gather_from_stream(stream, offsets, length, dtype, out, threads, backend)
    if offsets.device != resident.device:
        reference.check_range(offsets, length, len(stream))
        # Pageable memory would make the copy, and with it the caller, wait for the device.
        offsets = offsets.pin_memory().to(resident.device, non_blocking=True)
    windows = registration.call("gather_windows", resident, offsets, length, dtype, backend)
    if resident.is_cuda and resident is not stream:  # a stream may be closed before this is done
        resident.record_stream(torch.cuda.current_stream(resident.device))
    return windows if out is None else out.copy_(windows)


def _gather_from_stream(stream, offsets, length, dtype, out, threads, backend) -> Tensor:
    refusals: dict[str, backends.Refusal] = {
        "native": backends.refuse_native,
        "triton": lambda: "the stream is not on a GPU; io='gpu' puts it there",
    }
    if backends.choose("gather_windows", backend, refusals) == "native":
        windows = out
        if out is None or out.data_ptr() % dtype.itemsize != 0:  # C++ takes aligned numbers only
            windows = torch.empty(len(offsets), length, dtype=dtype)
        try:
            gather_native(stream.symbol_source(), offsets, windows, threads)
        except RuntimeError:
            stream.verify()  # knows which file changed, and says so
            raise
    else:
        reference.check_range(offsets, length, len(stream))
        windows = reference.gather_windows(stream, offsets, length, dtype)
    stream.verify()  # afterwards: what was copied was still what was opened
    return windows if out is None or out is windows else out.copy_(windows)


def _check(stream, offsets, length, dtype, threads) -> None:
    op = "gather_windows"
    if not isinstance(offsets, Tensor):
        raise TypeError(f"{op}: offsets are a {type(offsets).__name__}; an int64 tensor fits")
    if isinstance(stream, Tensor):
        if stream.dtype != torch.uint16:
            raise TypeError(f"{op}: stream is {stream.dtype}; uint16 fits")
        if stream.dim() != 1:
            raise ValueError(f"{op}: stream has shape {tuple(stream.shape)}; (S,) fits")
    elif not hasattr(type(stream), "symbol_source"):  # isinstance of a Protocol takes longer
        raise TypeError(f"{op}: stream is a {type(stream).__name__}; a tensor or U16Stream fits")
    if offsets.dtype != torch.int64:
        raise TypeError(f"{op}: offsets are {offsets.dtype}; int64 fits")
    if offsets.dim() != 1:
        raise ValueError(f"{op}: offsets have shape {tuple(offsets.shape)}; (N,) fits")
    if isinstance(length, bool) or not isinstance(length, int | np.integer | torch.SymInt):
        raise TypeError(f"{op}: length is a {type(length).__name__}; an int fits")
    if not 1 <= length <= len(stream):
        raise ValueError(
            f"{op}: length is {length}; 1 to {len(stream)} fits; stream ({len(stream)},)"
        )
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer | None):
        raise TypeError(f"{op}: threads is a {type(threads).__name__}; an int or None fits")
    if threads is not None and threads < 1:
        raise ValueError(f"{op}: threads is {threads}; at least 1 fits")
    if dtype not in DTYPES:
        raise TypeError(f"{op}: dtype is {dtype}; uint16, int32, int64 or float32 fits")


def _check_devices(stream, resident, offsets, length, dtype, out) -> None:
    """Of the symbols, which are in memory if `resident` is None, the offsets and `out`."""
    op = "gather_windows"
    device = torch.device("cpu") if resident is None else resident.device
    copied = not isinstance(stream, Tensor) and offsets.device.type == "cpu"
    if offsets.device != device and not copied:
        raise ValueError(f"{op}: offsets on {offsets.device}, stream on {device}")
    if out is None:
        return
    if not isinstance(out, Tensor):
        raise TypeError(f"{op}: out is a {type(out).__name__}; a tensor or None fits")
    if out.device != device:
        raise ValueError(f"{op}: out on {out.device}; {device}, as stream, fits")
    if out.dtype != dtype:
        raise TypeError(f"{op}: out is {out.dtype}; dtype {dtype} fits")
    if tuple(out.shape) != (len(offsets), length) or not out.is_contiguous():
        raise ValueError(
            f"{op}: out has shape {tuple(out.shape)} and strides {out.stride()};"
            f" a contiguous {(len(offsets), length)} fits"
        )
