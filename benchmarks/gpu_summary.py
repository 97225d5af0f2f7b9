"""One page about a run of ``gpu.sh``: ``python -m benchmarks.gpu_summary FOLDER``.

FOLDER holds what the steps left: steps.tsv, tests*.xml, not_collected.txt, logs and results. The
page says what ran on what, how the tests ended, and for every case of every op how the best of ours
stands against the best peer, its ceiling and the target. It exits with 1 if a test failed.
"""

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import registry, report, rows, table

Row = report.Row

MOST_FAILURES = 20  # named on the page; the XML has all
MOST_CHARACTERS = 11_000
MOST_WORDS = 180  # characters of one of them
CASE = ("direction", "shape", "dtype")


@dataclass(frozen=True)
class Target:
    """What a case is to reach: ratios to the best peer, one after the other, or shares.

    Args:
        op, direction (str): of the row.
        needle (str): what its shape contains.
        ratios (tuple of float): against the best peer, from the first goal to the last.
        share (float | None): of the ceiling.
        memory (float | None): at most this share of the fastest peer's peak memory.
    """

    op: str
    direction: str
    needle: str
    ratios: tuple[float, ...]
    share: float | None = None
    memory: float | None = None


TARGETS = (
    Target("cosine_attention", "forward", "T=8192 D=128", (0.65, 0.9, 1.0)),
    Target("cosine_attention", "forward", "T=8192 D=64", (0.9, 1.1)),
    Target("cosine_attention", "forward+backward", "T=8192 D=128", (0.55, 0.8)),
    Target("cosine_attention", "forward+backward", "T=8192 D=64", (0.9, 1.1)),
    Target("hard_attention", "forward", "T=8192", (1.3, 1.9)),
    Target("patch_embed", "forward", "T=65536", (1.3,), share=0.85),
    Target("scale_cross_entropy", "forward+backward", "scales=1", (1.0,), memory=0.15),
)
RIVALS = {"cosine_attention": "FlexAttention"}  # to be ahead of throughout


def page(folder: Path) -> tuple[str, bool]:
    """The page, and whether every test and case was right."""
    tests, all_passed = _tests(folder)
    found = {path.stem: rows.read(path) for path in sorted(folder.glob("results/*/*.csv"))}
    lines = ["# GPU run", "", *_machine(found), "", "## Steps", "", *_steps(folder), ""]
    lines += ["## Tests", "", *tests, "", "## Failed or left out", "", *_failed_cases(folder)]
    lines += [
        "",
        "## Speed",
        "",
        "Ratio: time of the fastest peer over that of the best of ours, above 1 is faster;"
        " median [20th, 80th percentile] over rounds.",
        "",
        "| case | best of ours | time | against the fastest peer | of ceiling | target |",
        "|---|---|---|---|---|---|",
    ]
    for op in registry.on_gpu():
        cases = list(_cases(found.get(op, [])))
        lines += [_line(op, case) for case in cases] or [f"| {op} | no row | - | - | - | - |"]
    tiles = [
        _fastest(name, case)
        for name in found
        if name not in registry.known()
        for case in _cases(found[name])
    ]
    if tiles:
        lines += ["", "## Tiles", "", "The fastest, and its ratio to what there is.", "", *tiles]
    text = "\n".join(lines)
    if len(text) > MOST_CHARACTERS:
        text = text[:MOST_CHARACTERS] + "\n\n(cut; the archive has the rest)"
    return text, all_passed


def _fastest(name: str, case: list[Row]) -> str:
    """What `benchmarks.tune` found best in one case."""
    best = min(case, key=lambda row: float(row["p50"]))
    words = " ".join((name, *(best[column] for column in CASE)))
    ratio = f"{float(best['ratio']):.3f}x" if best["ratio"] else "no ratio"
    return f"- {words}: {best['backend']}, {ratio} of {len(case)}"


def _machine(found: dict[str, list[Row]]) -> list[str]:
    stored = [row for each in found.values() for row in each]
    if not stored:
        return ["No row was stored."]
    newest = max(stored, key=lambda row: row["date"])
    software = [f"torch {newest['torch']}", f"Triton {newest['triton']}"]
    software += [f"CUDA {newest['cuda']}, driver {newest['driver']}"] if newest["cuda"] else []
    return [
        f"{newest['device']}; Python {newest['python']}, {', '.join(software)};"
        f" commit {newest['commit']}; {newest['date']}; {newest['rounds']} rounds."
    ]


def _steps(folder: Path) -> list[str]:
    path = folder / "steps.tsv"
    if not path.exists():
        return ["None."]
    steps = [line.split("\t") for line in path.read_text().splitlines()]
    return ["; ".join(f"{name}: {status}, {seconds} s" for name, status, seconds in steps) + "."]


def _tests(folder: Path) -> tuple[list[str], bool]:
    """Counts, failures by name, and files that were not collected."""
    missing = folder / "not_collected.txt"
    lines = []
    if missing.exists():
        for line in missing.read_text().splitlines():
            file, modules = line.split("\t")
            lines.append(f"- not collected: {file}, which needs {modules}")
    asked = {log.stem for log in folder.glob("logs/tests*.log")}
    found = {path.stem: path for path in sorted(folder.glob("tests*.xml"))}
    lines += [f"- {name} left no result" for name in sorted(asked - set(found))]
    if not found:
        return ["No result.", *lines], not asked
    trees = [ElementTree.parse(path).getroot() for path in found.values()]
    # One without a name was running when the tests were stopped.
    cases = [case for tree in trees for case in tree.iter("testcase") if case.get("name")]
    bad = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = sum(c.find("skipped") is not None for c in cases)
    passed = len(cases) - len(bad) - skipped
    lines.insert(0, f"{passed} passed, {len(bad)} failed, {skipped} skipped.")
    for case in bad[:MOST_FAILURES]:
        child = case.find("failure")
        child = case.find("error") if child is None else child
        words = _first_line("" if child is None else child.get("message") or "")
        name = f"{case.get('classname')}::{case.get('name')}"
        lines.append(f"- {name}: {words}"[:MOST_WORDS])
    if len(bad) > MOST_FAILURES:
        lines.append(f"- and {len(bad) - MOST_FAILURES} more")
    return lines, not bad and asked <= set(found)


def _cases(found: list[Row]) -> Iterator[list[Row]]:
    """The newest rows of each case."""
    newest: dict[tuple[str, ...], Row] = {}
    for row in found:
        newest[tuple(row[c] for c in (*CASE, "role", "backend"))] = row
    in_order = list(newest.values())
    keys = list(dict.fromkeys(tuple(row[c] for c in CASE) for row in in_order))
    for key in keys:
        yield [row for row in in_order if tuple(row[c] for c in CASE) == key]


def _line(op: str, case: list[Row]) -> str:
    first = case[0]
    name = f"{op} {first['direction']}, {first['shape']}, {first['dtype']}"
    ours = [row for row in case if row["role"] == "contestant"]
    if not ours:
        return f"| {name} | none of ours ran | - | - | - | - |"
    best = min(ours, key=lambda row: float(row["p50"]))
    against = "no peer"
    if best["ratio"]:
        ratio = table.ratio(*(float(best[c]) for c in ("ratio_p20", "ratio", "ratio_p80")))
        against = f"{ratio} {best['peer']}"
    time = table.duration(*(float(best[c]) for c in ("p20", "p50", "p80")))
    share = table.percent(float(best["ceiling_share"])) if best["ceiling_share"] else "-"
    return f"| {name} | {best['backend']} | {time} | {against} | {share} | {_verdict(best, case)} |"


def _verdict(best: Row, case: list[Row]) -> str:
    """What the target asks for, and whether it is reached."""
    parts = []
    for target in TARGETS:
        words = best["shape"].split()
        fits = (target.op, target.direction) == (best["op"], best["direction"])
        if not fits or not set(target.needle.split()) <= set(words):
            continue
        if best["ratio"]:
            parts.append(_steps_reached(float(best["ratio"]), target.ratios))
        if target.share is not None and best["ceiling_share"]:
            reached = float(best["ceiling_share"]) >= target.share
            parts.append(f"{target.share:.0%} of ceiling: {_word(reached)}")
        if target.memory is not None:
            parts += _memory(best, case, target.memory)
    rival = RIVALS.get(best["op"])
    for row in case:
        if rival and row["backend"].startswith(rival):
            times = float(row["p50"]) / float(best["p50"])
            parts.append(f"ahead of {rival}: {_word(times > 1)} ({table.digits(times)}x)")
    return "; ".join(parts) or "-"


def _steps_reached(ratio: float, goals: tuple[float, ...]) -> str:
    return ", ".join(f"{goal}x {_word(ratio >= goal)}" for goal in goals)


def _memory(best: Row, case: list[Row], most: float) -> list[str]:
    peer = next((row for row in case if row["backend"] == best["peer"]), None)
    if peer is None or not peer["peak_bytes"] or not best["peak_bytes"]:
        return []
    share = int(best["peak_bytes"]) / max(1, int(peer["peak_bytes"]))
    return [f"{most:.0%} of its peak memory: {_word(share < most)} ({share:.0%})"]


def _word(reached: bool) -> str:
    return "reached" if reached else "NOT reached"


def _failed_cases(folder: Path) -> list[str]:
    """What the benchmarks' logs say of contestants without a row and of cases that failed.

    Of tiles only what was wrong: that many do not fit is no news.
    """
    lines: list[str] = []
    for log in sorted([*folder.glob("logs/bench_*.log"), *folder.glob("logs/tune.log")]):
        op, text = log.stem.removeprefix("bench_"), log.read_text()
        lines += re.findall(r"^benchmarks: (.*)$", text, re.MULTILINE)
        lines += re.findall(r"^(.*: wrong: .*)$", text, re.MULTILINE)
        who: dict[str, list[str]] = {}
        for name, why in re.findall(r"^left out: (.*?): (.*)$", text, re.MULTILINE):
            if op == "tune" and "is wrong" not in why:
                continue
            who.setdefault(why.removeprefix(f"{op}: "), []).append(name)
        for why, names in who.items():
            lines.append(f"{op}, {', '.join(dict.fromkeys(names))}: {why}")
    return [f"- {line[:MOST_WORDS]}" for line in lines[:MOST_FAILURES]] or ["Nothing."]


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0]


def main(arguments: list[str]) -> int:
    """Print the page of a folder; 1 if a test failed."""
    text, all_passed = page(Path(arguments[0]))
    print(text)
    return 0 if all_passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
