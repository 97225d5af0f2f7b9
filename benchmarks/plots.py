"""Dot charts of the newest rows, one SVG per op and device."""

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from benchmarks import machine
from benchmarks.report import Row, newest

COLOURS = {"contestant": "#0b6e99", "peer": "#9b9a97"}


def draw_all(results: Path, folder: Path) -> list[Path]:
    """Write ``benchmarks-<op>-<device>.svg`` for all stored rows; returns the files."""
    written = []
    for op in sorted({path.stem for path in results.glob("*/*.csv")}):
        rows = sorted(newest(results, op), key=lambda row: row["device"])
        for device, group in groupby(rows, key=lambda row: row["device"]):
            path = folder / f"benchmarks-{op}-{machine.slug(device)}.svg"
            draw(list(group), path)
            written.append(path)
    return written


def draw(rows: Iterable[Row], path: Path) -> None:
    """Rates of one op on one device with their spread, a panel per case, ceilings dashed."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "pyseq", "font.size": 8})
    from matplotlib import pyplot as plt

    panels: dict[str, list[Row]] = {}
    for row in rows:
        if row["role"] != "ceiling":
            case = f"{row['direction']}, {row['shape']}, {row['dtype']}, {row['threads']} threads"
            panels.setdefault(case, []).append(row)
    heights = [len(dots) + 3.5 for dots in panels.values()]
    figure, axes = plt.subplots(
        len(panels),
        figsize=(7, 0.22 * sum(heights) + 0.4),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis, (case, dots) in zip(axes[:, 0], panels.items(), strict=True):
        _panel(axis, case, dots)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _panel(axis, title: str, dots: list[Row]) -> None:
    dots = sorted(dots, key=lambda row: float(row["unit_value"]))
    rates = [float(row["unit_value"]) for row in dots]
    p20, p50, p80 = ([float(row[column]) for row in dots] for column in ("p20", "p50", "p80"))
    slower = [rate - rate * m / hi for rate, m, hi in zip(rates, p50, p80, strict=True)]
    faster = [rate * m / lo - rate for rate, m, lo in zip(rates, p50, p20, strict=True)]
    for place, row in enumerate(dots):
        axis.errorbar(
            rates[place],
            place,
            xerr=[[slower[place]], [faster[place]]],
            fmt="o",
            markersize=4,
            capsize=2,
            elinewidth=0.8,
            color=COLOURS[row["role"]],
        )
    axis.set_yticks(range(len(dots)), [row["backend"] for row in dots])
    axis.set_ylim(-0.7, len(dots) - 0.3)
    fastest = dots[-1]
    if fastest["ceiling_share"]:
        axis.axvline(rates[-1] / float(fastest["ceiling_share"]), color="black", ls="--", lw=0.8)
    axis.set_xscale("log")  # dots, because a bar has no honest beginning on such an axis
    axis.set_title(title, loc="left", fontsize=8)
    axis.set_xlabel(f"{fastest['unit']}; dashed: {fastest['ceiling']}")
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
