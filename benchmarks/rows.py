"""Rows of measurements: one CSV file per device and op, only ever appended to."""

import csv
import fcntl
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import machine
from benchmarks.harness import Measurement, Timing

RESULTS = Path(__file__).resolve().parent / "results"
# `role` is contestant (ours), peer or ceiling. Times are seconds per call. `ceiling` names the
# ceiling and its unit; a ceiling has rows of its own, in that unit. `ratio` is the best peer's time
# over this one's, within a round.
COLUMNS = (
    *("op", "backend", "role", "direction", "shape", "dtype", "p20", "p50", "p80", "peak_bytes"),
    *("unit", "unit_value", "ceiling", "ceiling_value", "ceiling_share"),
    *("peer", "ratio", "ratio_p20", "ratio_p80"),
    *("device", "driver", "cuda", "torch", "triton", "python", "isa", "threads", "rounds"),
    *("commit", "date"),
)


def store(
    measurements: Sequence[Measurement], results: Path = RESULTS, *, date: str | None = None
) -> Path:
    """Append rows of one run, all of one op and device; returns the file.

    `date` is when the run began (`machine.now()`), now if it is None.
    """
    first = measurements[0]
    description = machine.describe(first.case.device, first.threads)
    description["date"] = date or description["date"]
    path = results / machine.slug(description["device"]) / f"{first.case.op}.csv"
    append(path, [row for measurement in measurements for row in of(measurement, description)])
    return path


def of(measurement: Measurement, description: dict[str, str]) -> list[dict[str, str]]:
    """One row per contestant and ceiling; `description` is `machine.describe(...)`."""
    return [_row(measurement, timing, description) for timing in measurement.timings]


def append(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """Append rows in one write, under a lock; a new file begins with the header.

    Raises:
        ValueError: the file's header is not `COLUMNS`; nothing is written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        header = file.readline().decode().rstrip("\r\n")
        if header and header != ",".join(COLUMNS):
            raise ValueError(f"{path}: header {header!r}; {','.join(COLUMNS)!r} fits")
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        if not header:
            writer.writeheader()
        writer.writerows(rows)
        file.write(text.getvalue().encode())
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[dict[str, str]]:
    """All rows of a file, oldest first.

    Raises:
        ValueError: the header is not `COLUMNS`.
    """
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path}: columns {reader.fieldnames}; {COLUMNS} fit")
        return list(reader)


def _row(measurement: Measurement, timing: Timing, description: dict[str, str]) -> dict[str, str]:
    case, ceiling, peer = measurement.case, measurement.ceiling, measurement.best_peer
    is_ceiling = timing.role == "ceiling"
    p20, p50, p80 = timing.quantiles
    ratio = measurement.ratio(timing) or (None, None, None)
    return {
        "op": case.op,
        "backend": timing.name,
        "role": timing.role,
        "direction": case.direction,
        "shape": case.shape,
        "dtype": case.dtype,
        "p20": _number(p20),
        "p50": _number(p50),
        "p80": _number(p80),
        "peak_bytes": _number(timing.peak_bytes),
        "unit": ceiling.unit if ceiling and is_ceiling else case.unit,
        "unit_value": _number(measurement.unit_value(timing)),
        "ceiling": f"{ceiling.name} ({ceiling.unit})" if ceiling else "",
        "ceiling_value": _number(measurement.ceiling_value(ceiling)) if ceiling else "",
        "ceiling_share": _number(measurement.ceiling_share(timing)),
        "peer": peer.name if peer and not is_ceiling else "",
        "ratio": _number(ratio[1]),
        "ratio_p20": _number(ratio[0]),
        "ratio_p80": _number(ratio[2]),
        **description,
        "rounds": str(len(timing.seconds)),
    }


def _number(value: float | None) -> str:
    """Six digits are more than any of these numbers carries."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"
