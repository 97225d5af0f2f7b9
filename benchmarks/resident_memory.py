"""Resident memory while a loader goes through a file: ``python -m benchmarks.resident_memory``.

Each io mode, and numpy's gather from a memory map beside them, reads random windows of one file of
3 GiB in a process of its own, and looks at its memory on the way. ``--save`` appends the rows to
``benchmarks/results/<device>/resident_memory/rows.csv`` and draws the plot in docs/.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks import machine, rows
from pyseq.data import U16Stream, WindowLoader

MODES = ("mmap", "pread", "ram", "numpy")
SYMBOLS = 3 << 29  # 3 GiB
BATCH, LENGTH, BATCHES = 256, 1024, 400
LOOKS = 80
PLOT = rows.RESULTS.parents[1] / "docs" / "resident-memory.svg"


@dataclass(frozen=True)
class Look:
    """One look at a process's memory.

    Attributes:
        mode (str): who reads.
        symbols (int): gathered so far.
        seconds (float): since the first batch was asked for.
        resident_bytes (int): of the process, beyond what it had before the stream was opened.
        file_bytes (int): those of them that are pages of files.
    """

    mode: str
    symbols: int
    seconds: float
    resident_bytes: int
    file_bytes: int


def measure(mode: str, path: Path, batches: int = BATCHES) -> list[Look]:
    """Go through some batches in this process; every result is dropped before the next."""
    before = _memory()
    if mode == "numpy":
        following = _numpy_batches(path)
    else:
        following = iter(WindowLoader(U16Stream(path, io=mode), LENGTH, BATCH, seed=1))
    began, looks = time.perf_counter(), []
    for number in range(batches):
        next(following)
        if number % max(1, batches // LOOKS) == 0:
            now = _memory()
            looks.append(
                Look(
                    mode,
                    symbols=(number + 1) * BATCH * LENGTH,
                    seconds=time.perf_counter() - began,
                    resident_bytes=now["VmRSS"] - before["VmRSS"],
                    file_bytes=now["RssFile"] - before["RssFile"],
                )
            )
    return looks


def measure_each(symbols: int = SYMBOLS, batches: int = BATCHES) -> list[Look]:
    """Every mode in a process of its own, one after the other, on one file."""
    with tempfile.TemporaryDirectory(prefix="pyseq-benchmark-") as folder:
        path = Path(folder) / "stream.u16"
        with path.open("wb") as file:
            generator = np.random.default_rng(0)
            for first in range(0, symbols, 1 << 24):
                count = min(1 << 24, symbols - first)
                file.write(generator.integers(0, 1 << 16, count, np.uint16).tobytes())
        looks = []
        for mode in MODES:
            line = [sys.executable, "-m", "benchmarks.resident_memory", "--mode", mode]
            line += ["--path", str(path), "--batches", str(batches)]
            done = subprocess.run(line, check=True, capture_output=True, text=True)
            looks += [Look(**found) for found in json.loads(done.stdout)]
        return looks


def store(looks: list[Look], results: Path = rows.RESULTS) -> Path:
    """Append the rows; returns the file."""
    about = machine.describe("cpu", torch.get_num_threads())
    path = results / machine.slug(about["device"]) / "resident_memory" / "rows.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [*Look.__annotations__, *about], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows({**asdict(look), **about} for look in looks)
    return path


def draw(looks: list[Look], path: Path = PLOT) -> None:
    """Resident memory over what was gathered, a line per mode."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "pyseq", "font.size": 8})
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
    for mode in MODES:
        mine = [look for look in looks if look.mode == mode]
        axis.plot(
            [look.symbols / 1e6 for look in mine],
            [look.resident_bytes / 2**30 for look in mine],
            label="numpy.memmap" if mode == "numpy" else f'io="{mode}"',
            linestyle="--" if mode == "numpy" else "-",
        )
    axis.set_xlabel(f"million symbols gathered, {BATCH} windows of {LENGTH} at a time")
    axis.set_ylabel("GiB resident, beyond Python's")
    axis.legend(frameon=False)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _numpy_batches(path: Path):
    data, generator = np.memmap(path, np.uint16, mode="r"), np.random.default_rng(0)
    views = np.lib.stride_tricks.sliding_window_view(data, LENGTH)
    while True:
        yield views[generator.integers(0, len(views), BATCH)].astype(np.int64)


def _memory() -> dict[str, int]:
    """Bytes by the fields of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "RssFile")}


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.resident_memory", description=__doc__
    )
    parser.add_argument("--save", action="store_true", help="append rows and draw the plot")
    parser.add_argument("--batches", type=int, default=BATCHES)
    parser.add_argument("--mode", choices=MODES, help="only this one, in this process, as JSON")
    parser.add_argument("--path", type=Path, help="of the file, with --mode")
    asked = parser.parse_args(arguments)
    if asked.mode:
        looks = measure(asked.mode, asked.path, asked.batches)
        print(json.dumps([asdict(look) for look in looks]))
        return 0
    looks = measure_each(batches=asked.batches)
    for mode in MODES:
        mine = [look for look in looks if look.mode == mode]
        most = max(look.resident_bytes for look in mine) / 2**30
        rate = mine[-1].symbols / mine[-1].seconds / 1e6
        print(f"{mode}: at most {most:.3f} GiB resident; {rate:.0f} Msymbols/s")
    if asked.save:
        print(f"rows appended to {store(looks)}")
        draw(looks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
