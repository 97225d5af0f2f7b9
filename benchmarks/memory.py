"""Peak memory of one call, and the size of the caches.

On the CPU the peak is the growth of the process's resident set during the call, over what was
resident just before: Linux keeps the high-water mark (VmHWM), and writing 5 to
``/proc/self/clear_refs`` sets it back to the present size. Free heap is given back to the system
first, or a call could live on memory that an earlier one left resident. So it counts whatever
anybody allocates and touches (torch, numpy, C++, threads), and pages of mapped files that this
call touches for the first time, but no other process, such as a DataLoader's workers. The kernel
keeps the count per core in batches: a fraction of a megabyte is noise.
On CUDA the peak is that of torch's allocator, over what was allocated before.
"""

import ctypes
import gc
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch


def peak_extra_bytes(call: Callable[[], Any], device: str = "cpu") -> int | None:
    """Bytes that `call` needs at its peak beyond what is held between calls.

    Returns:
        int | None: bytes; None where the system keeps no resettable high-water mark.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    _give_back_free_heap()
    try:
        Path("/proc/self/clear_refs").write_text("5")
        resident = _status_bytes("VmRSS")
        call()
        return max(0, _status_bytes("VmHWM") - resident)
    except OSError:
        call()
        return None


@cache
def cache_bytes(device: str = "cpu") -> int:
    """Size of the largest cache: of the first core on the CPU (32 MiB if unknown), L2 on CUDA."""
    if device == "cuda":
        return torch.cuda.get_device_properties(0).L2_cache_size
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    units = {"K": 2**10, "M": 2**20}
    found = [size.read_text().strip() for size in sizes]
    return max((int(size[:-1]) * units[size[-1]] for size in found), default=32 * 2**20)


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def _give_back_free_heap() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)
