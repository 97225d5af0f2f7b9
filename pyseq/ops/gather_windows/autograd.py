"""gather_windows of a tensor as a registered op; symbols are integers, so there is no gradient."""

import torch
from torch import Tensor

from pyseq.kernels.gather_windows import limits
from pyseq.ops import backends, registration
from pyseq.ops.gather_windows import reference

_SIGNATURE = "(Tensor stream, Tensor offsets, int length, ScalarType dtype, str backend) -> Tensor"


def _forward(stream: Tensor, offsets: Tensor, length: int, dtype: torch.dtype, backend: str):
    if stream.device.type == "cpu":
        reference.check_range(offsets, length, len(stream))
    match backends.choose("gather_windows", backend, _refusals(stream, length)):
        case "native":
            windows = torch.empty(offsets.numel(), length, dtype=dtype)
            source = backends.core().source_in_memory([stream.contiguous().numpy()])
            gather_native(source, offsets, windows)
            return windows
        case "triton":
            from pyseq.kernels.gather_windows.forward import gather_windows_forward

            return gather_windows_forward(stream.contiguous(), offsets.contiguous(), length, dtype)
    return reference.gather_windows(stream, offsets, length, dtype)


def gather_native(source, offsets: Tensor, out: Tensor, threads: int | None = None) -> None:
    """Fill `out` from a `_core.SymbolSource`; the GIL is free meanwhile."""
    threads = torch.get_num_threads() if threads is None else threads
    backends.core().gather_windows(source, offsets.contiguous().numpy(), out.numpy(), threads)


def _refusals(stream: Tensor, length: int) -> dict[str, backends.Refusal]:
    on_cpu = stream.device.type == "cpu"
    return {
        "triton": backends.triton_refusal(stream, lambda: limits.refuse(length)),
        "native": lambda: (
            backends.refuse_native() if on_cpu else f"the stream is on {stream.device}, not on cpu"
        ),
    }


def _fake(stream, offsets, length, dtype, backend):
    return torch.empty(offsets.shape[0], length, dtype=dtype, device=stream.device)


registration.define("gather_windows", _SIGNATURE, _forward, _fake)
