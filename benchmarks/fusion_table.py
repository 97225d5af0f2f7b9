"""What each technique of fusion training adds: ``python -m benchmarks.fusion_table``.

One model that concatenates its modalities, trained plainly, is the baseline; each technique is
added to it alone, and to all techniques above it in the list. Every training predicts the same
locked test part once; the split stays, the seed of weights, batches and draws varies. What was run
is a line in benchmarks/results/fusion/DATA.jsonl and is not run again; docs/fusion-table.md is
written anew from all lines. Stop it whenever you like.

Expected: cross-modal attention with modality dropout loses less than half of what concatenation
loses when a modality is missing at test time. The page says it of a plain concatenation and of one
with modality dropout too, since the dropout alone may do it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import machine
from pyseq.training.fusion import techniques
from pyseq.training.fusion.technique_page import technique_markdown

RESULTS = Path(__file__).parent / "results" / "fusion"
PAGE = Path(__file__).parents[1] / "docs" / "fusion-table.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", nargs="+", choices=tuple(techniques.DATA), default=[*techniques.DATA]
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--techniques", nargs="+", choices=techniques.NAMES, default=[*techniques.NAMES]
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing after")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    end = time.monotonic() + 60 * chosen.minutes
    chosen.results.mkdir(parents=True, exist_ok=True)
    for name in chosen.data:
        techniques.run_missing(
            name, chosen.results, seeds=range(1, chosen.seeds + 1), techniques=chosen.techniques,
            end=end, machine=machine.device_name("cpu"), told=lambda line: print(line, flush=True),
        )  # fmt: skip
    text = technique_markdown(chosen.results, "python -m benchmarks.fusion_table")
    chosen.page.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
