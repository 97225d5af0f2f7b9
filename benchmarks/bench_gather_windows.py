"""gather_windows against the ways people read windows of a u16 file today.

The file is in the page cache; offsets and outputs rotate past the processor's caches.

On a GPU the stream is a tensor in its memory, and the calls of one rotation are replayed from a
CUDA graph. Floor at B=4096 T=1024, int64: 8.4 MB are read and 33.6 MB written, at 4.3 TB/s 9.8 us;
at B=256 0.6 us, less than a launch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from benchmarks import attention, ceilings, graphs, windows
from benchmarks.harness import Call, Case, Contestant, WrongAnswer, results_past_cache, rotate
from benchmarks.windows import IO_MODES, Inputs
from pyseq.ops import gather_windows

SHAPES = ((256, 1024), (512, 128), (64, 256))
DTYPES = (torch.int64, torch.uint16)
SYMBOLS = 1 << 27  # 256 MiB
MOST_SETS = 32  # of offsets, in a GPU's graph
GPU_SHAPES = ((256, 1024), (4096, 1024))
QUICK_SHAPES = ((16, 128),)
QUICK_SYMBOLS = 1 << 20


def cases(quick: bool = False, device: str = "cpu", symbols: int | None = None) -> list[Case]:
    """Every shape and output dtype: of a file on the CPU, of a tensor on a GPU.

    Triton's interpreter, where it is asked for, stands for a GPU at small sizes.
    """
    symbols = symbols or (QUICK_SYMBOLS if quick else SYMBOLS)
    shapes = QUICK_SHAPES if quick else SHAPES if device == "cpu" else GPU_SHAPES
    make = _case if device == "cpu" else partial(_tensor_case, device, quick)
    found = [make(*shape, dtype, symbols) for shape in shapes for dtype in DTYPES]
    if device == "cpu" and "triton" in attention.backends_on("gather_windows", device, quick):
        found.append(_tensor_case(device, quick, 3, 70, torch.int64, symbols))
    return found


def _case(batch: int, length: int, dtype: torch.dtype, symbols: int) -> Case:
    tokens = batch * length
    result_bytes = tokens * dtype.itemsize
    contestants = [
        *(Contestant(f"native {io}", partial(_gather, io, "native")) for io in IO_MODES),
        Contestant("reference ram", partial(_gather, "ram", "reference")),
        *windows.peers(dtype),
    ]
    return Case(
        op="gather_windows",
        direction="forward",
        shape=f"B={batch} T={length}",
        dtype=str(dtype).removeprefix("torch."),
        inputs=partial(windows.file_inputs, batch, length, dtype, symbols),
        contestants=contestants,
        check=windows.check,
        unit="tokens/s",
        work=tokens,
        ceilings=windows.ceilings(result_bytes),
        ceiling_work=result_bytes / 1e9,
        result_bytes=result_bytes,
        checked_calls=3,
    )


def _gather(io: str, backend: str, inputs: Inputs) -> Call:
    stream, following = inputs.streams[io], rotate(inputs.offsets)

    def call():
        offsets = following()
        windows = gather_windows(
            stream, offsets, inputs.length, dtype=inputs.dtype, backend=backend
        )
        return offsets, windows

    return call


@dataclass(frozen=True)
class TensorInputs:
    """A stream in a device's memory, and the offsets that calls go through."""

    stream: torch.Tensor  # (S,) uint16
    length: int
    dtype: torch.dtype
    offsets: list[torch.Tensor]  # each (B,) int64


def _tensor_case(
    device: str, quick: bool, batch: int, length: int, dtype: torch.dtype, symbols: int
) -> Case:
    tokens = batch * length
    moved = tokens * (torch.uint16.itemsize + dtype.itemsize) / 1e9
    ours = attention.backends_on("gather_windows", device, quick)
    peers = {"unfold": _unfold, "index": _index}
    return Case(
        op="gather_windows",
        direction="forward",
        shape=f"B={batch} T={length} of a tensor",
        dtype=str(dtype).removeprefix("torch."),
        inputs=partial(_tensor_inputs, device, batch, length, dtype, symbols),
        contestants=[
            *(Contestant(name, partial(_gather_tensor, name, device)) for name in ours),
            *(
                Contestant(name, partial(_peer_tensor, read, device), peer=True, optional=True)
                for name, read in peers.items()
            ),
        ],
        check=_check_tensor,
        unit="tokens/s",
        work=tokens,
        ceilings=ceilings.memory(device, quick),
        ceiling_work=moved,
        checked_calls=3,
        device=device,
    )


@contextmanager
def _tensor_inputs(
    device: str, batch: int, length: int, dtype: torch.dtype, symbols: int
) -> Iterator[TensorInputs]:
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, 1 << 16, symbols, np.uint16)
    sets = min(MOST_SETS, results_past_cache(batch * length * dtype.itemsize, device))
    offsets = generator.integers(0, symbols - length, (sets, batch))
    offsets[:, 0], offsets[:, -1] = 0, symbols - length  # the ends of the stream too
    yield TensorInputs(
        torch.from_numpy(drawn).to(device),
        length,
        dtype,
        list(torch.from_numpy(offsets).to(device)),
    )


def _check_tensor(inputs: TensorInputs, result: tuple[int, dict[str, torch.Tensor]]) -> None:
    """Refuse unless every symbol is that of the stream, in the dtype that was asked for."""
    number, windows = result[0], result[1]["windows"]
    if windows.dtype != inputs.dtype:
        raise WrongAnswer(f"dtype {windows.dtype}")
    stream, found = inputs.stream.cpu().numpy(), windows.cpu().numpy()
    views = np.lib.stride_tricks.sliding_window_view(stream, inputs.length)
    if not np.array_equal(found, views[inputs.offsets[number].cpu().numpy()]):
        raise WrongAnswer("symbols differ from those of the stream")


def _gather_tensor(backend: str, device: str, inputs: TensorInputs) -> Call:
    def gather(offsets: torch.Tensor) -> dict[str, torch.Tensor]:
        windows = gather_windows(
            inputs.stream, offsets, inputs.length, dtype=inputs.dtype, backend=backend
        )
        return {"windows": windows}

    return graphs.each_set(gather, [(x,) for x in inputs.offsets], device)


def _peer_tensor(read: Callable[..., torch.Tensor], device: str, inputs: TensorInputs) -> Call:
    # uint16 cannot be index-selected; int16 with its sign taken off again can.
    signed = inputs.stream.view(torch.int16)

    def gather(offsets: torch.Tensor) -> dict[str, torch.Tensor]:
        found = read(signed, offsets, inputs.length)
        unsigned = found.view(torch.uint16)
        return {"windows": unsigned if inputs.dtype == torch.uint16 else unsigned.to(inputs.dtype)}

    return graphs.each_set(gather, [(x,) for x in inputs.offsets], device)


def _unfold(stream: torch.Tensor, offsets: torch.Tensor, length: int) -> torch.Tensor:
    return stream.unfold(0, length, 1)[offsets]


def _index(stream: torch.Tensor, offsets: torch.Tensor, length: int) -> torch.Tensor:
    return stream[offsets[:, None] + torch.arange(length, device=offsets.device)]
