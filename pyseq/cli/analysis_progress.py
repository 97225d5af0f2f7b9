"""What the terminal shows while a stream is analysed: a bar, interim lines, how long it took."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pyseq.analysis.analyze_stream import InterimLine, Watcher
from pyseq.analysis.stream_words import p_value_text


class AnalysisProgress(Watcher):
    """A bar on stderr while symbols are read, and a line at each doubling of their number.

    Args:
        console (Console): where lines go.
        level (float): of the verdicts; a line says where a test is below it.
    """

    def __init__(self, console: Console, level: float):
        self._console, self._level = console, level
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self._progress = Progress(
            *columns, console=Console(stderr=True), transient=True,
            disable=not sys.stderr.isatty(),
        )  # fmt: skip
        self._task = self._progress.add_task("reading", total=None)
        self._stage, self._began = "reading", time.monotonic()
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> AnalysisProgress:
        self._progress.start()
        return self

    def __exit__(self, *_) -> None:
        self.stage("")
        self._progress.stop()

    def reading(self, done: int, total: int) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=done, total=total)

    def interim(self, line: InterimLine) -> None:
        """Print where the tests stand."""
        so_far = "structure so far" if line.adjusted <= self._level else "nothing so far"
        self._console.print(
            f"{line.symbols:>15,} symbols: {so_far}; smallest p "
            f"{p_value_text(line.smallest.p_value)} ({line.smallest.name})",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip

    def stage(self, name: str) -> None:
        """Say what is done next, and remember how long the last stage took."""
        now = time.monotonic()
        self.seconds[self._stage] = now - self._began
        self._stage, self._began = name, now
        self._progress.update(self._task, description=name, completed=0, total=None)

    @property
    def times(self) -> str:
        """How long each stage took, in one line."""
        parts = (f"{name} {seconds:,.1f}" for name, seconds in self.seconds.items() if name)
        return "seconds: " + ", ".join(parts)
