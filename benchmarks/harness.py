"""Measure contestants side by side: check, warm up, interleave, and report with the spread.

A `Case` is one question (one op, shape and dtype); `measure` answers it. Nothing is timed before
every contestant has given the right answer. All contestants then run in every round, one after
the other, so that a change of the machine's load meets all of them, and ratios are taken within a
round before their median is.
"""

import gc
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.memory import cache_bytes, peak_extra_bytes
from pyseq.errors import BackendUnavailable

MOST_RESULTS = 1024

Call = Callable[[], Any]
Stopwatch = Callable[[Callable[[], None]], float]


class WrongAnswer(RuntimeError):
    """A contestant's result is not what the reference gives; it is not timed."""


@dataclass(frozen=True)
class Contestant:
    """One way to do the work of a case.

    Args:
        name (str): the row's backend.
        make (Callable): takes the case's inputs, returns the call that is timed. What that returns
            is checked, so it holds all that a check needs. A call with threads or processes of its
            own has methods that the harness calls, untimed: `resume` before each sample uses up
            what was made ahead, `pause` after it waits until nothing works in the background, where
            it would slow whoever is next, and `close` ends it all. It may do the case's work
            `repeats` times at once; then `plain` does it once, for the memory it takes, and `note`
            is added to the row's backend.
        peer (bool): someone else's way, which ours is compared with.
        hold (bool): keep results until the ring of results is larger than the caches.
        optional (bool): left out, with the reason, where it fails or is wrong. A backend that
            cannot serve is left out in any case.
    """

    name: str
    make: Callable[[Any], Call]
    peer: bool = False
    hold: bool = True
    optional: bool = False


@dataclass(frozen=True)
class Ceiling:
    """What the machine could do at most, measured among the contestants.

    Args:
        name (str): for example "memcpy".
        unit (str): "GB/s" or "TFLOP/s"; or the case's own unit.
        amount (float): what one call moves or computes; giga or tera with GB/s or TFLOP/s.
        make (Callable): as a contestant's.
    """

    name: str
    unit: str
    amount: float
    make: Callable[[Any], Call]


@dataclass(frozen=True, eq=False)
class Case:
    """One op at one shape and dtype, with everything that is to be compared.

    Args:
        op, direction, shape, dtype (str): columns of the row.
        inputs (Callable): opens a context whose value every `make` and `check` is given.
        contestants (Sequence[Contestant]): ours and the peers.
        check (Callable): takes inputs and a result; raises `WrongAnswer`.
        unit (str), work (float): what one call does, for example "tokens/s" and B * T.
        ceilings (Sequence[Ceiling]): of one unit; shares are of the fastest.
        ceiling_work (float): what one call of a contestant needs of the ceilings' unit.
        result_bytes (int): size of one result; results are kept until they no longer fit in the
            cache, so that nobody writes into cached memory. 0 keeps none.
        checked_calls (int): how many calls are checked before timing; one more is checked after.
        device (str): "cpu" or "cuda".
    """

    op: str
    direction: str
    shape: str
    dtype: str
    inputs: Callable[[], AbstractContextManager[Any]]
    contestants: Sequence[Contestant]
    check: Callable[[Any, Any], None]
    unit: str
    work: float
    ceilings: Sequence[Ceiling]
    ceiling_work: float
    result_bytes: int = 0
    checked_calls: int = 1
    device: str = "cpu"


@dataclass(frozen=True)
class Settings:
    """How long and how often. `quick` settings exercise the code; their numbers mean little."""

    rounds: int = 20
    sample_seconds: float = 0.05
    warmup_seconds: float = 0.2
    threads: int | None = None  # None: as PyTorch chooses

    @classmethod
    def on(cls, device: str) -> "Settings":
        """For a device: a GPU's events resolve microseconds, and its time is short."""
        return cls(sample_seconds=0.025, warmup_seconds=0.1) if device == "cuda" else cls()

    @classmethod
    def quick(cls, rounds: int = 3, threads: int | None = None) -> "Settings":
        return cls(rounds, sample_seconds=0.001, warmup_seconds=0.001, threads=threads)


@dataclass(frozen=True)
class Timing:
    """The samples of one contestant or ceiling.

    Args:
        seconds (ndarray (rounds,), float64): seconds per call, one entry per round.
        peak_bytes (int | None): see `benchmarks.memory`; None where it cannot be measured.
    """

    name: str
    role: Literal["contestant", "peer", "ceiling"]
    seconds: np.ndarray
    peak_bytes: int | None

    @property
    def quantiles(self) -> tuple[float, float, float]:
        """p20, p50 and p80 in seconds."""
        return quantiles(self.seconds)


@dataclass(frozen=True)
class Measurement:
    """The answer to a case.

    Args:
        order (tuple of str): the names in the order in which they were timed.
        left_out (dict): the names of contestants that were not timed, and why.
    """

    case: Case
    threads: int
    timings: tuple[Timing, ...]
    order: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def best_peer(self) -> Timing | None:
        peers = [timing for timing in self.timings if timing.role == "peer"]
        return min(peers, key=lambda peer: peer.quantiles[1], default=None)

    @property
    def ceiling(self) -> Ceiling | None:
        """The fastest ceiling of this run."""
        return max(self.case.ceilings, key=self.ceiling_value, default=None)

    def ceiling_value(self, ceiling: Ceiling) -> float:
        """Median rate of a ceiling in its unit."""
        return ceiling.amount / self._timing(ceiling.name).quantiles[1]

    def unit_value(self, timing: Timing) -> float:
        """Median rate in the case's unit; a ceiling's rate in the ceiling's unit."""
        for ceiling in self.case.ceilings:
            if ceiling.name == timing.name:
                return self.ceiling_value(ceiling)
        return self.case.work / timing.quantiles[1]

    def ceiling_share(self, timing: Timing) -> float | None:
        """Median over rounds of the contestant's rate as a share of the fastest ceiling's."""
        if self.ceiling is None:
            return None
        limit = self._timing(self.ceiling.name)
        amounts = {ceiling.name: ceiling.amount for ceiling in self.case.ceilings}
        amount = amounts.get(timing.name, self.case.ceiling_work)
        rates = (amount / timing.seconds) / (self.ceiling.amount / limit.seconds)
        return float(np.median(rates))

    def ratio(self, timing: Timing) -> tuple[float, float, float] | None:
        """p20, p50, p80 over rounds of best peer's time / this time; above 1 is faster."""
        if self.best_peer is None or timing.role == "ceiling":
            return None
        return quantiles(self.best_peer.seconds / timing.seconds)

    def _timing(self, name: str) -> Timing:
        return next(timing for timing in self.timings if timing.name == name)


def quantiles(values: np.ndarray) -> tuple[float, float, float]:
    """20th, 50th and 80th percentile, linear between order statistics."""
    p20, p50, p80 = np.percentile(values, (20, 50, 80))
    return float(p20), float(p50), float(p80)


def measure(
    case: Case, settings: Settings | None = None, *, stopwatch: Stopwatch | None = None
) -> Measurement:
    """Check all contestants, then time them in turn.

    Args:
        case (Case): what to measure.
        settings (Settings): rounds, sample length, threads.
        stopwatch (Callable): runs what it is given and returns seconds; by default
            `perf_counter_ns` on the CPU and events on CUDA.

    Raises:
        WrongAnswer: a contestant is wrong, before or after timing; nothing is reported.
        ValueError: two contestants share a name, or the ceilings are not of one unit.
    """
    settings = settings or Settings()
    stopwatch = stopwatch or (cuda_stopwatch if case.device == "cuda" else cpu_stopwatch)
    _refuse_ambiguous(case)
    with ExitStack() as stack:
        threads = stack.enter_context(_torch_threads(settings.threads))
        inputs = stack.enter_context(case.inputs())
        ring: deque = deque(maxlen=results_past_cache(case.result_bytes, case.device))
        runners = [_Runner(c, _role(c), case, inputs, ring) for c in case.contestants]
        runners += [_Runner(c, "ceiling", case, inputs, ring) for c in case.ceilings]
        left_out: dict[str, str] = {}
        for runner in list(runners):
            stack.callback(runner.close)
            reason = runner.admit(case.checked_calls)
            if reason is not None:
                left_out[runner.name] = reason
                runners.remove(runner)
                runner.close()
        gc.collect()
        gc.freeze()  # each peak collects garbage, which need not search what lives on anyway
        stack.callback(gc.unfreeze)
        for runner in runners:  # before warming up: it gives free memory back to the system
            runner.measure_peak()
        for runner in runners:
            runner.warm_up(settings, stopwatch)
        order = []
        for number in range(settings.rounds):
            first = number % len(runners)  # rotated, so that nobody always follows the same one
            for runner in runners[first:] + runners[:first]:
                runner.sample(stopwatch)
                order.append(runner.name)
        for runner in runners:
            runner.check(1)
        timings = tuple(runner.timing() for runner in runners)
    return Measurement(case, threads, timings, tuple(order), left_out)


def results_past_cache(result_bytes: int, device: str = "cpu") -> int:
    """How many results of this size are four times the last cache; the length of a rotation.

    At most `MOST_RESULTS`: a server's cache of half a gigabyte would take millions of small ones.
    """
    if not result_bytes:
        return 0
    return min(MOST_RESULTS, math.ceil(4 * cache_bytes(device) / result_bytes))


def rotate(items: Sequence[Any]) -> Callable[[], Any]:
    """A function that returns the next item, and after the last the first again."""
    position = -1

    def following() -> Any:
        nonlocal position
        position = (position + 1) % len(items)
        return items[position]

    return following


def cpu_stopwatch(run: Callable[[], None]) -> float:
    """Seconds that `run` takes by the wall clock."""
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) * 1e-9


def cuda_stopwatch(run: Callable[[], None]) -> float:
    """Seconds between two events around what `run` launches on the current stream."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e-3


class _Runner:
    """One contestant or ceiling during a measurement."""

    def __init__(self, entry, role, case: Case, inputs, ring: deque):
        self.name, self.role = entry.name, role
        self._optional = getattr(entry, "optional", False)
        self._make, self._case, self._inputs = entry.make, case, inputs
        self._ring = ring if getattr(entry, "hold", True) else deque(maxlen=0)
        self._call: Call | None = None
        self._calls = 1
        self._peak: int | None = None
        self._seconds: list[float] = []

    def admit(self, calls: int) -> str | None:
        """Check it; why it is left out, or None."""
        try:
            self.check(calls)
        except BackendUnavailable as error:
            return str(error)
        except Exception as error:
            if not self._optional:
                raise
            kind = "" if isinstance(error, WrongAnswer) else f"{type(error).__name__}: "
            return kind + (str(error).strip().splitlines() or [""])[0]
        return None

    def check(self, calls: int) -> None:
        if self.role == "ceiling":
            return
        with self._running() as call:
            for _ in range(calls):
                try:
                    self._case.check(self._inputs, call())
                except WrongAnswer as error:
                    case = self._case
                    raise WrongAnswer(
                        f"{case.op}, {case.shape}, {case.dtype}: {self.name} is wrong and is not"
                        f" timed: {error}"
                    ) from error

    def measure_peak(self) -> None:
        with self._running() as call:
            self._peak = peak_extra_bytes(getattr(call, "plain", call), self._case.device)

    def warm_up(self, settings: Settings, stopwatch: Stopwatch) -> None:
        """Run until `warmup_seconds` have passed, then choose how many calls make a sample."""
        with self._running() as call:
            spent: list[float] = []
            while not spent or sum(spent) < settings.warmup_seconds:
                spent.append(max(self._time(call, stopwatch, 1), 1e-7))
        self._calls = max(1, math.ceil(settings.sample_seconds / float(np.median(spent))))

    def sample(self, stopwatch: Stopwatch) -> None:
        with self._running() as call:
            done = self._calls * getattr(call, "repeats", 1)
            self._seconds.append(self._time(call, stopwatch, self._calls) / done)

    def timing(self) -> Timing:
        return Timing(self.name, self.role, np.array(self._seconds), self._peak)

    def close(self) -> None:
        if self._call is not None:
            _tell(self._call, "close")
        self._call = None

    def _time(self, call: Call, stopwatch: Stopwatch, calls: int) -> float:
        ring = self._ring

        def run() -> None:
            for _ in range(calls):
                ring.append(call())

        collecting = gc.isenabled()
        gc.disable()  # a collection would be charged to whoever allocates last
        try:
            return stopwatch(run)
        finally:
            if collecting:
                gc.enable()

    @contextmanager
    def _running(self) -> Iterator[Call]:
        if self._call is None:
            self._call = self._make(self._inputs)
            self.name += getattr(self._call, "note", "")
        _tell(self._call, "resume")
        yield self._call
        _tell(self._call, "pause")


def _tell(call: Call, what: str) -> None:
    """Call a method that most calls do not have."""
    getattr(call, what, lambda: None)()


def _role(contestant: Contestant) -> Literal["contestant", "peer"]:
    return "peer" if contestant.peer else "contestant"


def _refuse_ambiguous(case: Case) -> None:
    names = [contestant.name for contestant in case.contestants]
    names += [ceiling.name for ceiling in case.ceilings]
    if len(set(names)) < len(names):
        raise ValueError(f"{case.op}: contestants {names}; each needs a name of its own")
    units = {ceiling.unit for ceiling in case.ceilings}
    if len(units) > 1:
        raise ValueError(f"{case.op}: ceilings in {sorted(units)}; one unit fits")


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[int]:
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
