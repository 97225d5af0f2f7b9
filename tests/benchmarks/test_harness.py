"""The measuring harness: it refuses wrong answers, interleaves, and its arithmetic is right."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import harness, machine, rows, run, table
from benchmarks.bench_gather_windows import cases as gather_cases
from benchmarks.harness import Case, Ceiling, Contestant, Settings, WrongAnswer, measure
from benchmarks.memory import peak_extra_bytes
from pyseq.errors import BackendUnavailable

MIB = 2**20


class Clock:
    """A stopwatch for contestants that say how long they take instead of taking it."""

    def __init__(self):
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self, run) -> float:
        start = self.now
        run()
        return self.now - start

    def contestant(self, name: str, seconds: list[float], *, answer: float = 42.0):
        """A `make` whose n-th call ever takes seconds[n], the last one repeating."""
        calls = 0

        def call() -> float:
            nonlocal calls
            self.now += seconds[min(calls, len(seconds) - 1)]
            self.log.append(name)
            calls += 1
            return answer

        return lambda _: call


@contextmanager
def no_inputs():
    yield None


def check_42(_, result: float) -> None:
    if result != 42.0:
        raise WrongAnswer(f"{result}; 42 fits")


def case_of(contestants, ceilings=()) -> Case:
    return Case(
        op="answer",
        direction="forward",
        shape="B=1",
        dtype="float32",
        inputs=no_inputs,
        contestants=contestants,
        check=check_42,
        unit="tokens/s",
        work=100,
        ceilings=ceilings,
        ceiling_work=3.0,
    )


# One call per sample and one of warm-up, so that call numbers are known.
SETTINGS = Settings(rounds=4, sample_seconds=1e-9, warmup_seconds=0.0)
BEFORE_ROUNDS = 3  # calls: one checked, one for its memory, one to warm up


def test_a_wrong_contestant_is_never_timed():
    clock = Clock()
    right = Contestant("right", clock.contestant("right", [1.0]))
    wrong = Contestant("wrong", clock.contestant("wrong", [1.0], answer=41.0), peer=True)
    with pytest.raises(WrongAnswer, match=r"answer, B=1, float32: wrong is wrong.*41.0; 42 fits"):
        measure(case_of([right, wrong]), SETTINGS, stopwatch=clock)
    assert clock.log == ["right", "wrong"]  # one checked call each, and nothing after


def test_a_contestant_that_goes_wrong_while_timed_is_refused():
    answers = iter([42.0] * (BEFORE_ROUNDS + SETTINGS.rounds) + [0.0])
    clock = Clock()
    turns_wrong = Contestant("turns wrong", lambda _: lambda: next(answers))
    with pytest.raises(WrongAnswer, match="turns wrong"):
        measure(case_of([turns_wrong]), SETTINGS, stopwatch=lambda run: run() or 1.0)
    assert clock.log == []


def test_a_wrong_gather_is_refused():
    case = gather_cases(quick=True, symbols=1 << 16)[0]
    honest = next(c for c in case.contestants if c.name == "numpy")

    def off_by_one(inputs):
        call = honest.make(inputs)

        def wrong():
            offsets, windows = call()
            return offsets + 1, windows

        return wrong

    wrong = replace(case, contestants=[Contestant("off by one", off_by_one)], ceilings=[])
    with pytest.raises(WrongAnswer, match=r"off by one is wrong.*symbols 0 after the offsets"):
        measure(wrong, Settings.quick())
    right = replace(case, contestants=[honest], ceilings=[])
    assert measure(right, Settings.quick()).timings[0].seconds.shape == (3,)


def test_contestants_are_interleaved_and_rotated():
    clock = Clock()
    names = ("a", "b", "c")
    contestants = [Contestant(name, clock.contestant(name, [1.0])) for name in names]
    measurement = measure(case_of(contestants), SETTINGS, stopwatch=clock)
    assert measurement.order == tuple("abc bca cab abc".replace(" ", ""))
    after_rounds = len(names)  # each is checked once more
    assert tuple(clock.log[-len(measurement.order) - after_rounds : -after_rounds]) == (
        measurement.order
    )


def test_quantiles_ratios_and_shares_are_taken_within_rounds():
    clock = Clock()
    before = [1.0] * BEFORE_ROUNDS
    # The machine slows down twofold from round to round; ratios must not see that.
    ours = clock.contestant("ours", [*before, 1.0, 2.0, 4.0, 8.0])
    slow = clock.contestant("slow", [*before, 9.0, 18.0, 36.0, 72.0])
    best = clock.contestant("best", [*before, 3.0, 6.0, 12.0, 24.0])
    # A ceiling is not checked, so its rounds begin one call earlier.
    limit = clock.contestant("limit", [*before[1:], 0.5, 1.0, 2.0, 4.0])
    loose = clock.contestant("loose", [1.0])
    case = case_of(
        [Contestant("ours", ours), Contestant("slow", slow, True), Contestant("best", best, True)],
        [Ceiling("limit", "GB/s", 3.0, limit), Ceiling("loose", "GB/s", 1.0, loose)],
    )
    measurement = measure(case, SETTINGS, stopwatch=clock)
    ours, slow, best, limit, _ = measurement.timings
    assert ours.seconds.tolist() == [1.0, 2.0, 4.0, 8.0]
    assert ours.quantiles == pytest.approx((1.6, 3.0, 5.6))
    assert measurement.best_peer is best
    assert measurement.ratio(ours) == pytest.approx((3.0, 3.0, 3.0))
    assert measurement.ratio(slow) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert measurement.ratio(limit) is None
    assert measurement.ceiling.name == "limit"
    assert measurement.ceiling_value(measurement.ceiling) == pytest.approx(3.0 / 1.5)
    assert measurement.ceiling_share(ours) == pytest.approx(0.5)
    assert measurement.unit_value(ours) == pytest.approx(100 / 3.0)


def test_background_work_is_resumed_and_paused_around_every_sample():
    events = []

    class Call:
        def __call__(self):
            events.append("call")
            return 42.0

        def resume(self):
            events.append("resume")

        def pause(self):
            events.append("pause")

        def close(self):
            events.append("close")

    def stopwatch(run) -> float:
        events.append("start")
        run()
        events.append("stop")
        return 1.0

    case = case_of([Contestant("loader", lambda _: Call())])
    measure(case, replace(SETTINGS, rounds=2), stopwatch=stopwatch)
    untimed = ["resume", "call", "pause"]
    timed = ["resume", "start", "call", "stop", "pause"]
    warmup_and_rounds = 1 + 2
    assert events == [*untimed * 2, *timed * warmup_and_rounds, *untimed, "close"]


def test_short_calls_are_repeated_within_a_sample():
    clock = Clock()
    case = case_of([Contestant("short", clock.contestant("short", [0.25]))])
    settings = replace(SETTINGS, rounds=1, sample_seconds=1.0)
    timing = measure(case, settings, stopwatch=clock).timings[0]
    assert timing.seconds.tolist() == [0.25]  # seconds per call, not per sample
    assert len(clock.log) == BEFORE_ROUNDS + 4 + 1


def test_contestants_of_one_name_and_ceilings_of_two_units_are_refused():
    twice = [Contestant("a", lambda _: lambda: 42.0)] * 2
    with pytest.raises(ValueError, match="a name of its own"):
        measure(case_of(twice))
    ceilings = [
        Ceiling("copy", "GB/s", 1.0, lambda _: lambda: None),
        Ceiling("gemm", "TFLOP/s", 1.0, lambda _: lambda: None),
    ]
    with pytest.raises(ValueError, match=r"GB/s.*TFLOP/s"):
        measure(case_of(twice[:1], ceilings))


def test_what_cannot_run_is_left_out_and_told():
    def unavailable(_):
        raise BackendUnavailable("answer: backend 'abacus' cannot serve this call")

    def broken(_):
        raise RuntimeError("no kernel image\nand more")

    clock = Clock()
    right = Contestant("right", clock.contestant("right", [1.0]))
    wrong = clock.contestant("wrong", [1.0], answer=41.0)
    contestants = [
        Contestant("abacus", unavailable),
        right,
        Contestant("broken", broken, peer=True, optional=True),
        Contestant("wrong", wrong, peer=True, optional=True),
    ]
    measurement = measure(case_of(contestants), SETTINGS, stopwatch=clock)
    assert [timing.name for timing in measurement.timings] == ["right"]
    assert clock.log.count("wrong") == 1  # checked, and not timed
    assert measurement.left_out.keys() == {"abacus", "broken", "wrong"}
    assert measurement.left_out["broken"] == "RuntimeError: no kernel image"
    assert "41.0; 42 fits" in measurement.left_out["wrong"]
    assert "left out: broken: RuntimeError: no kernel image" in table.text(measurement)
    with pytest.raises(RuntimeError, match="no kernel image"):
        measure(case_of([Contestant("broken", broken)]), SETTINGS, stopwatch=clock)


def test_a_call_that_does_the_work_several_times_is_divided_and_named():
    class Graph:
        repeats, note = 4, ", in fours"
        plain_calls = 0

        def __call__(self):
            clock.now += 1.0
            return 42.0

        def plain(self):
            self.plain_calls += 1

    clock, graph = Clock(), Graph()
    measurement = measure(
        case_of([Contestant("graph", lambda _: graph)]), SETTINGS, stopwatch=clock
    )
    [timing] = measurement.timings
    assert timing.name == "graph, in fours"
    assert timing.seconds.tolist() == [0.25] * SETTINGS.rounds
    assert graph.plain_calls == 1
    assert set(measurement.order) == {"graph, in fours"}


def test_with_a_folder_for_results_a_failed_case_stops_nothing(tmp_path, monkeypatch, capsys):
    clock = Clock()
    good = case_of([Contestant("right", clock.contestant("right", [1.0]))])
    bad = replace(good, shape="B=2", contestants=[Contestant("wrong", lambda _: lambda: 41.0)])
    monkeypatch.setattr(run.registry, "known", lambda: ["answer"])
    cases = {"quick": [good, bad, replace(good, shape="B=3")]}
    monkeypatch.setattr(run.registry, "cases", lambda op, quick, device: cases["quick"])
    monkeypatch.setenv("PYSEQ_COMMIT", "0123abc")
    assert run.main(["answer", "--quick", "--device", "cpu", "--results", str(tmp_path)]) == 1
    assert "1 of 3 cases failed; B=2, forward, float32: answer" in capsys.readouterr().err
    [path] = tmp_path.glob("*/answer.csv")
    stored = rows.read(path)
    assert [row["shape"] for row in stored] == ["B=1", "B=3"]
    assert {row["commit"] for row in stored} == {"0123abc"}
    cases["quick"] = [good]
    assert run.main(["answer", "--quick", "--device", "cpu", "--results", str(tmp_path)]) == 0


def test_only_the_cases_that_were_asked_for_run_and_their_rows_have_one_date(
    tmp_path, monkeypatch, capsys
):
    clock = Clock()
    case = case_of([Contestant("right", clock.contestant("right", [1.0]))])
    found = [replace(case, shape="B=1 T=16"), replace(case, shape="B=16"), case]
    monkeypatch.setattr(run.registry, "known", lambda: ["answer"])
    monkeypatch.setattr(run.registry, "cases", lambda op, quick, device: found)
    times = iter(["first", "second"])
    monkeypatch.setattr(run.machine, "now", lambda: next(times, "later"))
    asked = ["answer", "--quick", "--device", "cpu", "--results", str(tmp_path), "--only"]
    assert run.main([*asked, "float32 B=1"]) == 0
    [path] = tmp_path.glob("*/answer.csv")
    stored = rows.read(path)
    assert [row["shape"] for row in stored] == ["B=1 T=16", "B=1"]
    assert {row["date"] for row in stored} == {"first"}
    assert run.main([*asked, "float32 B=2"]) == 2
    assert "no case has all of 'float32 B=2'; there are forward B=1" in capsys.readouterr().err


def test_results_are_kept_until_they_do_not_fit_in_the_cache():
    cache = harness.cache_bytes()
    assert harness.results_past_cache(cache) == 4
    assert harness.results_past_cache(4 * cache - 1) == 2
    assert harness.results_past_cache(0) == 0
    following = harness.rotate("ab")
    assert [following() for _ in range(5)] == list("ababa")


def test_threads_are_set_for_the_measurement_and_put_back():
    before = torch.get_num_threads()
    seen = []

    def call() -> float:
        seen.append(torch.get_num_threads())
        return 42.0

    case = case_of([Contestant("a", lambda _: call)])
    measurement = measure(case, replace(SETTINGS, threads=1), stopwatch=lambda run: run() or 1.0)
    assert set(seen) == {1}
    assert measurement.threads == 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("ones", [np.ones, torch.ones], ids=["numpy", "torch"])
def test_peak_memory_counts_what_a_call_touches(ones):
    size = 64 * MIB
    item = ones(1).itemsize
    peak = peak_extra_bytes(lambda: ones(size // item))
    if peak is None:
        pytest.skip("this system keeps no resettable high-water mark")
    assert size * 0.95 < peak < size * 1.2
    held = ones(size // item)
    assert peak_extra_bytes(lambda: held.sum()) < size * 0.2


def test_rows_are_appended_under_a_fixed_header(tmp_path):
    clock = Clock()
    case = case_of(
        [
            Contestant("ours", clock.contestant("ours", [1.0])),
            Contestant("theirs", clock.contestant("theirs", [2.0]), peer=True),
        ],
        [Ceiling("copy", "GB/s", 6.0, clock.contestant("copy", [1.0]))],
    )
    measurement = measure(case, SETTINGS, stopwatch=clock)
    path = rows.store([measurement], tmp_path)
    assert path.parent.parent == tmp_path
    assert path.name == "answer.csv"
    before = path.read_bytes()
    assert before.decode().splitlines()[0] == ",".join(rows.COLUMNS)
    assert rows.store([measurement], tmp_path) == path
    assert path.read_bytes().startswith(before)
    ours, theirs, copy = rows.read(path)[-3:]
    assert len(rows.read(path)) == 6
    assert (ours["p50"], ours["unit_value"], ours["ratio"]) == ("1", "100", "2")
    assert (ours["ceiling"], ours["ceiling_value"]) == ("copy (GB/s)", "6")
    assert (ours["ceiling_share"], ours["peer"], ours["rounds"]) == ("0.5", "theirs", "4")
    assert (theirs["role"], theirs["ratio"]) == ("peer", "1")
    assert (copy["role"], copy["unit"], copy["ratio"]) == ("ceiling", "GB/s", "")
    assert all(ours[name] for name in ("device", "torch", "python", "isa", "commit", "date"))


def test_a_changed_header_is_refused_and_nothing_written(tmp_path):
    path = tmp_path / "op.csv"
    path.write_text("op,backend,milliseconds\ngather,numpy,3\n")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"header 'op,backend,milliseconds'"):
        rows.append(path, [dict.fromkeys(rows.COLUMNS, "1")])
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="columns"):
        rows.read(path)


def test_the_load_of_others_is_seen(tmp_path, monkeypatch):
    path = tmp_path / "stat"
    path.write_text("cpu 10 0 10 100 0 0 0 0 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    later = "cpu 20 5 10 150 10 5 0 20 0 0\n"  # busy 40 of 100 ticks, 20 of them stolen
    monkeypatch.setattr(machine, "PROC_STAT", path)
    monkeypatch.setattr(machine.time, "sleep", lambda _: path.write_text(later))
    assert machine.others_share() == pytest.approx(0.4)
