"""A thousand million symbols: time and memory of the tests, and of the whole command.

``python -m benchmarks.analysis_scale`` writes a uniform stream of 1e9 symbols into a temporary
folder, runs ``pyseq analyze`` on it in a process of its own, and writes docs/analysis-scale.md.

Expected: the classical tests within two minutes on two cores, less than 1 GiB of memory.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine

DOCS = Path(__file__).parents[1] / "docs"


def main() -> int:
    """Run, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=1_000_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the stream goes; default: temporary")
    parser.add_argument("--out", type=Path, default=DOCS / "analysis-scale.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        stream = Path(folder) / "stream.u16"
        _write(stream, arguments.symbols)
        began = time.perf_counter()
        command = [
            sys.executable, "-m", "pyseq", "analyze", "--u16_path", str(stream),
            "--threads", str(arguments.threads), "--report", f"{folder}/analysis.html",
            "--json", f"{folder}/analysis.json",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - began
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        text = done.stdout.replace(folder, "").replace(os.sep + "stream.u16", "stream.u16")
    found = re.search(r"^seconds: (.*), all", text, flags=re.MULTILINE)
    stages = re.findall(r"([a-z][a-z ]*) ([\d.]+)", found[1] if found else "")
    lines = [
        "# A thousand million symbols" if arguments.symbols == 10**9 else "# Scale",
        "",
        f"`python -m benchmarks.analysis_scale`: `pyseq analyze` on {arguments.symbols:,} uniform "
        f"symbols (PCG64, seed 0), {arguments.threads} threads, {machine.device_name('cpu')}.",
        "",
        "| stage | seconds |",
        "|---|---|",
        *(f"| {name} | {took} |" for name, took in stages),
        f"| the whole command, Python's start included | {seconds:.1f} |",
        "",
        f"Largest resident memory: {memory:.2f} GiB.",
        "",
        "```",
        text.strip("\n"),
        "```",
    ]
    arguments.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


def _write(path: Path, symbols: int) -> None:
    from pyseq.data.streams import Pcg64

    with path.open("wb") as file:
        for chunk in Pcg64().chunks(symbols, 0, 1 << 22):
            file.write(chunk.astype("<u2").tobytes())


if __name__ == "__main__":
    raise SystemExit(main())
