"""Which ops have a benchmark: the files ``bench_<op>.py`` of this folder."""

import importlib
from pathlib import Path

from benchmarks.harness import Case

PREFIX = "bench_"
# Which have no cases on a GPU.
CPU_ONLY = {"feed_forward", "lstm", "softmax_attention", "window_loader"}


def known() -> list[str]:
    """Names of all ops with a benchmark, sorted."""
    files = Path(__file__).parent.glob(PREFIX + "*.py")
    return sorted(file.stem.removeprefix(PREFIX) for file in files)


def on_gpu() -> list[str]:
    """Names of those that time something on a GPU, sorted."""
    return [op for op in known() if op not in CPU_ONLY]


def cases(op: str, *, quick: bool = False, device: str = "cpu") -> list[Case]:
    """The cases of one of the `known` ops."""
    return importlib.import_module(f"benchmarks.{PREFIX}{op}").cases(quick=quick, device=device)
