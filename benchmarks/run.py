"""Run benchmarks: ``python -m benchmarks.run OP [--only WORDS] [--rounds N] [--save]``.

``pyseq bench OP`` does the same. Rows are stored only with ``--save``, after each case: most runs
are made out of curiosity or on a busy machine, and a row, once appended, stays. ``--results
FOLDER`` stores them elsewhere, whatever they are worth, and goes on after a case that failed.
"""

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import machine, registry, rows, table
from benchmarks.harness import Case, Measurement, Settings, measure

BUSY = 0.1  # share of the machine's CPU time that others may use when rows are stored


class BadRequest(ValueError):
    """The request does not fit; told in one sentence."""


class CasesFailed(RuntimeError):
    """Some cases were not measured; the others were, and are stored."""


def run(
    op: str,
    *,
    only: str | None = None,
    quick: bool = False,
    rounds: int | None = None,
    threads: int | None = None,
    save: bool = False,
    results: Path | None = None,
    device: str = "auto",
    show: Callable[[Measurement], None] | None = None,
) -> Path | None:
    """Measure the cases of one op.

    Args:
        op (str): a name of `registry.known`.
        only (str): words; cases that have all of them in direction, shape and dtype. None is all.
        quick (bool): small inputs and short samples: shows that the benchmark works, no more.
        rounds (int): samples per contestant; None is 20, or 3 if quick.
        threads (int): CPU threads of PyTorch and pyseq; None leaves PyTorch's choice.
        save (bool): append rows to ``results/<device>/<op>.csv`` after each case.
        results (Path): append rows in this folder instead, and go on after a case that failed.
        device (str): "cpu", "cuda", or "auto": cuda where there is one.
        show (Callable): given each measurement as soon as it is made.

    Returns:
        Path | None: where the rows were appended.

    Raises:
        BadRequest: an unknown op or device, or no case to measure; with save: quick, fewer than 10
            rounds, or a machine that is busy with something else.
        WrongAnswer: a contestant is wrong; no row of its case is stored.
        CasesFailed: with `results`, after all cases, that some of them failed.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    _refuse(op, rounds, threads, device)
    if save:
        _refuse_to_store(quick, rounds)
    settings = Settings.quick() if quick else Settings.on(device)
    settings = replace(settings, rounds=rounds or settings.rounds, threads=threads)
    show = show or (lambda measurement: None)
    cases = _wanted(registry.cases(op, quick=quick, device=device), only)
    folder = results or (rows.RESULTS if save else None)
    began = machine.now()
    path, failed = None, []
    for case in cases:
        try:
            measurement = measure(case, settings)
        except Exception as error:
            if results is None:
                raise
            traceback.print_exc()
            words = (str(error).strip().splitlines() or [""])[0]
            failed.append(f"{case.shape}, {case.direction}, {case.dtype}: {words}")
            continue
        show(measurement)
        if folder is not None:
            path = rows.store([measurement], folder, date=began)
    if failed:
        raise CasesFailed(f"{len(failed)} of {len(cases)} cases failed; " + "; ".join(failed))
    return path


def _wanted(cases: Sequence[Case], only: str | None) -> list[Case]:
    words = set((only or "").split())
    found = [case for case in cases if words <= {case.direction, *case.shape.split(), case.dtype}]
    if not found:
        known = "; ".join(f"{case.direction} {case.shape} {case.dtype}" for case in cases)
        raise BadRequest(f"no case has all of {only!r}; there are {known}")
    return found


def _refuse(op: str, rounds: int | None, threads: int | None, device: str) -> None:
    """Raise BadRequest for what cannot be run."""
    if op not in registry.known():
        raise BadRequest(f"no benchmark is called {op!r}; known: {', '.join(registry.known())}")
    if (rounds is not None and rounds < 1) or (threads is not None and threads < 1):
        raise BadRequest(f"{rounds} rounds and {threads} threads; at least 1 of each fits")
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise BadRequest(f"device {device!r} is not there; auto or cpu fits")


def _refuse_to_store(quick: bool, rounds: int | None) -> None:
    """Raise BadRequest for what can be run but would make rows that mislead."""
    if quick:
        raise BadRequest("a quick run is no measurement: --save without --quick fits")
    if rounds is not None and rounds < 10:
        raise BadRequest(f"{rounds} rounds; at least 10 make a row worth storing")
    others = machine.others_share()
    if others is not None and others > BUSY:
        raise BadRequest(
            f"other processes use {others:.0%} of this machine, and rows worth storing need it"
            f" idle (below {BUSY:.0%}); wait, or run without --save"
        )


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, 1 if cases failed, or 2 after one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("op", help=f"one of {', '.join(registry.known())}")
    parser.add_argument("--only", help="words that direction, shape and dtype of a case must have")
    parser.add_argument("--quick", action="store_true", help="small inputs, to see that it works")
    parser.add_argument("--rounds", type=int, help="samples per contestant, by default 20")
    parser.add_argument("--threads", type=int, help="CPU threads, by default as PyTorch chooses")
    parser.add_argument("--save", action="store_true", help="append rows to benchmarks/results")
    parser.add_argument("--results", type=Path, help="append rows in this folder instead")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    try:
        path = run(
            **vars(parser.parse_args(arguments)), show=lambda m: print(table.text(m), flush=True)
        )
    except BadRequest as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except CasesFailed as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    if path is not None:
        print(f"rows appended to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
