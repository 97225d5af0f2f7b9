"""Which tiles of the Triton kernels are fastest here: ``python -m benchmarks.tune [KNOB ...]``.

Every candidate is first compiled and run on a small case, many side by side, where it has to give
the right answer. Those that do are timed on the case that counts, beside the tiles that there are
now, and stored as rows of an "op" of their own, ``<op>_tiles``. Spilled registers are printed, and
no reason to refuse one: they may lie outside of the main loop. Nothing is changed: the fastest is
written into the op's ``limits.py`` by hand, with a look at its other dtypes and GPUs.

A kernel is compiled for the values of its arguments too (one, or a multiple of 16), so that small
cases have the heads and widths of large ones; what differs all the same is compiled once more.
"""

import argparse
import importlib
import itertools
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks import machine, registry, rows, table
from benchmarks.attention import Shape
from benchmarks.bench_cosine_decode import Shape as CacheShape
from benchmarks.harness import Call, Case, Contestant, Settings, WrongAnswer, measure

NOW = "as it is"
ROUNDS = 6
ATTENTION = {"block_t": (64, 128, 256), "block_s": (32, 64, 128), "warps": (4, 8)}
GRADIENTS = {"block_t": (32, 64, 128), "block_s": (32, 64, 128), "warps": (4, 8)}
STAGES = {"stages": (2, 3, 4)}
FEWER_STAGES = {"stages": (1, 2, 3)}

Fields = dict[str, int]


@dataclass(frozen=True)
class Knob:
    """A function that chooses tiles, and what it may choose instead.

    Args:
        op, direction (str): of the cases that show what it is worth.
        where (str): "module.function", as the launch looks it up.
        choices (dict): values of the fields of the tiles; every combination is tried.
        sizes, small (Sequence): of the benchmark's cases: those that count, and those to try on;
            if fewer, the last stands for the rest.
        part (str): which of several tiles in what the function returns.
    """

    op: str
    direction: str
    where: str
    choices: dict[str, tuple[int, ...]]
    sizes: Sequence[Any]
    small: Sequence[Any]
    part: str = ""

    def candidates(self, quick: bool) -> list[Fields]:
        """All combinations; two of them if `quick`."""
        values = itertools.product(*self.choices.values())
        found = [dict(zip(self.choices, value, strict=True)) for value in values]
        return [found[0], found[-1]] if quick else found

    @contextmanager
    def turned(self, fields: Fields) -> Iterator[None]:
        """Let the function return tiles with these fields; as it is where there are none."""
        module, _, name = f"pyseq.kernels.{self.op}.{self.where}".rpartition(".")
        chosen = getattr(importlib.import_module(module), name)

        def instead(*arguments: Any) -> Any:
            tiles = chosen(*arguments)
            if not self.part:
                return tiles._replace(**fields)
            return tiles._replace(**{self.part: getattr(tiles, self.part)._replace(**fields)})

        with mock.patch(f"{module}.{name}", instead):
            yield

    def cases(self, device: str, quick: bool, small: bool) -> list[Case]:
        """With nobody but our Triton kernels, and no ceiling."""
        bench = importlib.import_module(f"benchmarks.bench_{self.op}")
        sizes = {} if quick else {"sizes": self.small if small else self.sizes}
        found = []
        for case in bench.cases(quick=quick, device=device, **sizes):
            ours = [c for c in case.contestants if not c.peer and c.name.startswith("triton")]
            ours = [c for c in ours if c.name != "triton online"]
            if self.direction != "forward":  # the backward is one, however the forward prepares
                ours = ours[:1]
            # What the interpreter makes of bfloat16 is wrong by design.
            served = device == "cuda" or case.dtype == "float32"
            if case.direction == self.direction and served:
                found.append(replace(case, contestants=ours, ceilings=()))
        return found


def _attention(B: int, T: int, *widths: int) -> list[Shape]:
    return [Shape(B, 32, 8, T, D, True) for D in widths]


LONG, SHORT = partial(_attention, 4, 8192), partial(_attention, 1, 768)
KNOBS = {
    "cosine_forward": Knob(
        *("cosine_attention", "forward", "forward.forward_tiles", ATTENTION | STAGES),
        *(LONG(128, 64), SHORT(128, 64)),
    ),
    "cosine_keys": Knob(
        *("cosine_attention", "forward+backward", "backward.backward_tiles"),
        *(GRADIENTS | FEWER_STAGES, LONG(128, 64), SHORT(128, 64), "keys"),
    ),
    "cosine_queries": Knob(
        *("cosine_attention", "forward+backward", "backward.backward_tiles"),
        *(GRADIENTS | FEWER_STAGES, LONG(128, 64), SHORT(128, 64), "queries"),
    ),
    "hard_forward": Knob(
        *("hard_attention", "forward", "forward.forward_tiles"),
        {"rows": (64, 128, 256), "columns": (32, 64, 128), "warps": (4, 8)} | STAGES,
        *(LONG(128, 64), SHORT(128, 64)),
    ),
    "adaptive_forward": Knob(
        *("adaptive_attention", "forward", "forward.forward_tiles", ATTENTION | STAGES),
        [(shape, False) for shape in _attention(4, 4096, 128)],
        [(shape, False) for shape in SHORT(128)],
    ),
    "adaptive_queries": Knob(
        *("adaptive_attention", "forward+backward", "backward.query_tiles"),
        GRADIENTS | FEWER_STAGES,
        [(shape, True) for shape in _attention(4, 2048, 128)],
        [(shape, True) for shape in SHORT(128)],
    ),
    "adaptive_keys": Knob(
        *("adaptive_attention", "forward+backward", "backward.key_tiles"),
        GRADIENTS | FEWER_STAGES,
        [(shape, True) for shape in _attention(4, 2048, 128)],
        [(shape, True) for shape in SHORT(128)],
    ),
    "decode": Knob(
        *("cosine_decode", "forward", "forward.tiles"),
        {"block_s": (32, 64, 128), "warps": (4, 8), "stages": (2, 3, 4, 5)},
        *([CacheShape(B, 32, 8, 65536, 128) for B in (1, 8)], [CacheShape(2, 32, 8, 4096, 128)]),
    ),
    "patches": Knob(
        *("patch_embed", "forward", "limits.forward_tiles"),
        {"block_n": (32, 64, 128), "block_c": (64, 128, 256), "stages": (1, 2, 3)},
        *([(64, 65536, 16, 512)], [(2, 4096, 16, 512)]),
    ),
    "logits": Knob(
        *("scale_cross_entropy", "forward+backward", "limits.tiles"),
        {"block_n": (64, 128), "block_v": (128, 256), "warps": (4, 8), "stages": (3, 4)},
        *([(16384, 1024, 65536)], [(256, 1024, 4096)]),
    ),
}


@dataclass(frozen=True)
class Trial:
    """One candidate of one of our contestants at the `number`th small case of a knob."""

    knob: str
    number: int
    contestant: str
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
    made = [c for c in case.contestants if c.name == trial.contestant]
    compiled: list[Any] = []
    try:
        with KNOBS[trial.knob].turned(trial.fields), _kernels(compiled):
            case.check(inputs, made[0].make(inputs)())
            if trial.device == "cuda":
                torch.cuda.synchronize()
    except WrongAnswer as error:
        return Outcome(f"wrong: {error}", wrong=True)
    except Exception as error:  # out of shared memory, a shape the compiler refuses, ...
        words = (str(error).strip().splitlines() or [""])[0]
        broken = "CUDA error" in words  # and so is everything after it in this process
        return Outcome(f"{type(error).__name__}: {words}", wrong=broken, fatal=broken)
    most = {
        name: max((getattr(k, name, 0) or 0 for k in compiled), default=0)
        for name in ("n_regs", "n_spills")
    }
    shared = max((k.metadata.shared for k in compiled), default=0)
    return Outcome(registers=most["n_regs"], spills=most["n_spills"], shared_bytes=shared)


OPEN = ExitStack()  # the inputs of small cases


@cache
def _small_case(knob: str, number: int, device: str, quick: bool) -> tuple[Case, Any]:
    case = KNOBS[knob].cases(device, quick, small=True)[number]
    return case, OPEN.enter_context(case.inputs())


@contextmanager
def _kernels(found: list[Any]) -> Iterator[None]:
    """Collect every kernel that is launched; none in the interpreter."""
    from triton.runtime.jit import JITFunction

    launch = JITFunction.run

    def run(self: Any, *arguments: Any, **options: Any) -> Any:
        kernel = launch(self, *arguments, **options)
        found.append(kernel)
        return kernel

    with mock.patch.object(JITFunction, "run", run):
        yield


def attempt_all(trials: Sequence[Trial], workers: int) -> list[Outcome]:
    """Try each in one of `workers` processes; one that ends its process is refused."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for i in range(len(trials)):
        waiting.put(i)
    outcomes: dict[int, Outcome] = {}

    def work() -> None:
        process: _Worker | None = None
        while True:
            try:
                i = waiting.get_nowait()
            except queue.Empty:
                break
            process = process or _Worker()
            outcomes[i] = process.attempt(trials[i])
            if outcomes[i].fatal:
                process.end()
                process = None
        if process is not None:
            process.end()

    threads = [threading.Thread(target=work) for _ in range(min(workers, len(trials)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
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
        )

    def attempt(self, trial: Trial) -> Outcome:
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        asked.write(json.dumps(asdict(trial)) + "\n")
        asked.flush()
        answer = answers.readline()
        if answer:
            return Outcome(**json.loads(answer))
        # A compiler may take its process with it.
        return Outcome(f"ended its process with status {self._process.wait()}", fatal=True)

    def end(self) -> None:
        self._process.communicate()


def _serve() -> int:
    """Answer a line for every line."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whoever prints, prints no answer
    for line in sys.stdin:
        outcome = attempt(Trial(**json.loads(line)))
        print(json.dumps(asdict(outcome)), file=answers, flush=True)
        if outcome.fatal:
            break
    return 0


def tune(
    name: str, *, device: str, quick: bool, workers: int, settings: Settings, results: Path | None
) -> bool:
    """Try and time one knob, print a table of every case; False if a candidate was wrong."""
    knob = KNOBS[name]
    small, large = (knob.cases(device, quick, small=here) for here in (True, False))
    trials = [
        Trial(name, i, contestant.name, fields, device, quick)
        for i, case in enumerate(small)
        for contestant in case.contestants
        for fields in knob.candidates(quick)
    ]
    outcomes = attempt_all(trials, workers)
    for trial, outcome in zip(trials, outcomes, strict=True):
        print(f"{name}: {trial.contestant} {_words(trial.fields)}: {outcome}", flush=True)
    for i, case in enumerate(large):
        contestants = []
        for contestant in case.contestants:
            contestants.append(replace(contestant, name=f"{contestant.name} {NOW}", peer=True))
            contestants += [
                _turned(knob, contestant, trial.fields)
                for trial, outcome in zip(trials, outcomes, strict=True)
                if not outcome.refusal
                and (trial.number, trial.contestant) == (min(i, len(small) - 1), contestant.name)
            ]
        tiles = replace(case, op=f"{knob.op}_tiles", contestants=contestants)
        measurement = measure(tiles, settings)
        print(table.text(measurement), flush=True)
        if results is not None:
            rows.store([measurement], results)
    return not any(outcome.wrong for outcome in outcomes)


def _turned(knob: Knob, contestant: Contestant, fields: Fields) -> Contestant:
    def make(inputs: Any) -> Call:
        with knob.turned(fields):  # what is captured in a graph is launched here
            made = contestant.make(inputs)

        def call() -> Any:
            with knob.turned(fields):
                return made()

        return call

    return Contestant(f"{contestant.name} {_words(fields)}", make, optional=True)


def _words(fields: Fields) -> str:
    return " ".join(f"{key}={value}" for key, value in fields.items())


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 1 if a candidate was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="KNOB", help=f"of {', '.join(KNOBS)}, or an op; none is all"
    )
    parser.add_argument("--results", type=Path, help="append rows in this folder")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="samples per candidate")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 1) - 2))
    parser.add_argument("--quick", action="store_true", help="tiny, in the interpreter or on a GPU")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        return _serve()
    unknown = set(options.names) - set(KNOBS) - set(registry.on_gpu())
    if unknown:
        parser.error(f"no knob is called {', '.join(sorted(unknown))}; known: {', '.join(KNOBS)}")
    names = set(options.names or KNOBS)
    wanted = [name for name, knob in KNOBS.items() if {name, knob.op} & names]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options.quick:
        parser.error("no GPU that torch can use; --quick with TRITON_INTERPRET=1 needs none")
    settings = Settings.quick() if options.quick else Settings.on(device)
    settings = replace(settings, rounds=options.rounds)
    right = [
        tune(
            name,
            device=device,
            quick=options.quick,
            workers=options.workers,
            settings=settings,
            results=options.results,
        )
        for name in wanted
    ]
    return int(not all(right))


if __name__ == "__main__":
    sys.exit(main())
