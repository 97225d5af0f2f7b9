"""Streams whose entropy is known, beside what is measured.

``python -m benchmarks.analysis_known_streams`` analyses a million symbols of every stream of
`pyseq.data.streams` and writes docs/analysis-known-streams.md: the true entropies, what the
predictors of NIST's SP 800-90B make of the same data in bytes (all that NIST's program reads), and
what pyseq says.

Expected: every stream with structure is found by some test, and none of the negative controls;
where count models can learn the source, the entropy rate is met within 0.05 bits.
"""

import argparse
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import machine

DOCS = Path(__file__).parents[1] / "docs"
SYMBOLS = 1_000_000
SEED = 0
WITHIN = 0.05  # bits/symbol of the true entropy rate


def measured(name: str) -> dict[str, Any]:
    """One row."""
    from pyseq.analysis.analyze_stream import Settings, analyze_stream
    from pyseq.analysis.predictability.sp800_90b import most_common_value, predict_all
    from pyseq.data.streams import NEGATIVE_CONTROLS, POSITIVE_CONTROLS

    torch.set_num_threads(1)
    source = {**POSITIVE_CONTROLS, **NEGATIVE_CONTROLS}[name]
    symbols = source.generate(SYMBOLS, SEED)
    began = time.perf_counter()
    found = analyze_stream(
        symbols, alphabet=source.alphabet,
        settings=Settings(seed=SEED, predictor_symbols=SYMBOLS, compressors=False),
    )  # fmt: skip
    seconds = time.perf_counter() - began
    packed = symbols.numpy().astype("u1" if source.alphabet <= 256 else "<u2").view(np.uint8)
    as_bytes = packed.astype(np.uint16)
    per_symbol = packed.size / SYMBOLS
    nist = [prediction.min_entropy for prediction in predict_all(as_bytes, 256)]
    nist.append(most_common_value(as_bytes, 256).min_entropy)
    best = min(found.predictions, key=lambda prediction: prediction.global_bits)
    return {
        "name": name,
        "alphabet": source.alphabet,
        "entropy": source.entropy_rate,
        "average": source.average_min_entropy,
        "nist": min(nist) * per_symbol,
        "late": found.code_lengths[0].late_bits,
        "best": f"{best.global_bits:.3f} ({best.name})",
        "mixture": found.code_lengths[0].average_min_entropy.value,
        "verdicts": [verdict.structure for verdict in found.verdicts],
        "fired": sum(len(verdict.fired) for verdict in found.verdicts),
        "first": next((name for v in reversed(found.verdicts) for name in v.fired), ""),
        "negative": name in NEGATIVE_CONTROLS,
        "seconds": seconds,
    }


def page(rows: list[dict[str, Any]]) -> str:
    """The table, as Markdown."""
    lines = [
        "# Streams with a known answer",
        "",
        f"`python -m benchmarks.analysis_known_streams`, {machine.device_name('cpu')}. {SYMBOLS:,} "
        f"symbols of each, seed {SEED}, level 1 %. Entropies in bits/symbol.",
        "",
        "- *true*: entropy rate, and average min-entropy (-log2 of the best predictor's hit rate).",
        "- *NIST, bytes*: the smallest min-entropy that the four predictors and the most common "
        "value of SP 800-90B give the same data as bytes, which is all that NIST's program reads "
        "(symbols of more than 8 bits as two bytes, low one first), times bytes/symbol; computed "
        "by pyseq, whose figures equal that program's.",
        "- *pyseq, entropy rate*: code length of the online mixture over the second half, with its "
        f"95 % interval; **bold** within {WITHIN} of the true rate.",
        "- *pyseq, average min-entropy*: -log2 of the mixture's hit rate, and the best predictor "
        "of SP 800-90B on whole symbols (upper 99 % bound of its hit rate).",
        "",
        "| stream | symbols | true | NIST, bytes | pyseq, entropy rate | "
        "pyseq, average min-entropy | marginal | dependence | tests fired, first of them |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        late = str(row["late"])
        if abs(row["late"].value - row["entropy"]) <= WITHIN:
            late = f"**{late}**"
        marginal, dependence = ("structure" if v else "nothing" for v in row["verdicts"])
        lines.append(
            f"| {row['name']}{' (control)' if row['negative'] else ''} | {row['alphabet']:,} | "
            f"{row['entropy']:.4f}, {row['average']:.4f} | {row['nist']:.3f} | {late} | "
            f"{row['mixture']:.3f}, {row['best']} | {marginal} | {dependence} | "
            f"{row['fired']}{': ' if row['first'] else ''}{row['first']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=DOCS / "analysis-known-streams.md")
    arguments = parser.parse_args()
    from pyseq.data.streams import NEGATIVE_CONTROLS, POSITIVE_CONTROLS

    with get_context("spawn").Pool(arguments.processes) as pool:
        rows = pool.map(measured, [*POSITIVE_CONTROLS, *NEGATIVE_CONTROLS], chunksize=1)
    arguments.out.write_text(page(rows))
    print(page(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
