"""Streams without structure, of which few may be said to have some.

``python -m benchmarks.analysis_controls`` analyses a million symbols of each negative control for
each of 200 seeds, with the online mixture, and writes docs/analysis-controls.md.
``--neural`` trains a small model on each of 5 seeds instead and writes
docs/analysis-controls-neural.md.

Expected: at the 1 % level of a verdict, at most 6 of 200 streams (7 or more has probability .004).
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from benchmarks import machine

DOCS = Path(__file__).parents[1] / "docs"
LEVEL = 0.01
SYMBOLS = 1_000_000
Job = tuple[str, int, float]  # control, seed, minutes of training or 0


def analysed(job: Job) -> dict[str, Any]:
    """Both verdicts on one stream."""
    from pyseq.analysis.analyze_stream import Settings, analyze_stream
    from pyseq.data.streams import NEGATIVE_CONTROLS

    name, seed, minutes = job
    torch.set_num_threads(1)
    began = time.perf_counter()
    source = NEGATIVE_CONTROLS[name]
    symbols = source.generate(SYMBOLS, seed)
    learned = [_learned(symbols, source.alphabet, seed, minutes)] if minutes else []
    analysis = analyze_stream(
        symbols, alphabet=source.alphabet, learned=learned,
        settings=Settings(level=LEVEL, seed=seed, predictors=False, compressors=False),
    )  # fmt: skip
    smallest = int(analysis.adjusted.argmin())
    return {
        "control": name,
        "seed": seed,
        "fired": [test for verdict in analysis.verdicts for test in verdict.fired],
        "smallest": analysis.tests[smallest].name,
        "p": float(analysis.adjusted[smallest]),
        "tests": len(analysis.tests),
        "online": analysis.code_lengths[0].bits.value - analysis.code_lengths[0].uniform_bits,
        "neural": _excess(learned),
        "seconds": time.perf_counter() - began,
    }


def _learned(symbols: torch.Tensor, alphabet: int, seed: int, minutes: float):
    from pyseq.analysis.predictability.learned_evidence import learned_evidence
    from pyseq.data.u16_stream import U16Stream
    from pyseq.models.predictor import load
    from pyseq.training.timed_training import train_predictor

    folder = Path(tempfile.mkdtemp(prefix="pyseq-controls-"))
    try:
        path = folder / "stream.u16"
        symbols.numpy().astype("<u2").tofile(path)
        model = train_predictor(
            str(path), minutes, ckpt=folder / "model.pt", alphabet=alphabet, kind="values",
            device="cpu", threads=1, seed=seed,
        )  # fmt: skip
        with U16Stream(path) as stream:
            return learned_evidence(
                f"a model trained {minutes:g} minutes", load(model), stream,
                most_symbols=100_000, level=LEVEL, seed=seed,
            )  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _excess(learned) -> float | None:
    """What the model needed more than the marginal, bits/symbol."""
    if not learned:
        return None
    return learned[0].code_length.bits.value - learned[0].code_length.marginal_bits


def run(jobs: list[Job], processes: int, log: Path | None) -> Iterator[dict[str, Any]]:
    """The rows of all jobs, those in the log not again; each is appended to it."""
    known: dict[tuple[str, int], dict[str, Any]] = {}
    if log is not None and log.exists():
        rows = (json.loads(line) for line in log.read_text().splitlines())
        known = {(row["control"], row["seed"]): row for row in rows}
    yield from (known[job[:2]] for job in jobs if job[:2] in known)
    left = [job for job in jobs if job[:2] not in known]
    with get_context("spawn").Pool(processes) as pool:
        for row in pool.imap_unordered(analysed, left):
            if log is not None:
                with log.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            yield row


def page(rows: list[dict[str, Any]], title: str, command: str) -> str:
    """The table, as Markdown."""
    controls = list(dict.fromkeys(row["control"] for row in rows))
    lines = [
        f"# {title}",
        "",
        f"`{command}`, {machine.device_name('cpu')}. {SYMBOLS:,} symbols of each seed; a stream "
        f"counts as structured where any test of either verdict fires at the {LEVEL:.0%} level "
        "after Holm's correction over everything run.",
        "",
        "| control | seeds | tests a stream | said to have structure | chance of so many or more | "
        "smallest corrected p | online mixture, bits/symbol over uniform |",
        "|---|---|---|---|---|---|---|",
    ]
    for control in controls:
        own = sorted((row for row in rows if row["control"] == control), key=lambda r: r["seed"])
        fired = [row for row in own if row["fired"]]
        chance = stats.binom.sf(len(fired) - 1, len(own), LEVEL)
        excess = [row["online"] for row in own]
        lines.append(
            f"| {control} | {own[0]['seed']} to {own[-1]['seed']} ({len(own)}) | "
            f"{min(row['tests'] for row in own)} to {max(row['tests'] for row in own)} | "
            f"{len(fired)} | {chance:.3f} | {min(row['p'] for row in own):.4f} | "
            f"{min(excess):+.6f} to {max(excess):+.6f} |"
        )
    fired = [row for row in rows if row["fired"]]
    if fired:
        lines += ["", "Those that fired:", ""]
        lines += [
            f"- {row['control']}, seed {row['seed']}: {', '.join(row['fired'])} "
            f"(corrected p {row['p']:.4f})"
            for row in sorted(fired, key=lambda r: (r["control"], r["seed"]))
        ]
    neural = [row for row in rows if row["neural"] is not None]
    if neural:
        lines += ["", "| control | seed | model, bits/symbol over the marginal of its classes |"]
        lines += ["|---|---|---|"]
        lines += [f"| {r['control']} | {r['seed']} | {r['neural']:+.5f} |" for r in neural]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, help="of each control; default: 200, neural 5")
    parser.add_argument("--neural", type=float, metavar="MINUTES", help="train so long on each")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--log", type=Path, help="rows as JSON lines; those in it are not run again"
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    from pyseq.data.streams import NEGATIVE_CONTROLS

    minutes = arguments.neural or 0.0
    seeds = arguments.seeds or (5 if minutes else 200)
    jobs = [(name, seed, minutes) for seed in range(seeds) for name in NEGATIVE_CONTROLS]
    rows = []
    for row in run(jobs, arguments.processes, arguments.log):
        rows.append(row)
        if row["fired"] or len(rows) % 50 == 0:
            print(len(rows), row, flush=True)
    rows.sort(key=lambda row: (list(NEGATIVE_CONTROLS).index(row["control"]), row["seed"]))
    title = "Streams without structure, a model trained on each" if minutes else (
        "Streams without structure"
    )  # fmt: skip
    command = "python -m benchmarks.analysis_controls" + (
        f" --neural {minutes:g}" if minutes else ""
    )
    out = arguments.out or DOCS / f"analysis-controls{'-neural' if minutes else ''}.md"
    out.write_text(page(rows, title, command))
    print(out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
