"""The search for tiles: every knob reaches its kernel, and what is wrong or crashes is told."""

import importlib
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from benchmarks import gpu_summary, machine, registry, rows, tune
from benchmarks.harness import Contestant, Settings, WrongAnswer, measure
from benchmarks.knobs import KNOBS
from benchmarks.tune import Outcome, Trial

SETTINGS = Settings(rounds=1, sample_seconds=1e-9, warmup_seconds=0.0)


def trial(name: str, **changed) -> Trial:
    fields = KNOBS[name].candidates(quick=True)[0]
    return Trial(**{"knob": name, "number": 0, "fields": fields, "device": "cpu", "quick": True}
                 | changed)  # fmt: skip


@pytest.fixture
def spawned(monkeypatch):
    """What is started in the tests runs kernels in the interpreter."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.mark.parametrize("name", KNOBS)
def test_every_knob_reaches_its_kernel(name):
    right = trial(name)
    assert tune.attempt(right) == Outcome()
    first = next(iter(right.fields))
    odd = tune.attempt(trial(name, fields={**right.fields, first: 24}))
    assert "power of 2" in odd.refusal


def test_knobs_are_of_ops_that_are_timed_on_a_gpu():
    assert {knob.op for knob in KNOBS.values()} <= set(registry.on_gpu())
    for knob in KNOBS.values():
        assert len(knob.candidates(quick=False)) > len(knob.candidates(quick=True)) == 2
        assert knob.cases("cuda", quick=False, small=True)
        assert knob.cases("cuda", quick=False, small=False)


@pytest.mark.parametrize("attribute", ["", "plain"])
def test_what_is_timed_has_the_tiles_and_all_that_the_harness_asks_for(attribute):
    """Also of a call that does its work several times, whose time is divided."""
    knob, fields = KNOBS["patches"], {"block_n": 32}
    module = importlib.import_module("pyseq.kernels.patch_embed.limits")
    seen = []

    def call():
        seen.append(module.forward_tiles(100, 100, 16, tune.torch.float32).block_n)
        time.sleep(0.008 * call.repeats)

    call.repeats, call.note = 4, ", as always"
    call.plain = lambda: call()

    def make(inputs):
        call()
        return call

    candidate = tune._turned(knob, Contestant("triton", make), fields)
    made = candidate.make(None)
    (getattr(made, attribute) if attribute else made)()
    assert seen == [32, 32]
    assert module.forward_tiles(100, 100, 16, tune.torch.float32).block_n == 64
    [case] = knob.cases("cpu", quick=True, small=False)
    case = tune.replace(case, contestants=[candidate], check=lambda inputs, result: None)
    [timing] = measure(case, SETTINGS).timings
    assert timing.name.endswith(", as always")
    assert 0.008 <= timing.seconds[0] < 0.03


def test_rows_have_what_there_is_and_each_candidate(tmp_path, spawned):
    results = tmp_path / "results"
    arguments = ["--quick", "--rounds", "1", "--workers", "1", "--results", str(results)]
    assert tune.main(["adaptive_queries", "adaptive_keys", *arguments]) == 0
    for name in ("adaptive_queries", "adaptive_keys"):
        [path] = results.glob(f"*/{name}_tiles.csv")
        stored = rows.read(path)
        peers = {row["backend"] for row in stored if row["role"] == "peer"}
        assert peers == {"triton as it is"}
        found = [row for row in stored if row["role"] == "contestant"]
        of_each = [f"triton {tune._words(x)}" for x in KNOBS[name].candidates(quick=True)]
        assert {row["backend"] for row in found} == set(of_each)
        assert all(float(row["ratio"]) > 0 for row in found)
    page, _ = gpu_summary.page(tmp_path)
    lines = [line for line in page.splitlines() if line.startswith("- adaptive_")]
    assert [line.split()[1] for line in lines] == ["adaptive_keys_tiles", "adaptive_queries_tiles"]
    assert all(line.endswith(" of 3") for line in lines)


def test_ways_to_use_a_kernel_are_cases_of_their_own():
    shapes = [case.contestants[0].name for case in KNOBS["cosine_forward"].cases("cpu", True, True)]
    assert shapes == ["triton fused", "triton prepared"]
    assert len(KNOBS["cosine_keys"].cases("cpu", True, True)) == 1


def test_a_process_that_dies_takes_its_candidate_only(spawned):
    told = []
    unknown = trial("patches", knob="none such")
    trials = [unknown, trial("patches")]
    outcome, of_the_next = tune.attempt_all(trials, 1, lambda *pair: told.append(pair))
    assert outcome.fatal
    assert "ended its process" in outcome.refusal
    assert of_the_next == Outcome()
    assert told == list(zip(trials, [outcome, of_the_next], strict=True))


@pytest.mark.parametrize("program", ["print('ld: note')", "input(); import time; time.sleep(60)"])
def test_a_process_that_talks_or_hangs_is_ended(program, monkeypatch):
    monkeypatch.setattr(tune, "TRIAL_SECONDS", 1.0)
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda _, **options: popen([sys.executable, "-c", program], **options)
    )
    [outcome] = tune.attempt_all([trial("patches")], 1, lambda *_: None)
    assert outcome.fatal


def test_an_interrupt_ends_it(spawned):
    command = [sys.executable, "-m", "benchmarks.tune", "--quick", "--workers", "2", "hard_forward"]
    process = subprocess.Popen(
        command, cwd=machine.ROOT, start_new_session=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(4)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)  # its workers hold its stdout too
    assert process.returncode != 0


def test_a_wrong_answer_fails_the_run(monkeypatch, spawned):
    def check(inputs, result):
        raise WrongAnswer("off by 3")

    case = SimpleNamespace(contestants=[Contestant("triton", lambda _: lambda: 1)], check=check)
    with monkeypatch.context() as patch:
        patch.setattr(tune, "_small_case", lambda *_: (case, None))
        outcome = tune.attempt(trial("patches"))
    assert outcome == Outcome("wrong: off by 3", wrong=True)
    monkeypatch.setattr(tune, "attempt_all", lambda trials, workers, tell: [outcome] * len(trials))
    assert tune.main(["patches", "--quick", "--rounds", "1"]) == 1


@pytest.mark.parametrize("right", [7, 10])
def test_a_candidate_that_is_wrong_at_the_size_that_counts_fails_the_run(
    right, monkeypatch, spawned, capsys
):
    """Before it is timed, which leaves it out, or after it."""
    monkeypatch.setattr(tune, "attempt_all", lambda trials, *_: [Outcome()] * len(trials))
    [case] = KNOBS["patches"].cases("cpu", quick=True, small=False)
    checks = []

    def check(inputs, result):
        checks.append(result)
        if len(checks) > right:  # of nine before and three after
            raise WrongAnswer("off by 3")

    found = [tune.replace(case, check=check)]
    monkeypatch.setattr(tune.Knob, "cases", lambda *_, **__: found)
    assert tune.main(["patches", "--quick", "--rounds", "1"]) == 1
    assert "is wrong and is not timed: off by 3" in capsys.readouterr().out


def test_what_breaks_the_device_ends_the_process(monkeypatch):
    def broken(inputs):
        raise RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered\nmore")

    case = SimpleNamespace(contestants=[Contestant("triton", broken)], check=lambda *_: None)
    monkeypatch.setattr(tune, "_small_case", lambda *_: (case, None))

    def unusable():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    for works, synchronize in ((True, lambda: None), (False, unusable)):
        monkeypatch.setattr(tune.torch.cuda, "synchronize", synchronize)
        outcome = tune.attempt(trial("patches", device="cuda"))
        assert outcome.wrong is outcome.fatal is not works
        assert outcome.refusal.endswith("illegal memory access was encountered")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["carburettor"], "no knob is called carburettor; known: cosine_forward"),
        (["prepare_keys"], "prepare_keys has no knob"),
        (["--rounds", "0"], "0 rounds"),
        (["--workers", "0"], "0 workers"),
        ([], "no GPU that torch can use; --quick with TRITON_INTERPRET=1 needs none"),
        (["--quick"], "no GPU that torch can use"),
    ],
)
def test_what_cannot_be_tuned_is_refused(arguments, words, capsys, monkeypatch):
    monkeypatch.setattr(tune.torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(SystemExit) as caught:
        tune.main(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err
