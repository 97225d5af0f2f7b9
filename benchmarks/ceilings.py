"""What the machine could do at most: copies, reads and matrix products, among the contestants."""

from functools import partial
from typing import Any

import torch

from benchmarks.harness import Call, Ceiling
from pyseq.ops import backends

COPIED_BYTES = {"cuda": 1 << 30, "cpu": 1 << 28}  # many times the last cache
GEMM_SIZE = {"cuda": 8192, "cpu": 2048}
PEAK_TASKS = 64  # of a tenth of a millisecond each
QUICK_BYTES, QUICK_GEMM = 1 << 16, 64


def memory(device: str, quick: bool, *, reads: bool = False) -> list[Ceiling]:
    """Copy rate, bytes read plus bytes written; with `reads` also the rate of reading alone."""
    size = QUICK_BYTES if quick else COPIED_BYTES[device]
    ceilings = [Ceiling("copy", "GB/s", 2 * size / 1e9, partial(_copy, device, size))]
    if reads:
        ceilings.append(Ceiling("read", "GB/s", size / 1e9, partial(_read, device, size)))
    return ceilings


def gemm(device: str, quick: bool, dtype: torch.dtype) -> list[Ceiling]:
    """A square matrix product in `dtype`."""
    n = QUICK_GEMM if quick else GEMM_SIZE[device]
    name = f"{str(dtype).removeprefix('torch.')} GEMM"
    return [Ceiling(name, "TFLOP/s", 2 * n**3 / 1e12, partial(_gemm, device, dtype, n))]


def arithmetic(device: str, quick: bool, dtype: torch.dtype) -> list[Ceiling]:
    """A matrix product, and on the CPU also the peak of the instructions that our kernels use.

    Those are multiply-adds between registers: of float32, or of bfloat16 where the CPU multiplies
    that, by AMX tiles or dot products. Kernels that make float32 of six products of bfloat16, as
    ours do with AMX, can pass the float32 peak.
    """
    found = gemm(device, quick, dtype) if multiplies(device, dtype) else []
    if device == "cpu" and backends.refuse_native() is None:
        name = str(dtype).removeprefix("torch.")
        tasks = 1 if quick else PEAK_TASKS
        amount = tasks * backends.core().peak(name, 1, 1) / 1e12
        found.append(Ceiling(f"{name} peak", "TFLOP/s", amount, partial(_peak, name, tasks)))
    return found


def multiplies(device: str, dtype: torch.dtype) -> bool:
    """Whether PyTorch's matrix products of `dtype` are worth waiting for there.

    Those of bfloat16 take minutes on a CPU that has no instructions for them.
    """
    if device == "cuda" or dtype == torch.float32 or backends.refuse_native() is not None:
        return True
    return backends.core().isa() in ("avx512_bf16", "amx")


def _peak(dtype: str, tasks: int, _: Any) -> Call:
    return lambda: backends.core().peak(dtype, tasks, torch.get_num_threads())


def _copy(device: str, size: int, _: Any) -> Call:
    source = torch.randint(-100, 100, (size,), dtype=torch.int8, device=device)
    target = torch.ones_like(source)
    return lambda: target.copy_(source)


def _read(device: str, size: int, _: Any) -> Call:
    source = torch.randn(size // 4, device=device)
    return source.sum


def _gemm(device: str, dtype: torch.dtype, n: int, _: Any) -> Call:
    left, right = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=out)
