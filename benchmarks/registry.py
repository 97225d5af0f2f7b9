"""Which ops have a benchmark: the files ``bench_<op>.py`` of this folder."""

import importlib
from pathlib import Path

from benchmarks.harness import Case

PREFIX = "bench_"


def known() -> list[str]:
    """Names of all ops with a benchmark, sorted."""
    files = Path(__file__).parent.glob(PREFIX + "*.py")
    return sorted(file.stem.removeprefix(PREFIX) for file in files)


def cases(op: str, *, quick: bool = False, device: str = "cpu") -> list[Case]:
    """The cases of one of the `known` ops."""
    return importlib.import_module(f"benchmarks.{PREFIX}{op}").cases(quick=quick, device=device)
