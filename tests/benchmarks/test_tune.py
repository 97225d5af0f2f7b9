"""The search for tiles: every knob reaches its kernel, and what is wrong or crashes is told."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks import registry, rows, tune
from benchmarks.harness import WrongAnswer
from benchmarks.tune import KNOBS, Outcome, Trial


def trial(name: str, **changed) -> Trial:
    case = KNOBS[name].cases("cpu", quick=True, small=True)[0]
    fields = KNOBS[name].candidates(quick=True)[0]
    made = Trial(name, 0, case.contestants[0].name, fields, "cpu", True)
    return replace(made, **changed)


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


def test_rows_have_what_there_is_and_each_candidate(tmp_path):
    assert tune.main(["patches", "--quick", "--rounds", "1", "--results", str(tmp_path)]) == 0
    [path] = tmp_path.glob("*/patch_embed_tiles.csv")
    stored = rows.read(path)
    peers = {row["backend"] for row in stored if row["role"] == "peer"}
    assert peers == {"triton as it is"}
    found = [row for row in stored if row["role"] == "contestant"]
    first, last = KNOBS["patches"].candidates(quick=True)
    of_each = [f"triton {tune._words(fields)}" for fields in (first, last)]
    assert {row["backend"] for row in found} == set(of_each)
    assert all(float(row["ratio"]) > 0 for row in found)


def test_a_process_that_dies_takes_its_candidate_only():
    unknown = trial("patches", knob="none such")
    outcome, of_the_next = tune.attempt_all([unknown, trial("patches")], workers=1)
    assert outcome.fatal
    assert "status 1" in outcome.refusal
    assert of_the_next == Outcome()


def test_a_wrong_answer_fails_the_run(monkeypatch):
    def check(inputs, result):
        raise WrongAnswer("off by 3")

    contestant = SimpleNamespace(name="triton", make=lambda inputs: lambda: 1)
    case = SimpleNamespace(contestants=[contestant], check=check)
    monkeypatch.setattr(tune, "_small_case", lambda *_: (case, None))
    outcome = tune.attempt(trial("patches", contestant="triton"))
    assert outcome == Outcome("wrong: off by 3", wrong=True)

    monkeypatch.setattr(tune, "attempt_all", lambda trials, workers: [outcome] * len(trials))
    assert tune.main(["patches", "--quick", "--rounds", "1"]) == 1


def test_what_breaks_the_device_ends_the_process(monkeypatch):
    def broken(inputs):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    contestant = SimpleNamespace(name="triton", make=broken)
    case = SimpleNamespace(contestants=[contestant], check=lambda inputs, result: None)
    monkeypatch.setattr(tune, "_small_case", lambda *_: (case, None))
    outcome = tune.attempt(trial("patches", contestant="triton"))
    assert outcome.wrong
    assert outcome.fatal
    assert outcome.refusal.endswith("illegal memory access was encountered")


@pytest.mark.parametrize("arguments", [["carburettor"], []])
def test_what_cannot_be_tuned_is_refused(arguments, capsys, monkeypatch):
    monkeypatch.setattr(tune.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        tune.main(arguments)
    error = capsys.readouterr().err
    assert "no knob is called carburettor" in error if arguments else "no GPU" in error
