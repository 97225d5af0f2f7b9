"""Which tiles of the Triton kernels are fastest here: ``python -m benchmarks.tune [KNOB ...]``.

Every candidate of `benchmarks.knobs` is first compiled and run on a small case, many side by side,
where it has to give the right answer. Those that do are timed on the case that counts, beside the
tiles that there are now, and stored as rows of an "op" of their own, ``<knob>_tiles``. Spilled
registers are printed, and no reason to refuse one: they may lie outside of the main loop. Nothing
is changed: the fastest is written into the op's ``limits.py`` by hand, with a look at its other
dtypes and GPUs. The exit status is 1 if a candidate was wrong or a case could not be measured.

Triton's own autotuner compiles one candidate after the other and checks no answer, and a process
that dies takes the whole of a `ProcessPoolExecutor` with it.

A kernel is compiled for the values of its arguments too (one, or a multiple of 16), so that small
cases have the heads and widths of large ones; what differs all the same is compiled once more.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks import machine, registry, rows, table
from benchmarks.harness import Call, Case, Contestant, Settings, WrongAnswer, measure
from benchmarks.knobs import KNOBS, Fields, Knob
from pyseq.kernels import launch

NOW = "as it is"
ROUNDS = 6
MOST_WORKERS = 14  # each has a CUDA context of half a gigabyte
TRIAL_SECONDS = 120.0  # a compiler that takes longer is stopped


@dataclass(frozen=True)
class Trial:
    """One candidate at the `number`th small case of a knob."""

    knob: str
    number: int
    fields: Fields
    device: str
    quick: bool


@dataclass(frozen=True)
class Outcome:
    """What the compiler made of all kernels of a trial, and why it cannot be timed, if so."""

    refusal: str = ""
    wrong: bool = False  # the answer, or a place in memory
    fatal: bool = False  # for the process that tried
    registers: int = 0  # per thread, of the kernel that has most
    spills: int = 0
    shared_bytes: int = 0

    def __str__(self) -> str:
        if self.refusal:
            return self.refusal
        shared = f"{self.shared_bytes >> 10} KiB shared"
        return f"{self.registers} registers, {self.spills} spilled, {shared}"


def attempt(trial: Trial) -> Outcome:
    """Compile and run a trial, here."""
    case, inputs = _small_case(trial.knob, trial.number, trial.device, trial.quick)
    compiled: list[Any] = []
    try:
        with KNOBS[trial.knob].turned(trial.fields), _kernels(compiled):
            case.check(inputs, case.contestants[0].make(inputs)())
            if trial.device == "cuda":
                torch.cuda.synchronize()
    except WrongAnswer as error:
        return Outcome(f"wrong: {error}", wrong=True)
    except Exception as error:  # out of shared memory, a shape the compiler refuses, ...
        words = (str(error).strip().splitlines() or [""])[0]
        broken = trial.device == "cuda" and not _device_works()
        return Outcome(f"{type(error).__name__}: {words}", wrong=broken, fatal=broken)
    most = {
        name: max((getattr(k, name, 0) or 0 for k in compiled), default=0)
        for name in ("n_regs", "n_spills")
    }
    shared = max((k.metadata.shared for k in compiled), default=0)
    return Outcome(registers=most["n_regs"], spills=most["n_spills"], shared_bytes=shared)


def _device_works() -> bool:
    """Whether this process may go on: after a wrong access every call to the device fails."""
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


OPEN = ExitStack()  # the inputs of small cases, for as long as the process lives


@cache
def _small_case(knob: str, number: int, device: str, quick: bool) -> tuple[Case, Any]:
    case = KNOBS[knob].cases(device, quick, small=True)[number]
    return case, OPEN.enter_context(case.inputs())


@contextmanager
def _kernels(found: list[Any]) -> Iterator[None]:
    """Collect every kernel that is launched; none in the interpreter."""
    from triton.runtime.jit import JITFunction

    run = JITFunction.run

    def collecting(self: Any, *arguments: Any, **options: Any) -> Any:
        kernel = run(self, *arguments, **options)
        found.append(kernel)
        return kernel

    with mock.patch.object(JITFunction, "run", collecting):
        yield


def attempt_all(
    trials: Sequence[Trial], workers: int, tell: Callable[[Trial, Outcome], None]
) -> list[Outcome]:
    """Try each in one of `workers` processes; one that ends its process is refused."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for i in range(len(trials)):
        waiting.put(i)
    outcomes: dict[int, Outcome] = {}
    stopped = threading.Event()
    alive: set[_Worker] = set()

    def work() -> None:
        worker: _Worker | None = None
        while not stopped.is_set():
            try:
                i = waiting.get_nowait()
            except queue.Empty:
                break
            if worker is None:
                worker = _Worker()
                alive.add(worker)
            outcomes[i] = worker.attempt(trials[i])
            if not stopped.is_set():
                tell(trials[i], outcomes[i])
            if outcomes[i].fatal:
                worker.end()
                worker = None
        if worker is not None:
            worker.end()

    threads = [threading.Thread(target=work) for _ in range(min(workers, len(trials)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:  # an interrupt reaches this thread alone
        stopped.set()
        for worker in list(alive):
            worker.end()
    return [outcomes[i] for i in range(len(trials))]


class _Worker:
    """A process that answers trials, one line each."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.tune", "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=machine.ROOT,
            start_new_session=True,  # an interrupt is for who waits, who ends the others
        )

    def attempt(self, trial: Trial) -> Outcome:
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        clock = threading.Timer(TRIAL_SECONDS, self._process.kill)
        clock.start()
        try:
            asked.write(json.dumps(asdict(trial)) + "\n")
            asked.flush()
            return Outcome(**json.loads(answers.readline()))
        except (OSError, ValueError):  # a compiler may take its process with it
            self._process.kill()
            return Outcome(f"ended its process with status {self._process.wait()}", fatal=True)
        finally:
            clock.cancel()

    def end(self) -> None:
        self._process.kill()
        with suppress(OSError, ValueError):
            self._process.communicate()


def _serve() -> int:
    """Answer a line for every line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whoever prints, prints no answer
    for line in sys.stdin:
        outcome = attempt(Trial(**json.loads(line)))
        print(json.dumps(asdict(outcome)), file=answers, flush=True)
        if outcome.fatal:
            break
    return 0


def tune(
    name: str, *, device: str, quick: bool, workers: int, settings: Settings, results: Path | None
) -> bool:
    """Try and time one knob, print a table of every case.

    Returns:
        bool: False if a candidate was wrong, or a case failed.
    """
    knob = KNOBS[name]
    small, large = (knob.cases(device, quick, small=here) for here in (True, False))
    trials = [
        Trial(name, i, fields, device, quick)
        for i in range(len(small))
        for fields in knob.candidates(quick)
    ]

    def tell(trial: Trial, outcome: Outcome) -> None:
        way = small[trial.number].contestants[0].name
        print(f"{name}, {way}, {_words(trial.fields)}: {outcome}", flush=True)

    outcomes = attempt_all(trials, workers, tell)
    right = not any(outcome.wrong for outcome in outcomes)
    for i, case in enumerate(large):
        fit = [
            trial.fields
            for trial, outcome in zip(trials, outcomes, strict=True)
            if trial.number == min(i, len(small) - 1) and not outcome.refusal
        ]
        try:
            right &= _time(name, knob, case, fit, settings, results)
        except Exception as error:  # the next case may work
            traceback.print_exc()
            right = False
            words = (str(error).strip().splitlines() or [type(error).__name__])[0]
            print(f"benchmarks: {name}, {case.shape}: {words}", flush=True)
    return right


def _time(
    name: str,
    knob: Knob,
    case: Case,
    candidates: Sequence[Fields],
    settings: Settings,
    results: Path | None,
) -> bool:
    """Measure what there is and the candidates, and store it; False if one was wrong."""
    [way] = case.contestants
    wrong: list[str] = []

    def check(inputs: Any, result: Any) -> None:
        try:
            case.check(inputs, result)
        except WrongAnswer as error:
            wrong.append(str(error))
            raise

    turned = [_turned(knob, way, fields) for fields in candidates]
    contestants = [replace(way, name=f"{way.name} {NOW}", peer=True), *turned]
    shape = f"{case.shape} {way.name.removeprefix('triton')}".strip()
    tiles = replace(case, op=f"{name}_tiles", shape=shape, contestants=contestants, check=check)
    measurement = measure(tiles, settings)
    print(table.text(measurement), flush=True)
    if results is not None:
        rows.store([measurement], results)
    return not wrong


def _turned(knob: Knob, way: Contestant, fields: Fields) -> Contestant:
    def make(inputs: Any) -> Call:
        with knob.turned(fields):  # what is captured in a graph is launched here
            return _Turned(knob, fields, way.make(inputs))

    return Contestant(f"{way.name} {_words(fields)}", make, optional=True)


class _Turned:
    """A call with other tiles, and with all that the harness asks of a call."""

    def __init__(self, knob: Knob, fields: Fields, call: Call):
        self._knob, self._fields, self._call = knob, fields, call
        if hasattr(call, "plain"):
            self.plain = _Turned(knob, fields, call.plain)

    def __call__(self) -> Any:
        with self._knob.turned(self._fields):
            return self._call()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._call, name)


def _words(fields: Fields) -> str:
    return " ".join(f"{key}={value}" for key, value in fields.items())


def main(arguments: list[str] | None = None) -> int:
    """The command line: 0; 1 if a candidate was wrong or a case failed; 2 after a bad request."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="KNOB", help=f"of {', '.join(KNOBS)}, or an op; none is all"
    )
    workers = max(1, min(MOST_WORKERS, len(os.sched_getaffinity(0)) - 2))
    parser.add_argument("--results", type=Path, help="append rows in this folder")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="samples per candidate")
    parser.add_argument("--workers", type=int, default=workers, help="processes that compile")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it works")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        return _serve()
    wanted = _wanted(parser, options.names)
    if min(options.rounds, options.workers) < 1:
        parser.error(f"{options.rounds} rounds, {options.workers} workers; at least 1 of each fits")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not (options.quick and launch.interpreted()):
        parser.error("no GPU that torch can use; --quick with TRITON_INTERPRET=1 needs none")
    if len(wanted) > 1:  # each in a process of its own, which a broken device ends with it
        rest = [f"--rounds={options.rounds}", f"--workers={options.workers}"]
        rest += ["--quick"] if options.quick else []
        rest += [f"--results={options.results.resolve()}"] if options.results else []
        command = [sys.executable, "-m", "benchmarks.tune"]
        done = [subprocess.run([*command, name, *rest], cwd=machine.ROOT) for name in wanted]
        return int(any(one.returncode for one in done))
    settings = Settings.quick() if options.quick else Settings.on(device)
    right = tune(
        wanted[0],
        device=device,
        quick=options.quick,
        workers=options.workers,
        settings=replace(settings, rounds=options.rounds),
        results=options.results,
    )
    return int(not right)


def _wanted(parser: argparse.ArgumentParser, names: Sequence[str]) -> list[str]:
    """The knobs that are named, or whose ops are."""
    unknown = set(names) - set(KNOBS) - set(registry.on_gpu())
    if unknown:
        parser.error(f"no knob is called {', '.join(sorted(unknown))}; known: {', '.join(KNOBS)}")
    wanted = [name for name, knob in KNOBS.items() if not names or {name, knob.op} & set(names)]
    if not wanted:
        parser.error(f"{', '.join(names)} has no knob; there are {', '.join(KNOBS)}")
    return wanted


if __name__ == "__main__":
    sys.exit(main())
