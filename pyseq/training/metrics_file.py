"""metrics.jsonl and metrics.csv of a run: the same rows, one for programs, one for people."""

import csv
import json
from pathlib import Path
from typing import Any

from pyseq.data.durable_file import replace_file, sync
from pyseq.errors import UserError

COLUMNS = (
    "step",
    "epoch",
    "symbols",  # trained on so far, repeats counted
    "seconds",
    "train_bits",
    "val_bits",
    "lr",
    "symbols_per_second",
    "data_wait_share",  # share of the time spent waiting for batches
    "memory_mib",  # peak of the process, or of the GPU's allocator
)


class MetricsFile:
    """Appends rows; on resume those past the checkpoint's step are dropped first.

    Args:
        folder (Path): the run folder.
        keep_until (int): rows of later steps are dropped; 0 starts anew.
        columns (tuple of str): all that a row may have, one of them "step".

    Raises:
        UserError: the files cannot be written; those that were there are left as they were.
    """

    def __init__(self, folder: Path, keep_until: int = 0, columns: tuple[str, ...] = COLUMNS):
        self.columns = columns
        self._jsonl, self._csv = folder / "metrics.jsonl", folder / "metrics.csv"
        rows = [row for row in self.read(folder) if row["step"] <= keep_until]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        replace_file(self._jsonl, lambda path: path.write_text(text))
        replace_file(self._csv, lambda path: _write_csv(path, rows, columns))

    @staticmethod
    def read(folder: Path) -> list[dict[str, Any]]:
        """All rows so far; what a kill or a power cut made of the last ones is left out."""
        path = folder / "metrics.jsonl"
        rows = []
        for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def append(self, row: dict[str, Any]) -> None:
        """Add a row; columns may be missing, but none may be unknown.

        Raises:
            UserError: a file cannot be written.
            ValueError: an unknown column.
        """
        unknown = set(row) - set(self.columns)
        if unknown:
            raise ValueError(f"unknown metric columns {sorted(unknown)}; known: {self.columns}")
        try:
            with self._jsonl.open("a") as file:
                file.write(json.dumps(row) + "\n")
            with self._csv.open("a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(row)
        except OSError as error:
            raise UserError(
                f"{self._jsonl} and .csv cannot be written: {error.strerror}"
            ) from error

    def sync(self) -> None:
        """Force the rows to the disk."""
        for path in (self._jsonl, self._csv):
            sync(path)


def _write_csv(path: Path, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
