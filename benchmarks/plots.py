"""Bar charts of the newest rows, one SVG per op and device."""

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
    heights = [len(bars) + 2 for bars in panels.values()]
    figure, axes = plt.subplots(
        len(panels),
        figsize=(7, 0.22 * sum(heights) + 0.4),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis, (case, bars) in zip(axes[:, 0], panels.items(), strict=True):
        _panel(axis, case, bars)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _panel(axis, title: str, bars: list[Row]) -> None:
    bars = sorted(bars, key=lambda row: float(row["unit_value"]))
    rates = [float(row["unit_value"]) for row in bars]
    p20, p50, p80 = ([float(row[column]) for row in bars] for column in ("p20", "p50", "p80"))
    slower = [rate - rate * m / hi for rate, m, hi in zip(rates, p50, p80, strict=True)]
    faster = [rate * m / lo - rate for rate, m, lo in zip(rates, p50, p20, strict=True)]
    axis.barh(
        [row["backend"] for row in bars],
        rates,
        xerr=(slower, faster),
        color=[COLOURS[row["role"]] for row in bars],
        error_kw={"elinewidth": 0.8, "capsize": 2},
    )
    fastest = bars[-1]
    if fastest["ceiling_share"]:
        axis.axvline(rates[-1] / float(fastest["ceiling_share"]), color="black", ls="--", lw=0.8)
    axis.set_xscale("log")
    axis.set_title(f"{title}: {fastest['unit']}; dashed: {fastest['ceiling']}", loc="left")
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
