"""What a row says about the machine and the software that it was measured on."""

import importlib.metadata
import os
import platform
import re
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
PROC_STAT = Path("/proc/stat")


def describe(device: str, threads: int) -> dict[str, str]:
    """The columns of a row that do not depend on the contestant, from "device" to "date"."""
    on_gpu = device == "cuda"
    return {
        "device": device_name(device),
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        if on_gpu
        else "",
        "cuda": (torch.version.cuda or "") if on_gpu else "",
        "torch": torch.__version__,
        "triton": _version("triton"),
        "python": platform.python_version(),
        "isa": isa(),
        "threads": str(threads),
        "commit": commit(),
        "date": now(),
    }


def now() -> str:
    """The time of a row, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def device_name(device: str) -> str:
    """The GPU's name, or the CPU's model with its number of hardware threads."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    model = _cpuinfo().get("model name") or platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} threads"


def slug(name: str) -> str:
    """A device's name as a folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def isa() -> str:
    """The CPU instruction set that PyTorch dispatches to, with bf16 and amx where present."""
    flags = _cpuinfo().get("flags", "").split()
    extras = {"avx512_bf16": "bf16", "amx_tile": "amx"}
    found = [short for flag, short in extras.items() if flag in flags]
    return "+".join([torch.backends.cpu.get_cpu_capability().lower(), *found])


def commit() -> str:
    """The checkout's commit ("none" before the first), with "+dirty" where files differ from it.

    A copy without git's history is told by PYSEQ_COMMIT what it is a copy of.
    """
    if "PYSEQ_COMMIT" in os.environ:
        return os.environ["PYSEQ_COMMIT"]
    found = _output("git", "rev-parse", "--short=12", "HEAD") or "none"
    rest = (".", ":(exclude)benchmarks/results")  # an earlier run's rows change no measurement
    return found + ("+dirty" if _output("git", "status", "--porcelain", "--", *rest) else "")


def others_share(seconds: float = 1.0) -> float | None:
    """Share of all CPU time that others use while this process sleeps; None without /proc/stat."""
    if not PROC_STAT.exists():
        return None
    busy, total = _cpu_ticks()
    time.sleep(seconds)
    busy_then, total_then = _cpu_ticks()
    return (busy_then - busy) / max(total_then - total, 1)


def _cpu_ticks() -> tuple[int, int]:
    """Ticks that the cores were busy, time stolen by other virtual machines included, and all."""
    user, nice, system, idle, iowait, irq, softirq, steal = map(
        int, PROC_STAT.read_text().split("\n")[0].split()[1:9]
    )
    busy = user + nice + system + irq + softirq + steal
    return busy, busy + idle + iowait


def _cpuinfo() -> dict[str, str]:
    """The first core's entries; empty where there is no /proc/cpuinfo."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _output(*command: str) -> str:
    """First line of what a command prints; empty where it fails or does not exist."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip().partition("\n")[0]
