"""`pyseq doctor`: what this machine can run, and why not."""

import importlib.metadata
import os
import platform

from rich.console import Console
from rich.table import Table


def main(arguments: list[str]) -> int:
    """Print versions, devices and the table of backends."""
    if arguments:
        print("usage: pyseq doctor\n\nShows which backends serve which op on this machine.")
        return 0 if arguments in (["-h"], ["--help"]) else 2
    import torch

    from pyseq import __version__
    from pyseq.ops import backends

    console = Console(highlight=False)
    packages = ("torch", "triton", "numpy", "lightning", "safetensors")
    versions = ", ".join(f"{name} {_version(name)}" for name in packages)
    console.print(f"pyseq {__version__} on Python {platform.python_version()}, {versions}")
    threads = torch.get_num_threads()
    native, triton = _native_reason(backends), _triton_reason(torch, backends)
    kernels = "" if native else f", kernels for {_instruction_set(backends)}"
    console.print(f"CPU: {os.cpu_count()} cores, {threads} torch threads{kernels}; {_gpus(torch)}")
    table = Table(title="which backend serves which op")
    for column in ("op", "reference", "native (CPU)", "triton (GPU)"):
        table.add_column(column)
    for op, served in backends.SERVED_BY.items():
        cells = [_cell(name in served, reason) for name, reason in
                 (("native", native), ("triton", triton))]  # fmt: skip
        table.add_row(op, "yes", *cells)
    console.print(table)
    if os.environ.get("PYSEQ_BACKEND"):
        console.print(f'PYSEQ_BACKEND={os.environ["PYSEQ_BACKEND"]} replaces "auto"')
    for name, reason in (("native", native), ("triton", triton)):
        if reason:
            console.print(f"{name}: {reason}", markup=False, soft_wrap=True)
    if words := backends.build_error():
        console.print("\nthe last build of pyseq._core failed; it said:\n")
        console.print(words, markup=False, soft_wrap=True)
    return 0


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _gpus(torch) -> str:
    if not torch.cuda.is_available():
        return "no GPU that torch can use"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def _native_reason(backends) -> str | None:
    try:
        return backends.refuse_native()
    except ValueError as error:  # PYSEQ_ISA
        return str(error)


def _instruction_set(backends) -> str:
    core = backends.core()
    return f"{core.isa()} (PYSEQ_ISA: {', '.join(core.isas())})"


def _triton_reason(torch, backends) -> str | None:
    if (reason := backends.refuse_triton()) is not None:
        return reason
    return None if torch.cuda.is_available() else "no GPU that torch can use"


def _cell(written: bool, reason: str | None) -> str:
    if not written:
        return "not written yet"
    return "yes" if reason is None else "no"
