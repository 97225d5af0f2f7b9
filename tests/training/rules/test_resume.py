"""kill -9, signals, other settings: how a rule training goes on."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from pyseq.analysis.rules import read_record
from pyseq.errors import UserError
from pyseq.models.rules import LSTMConfig
from pyseq.training.interruption import TrainingStopped
from pyseq.training.rules.run import train_rules
from tests.training.rules.small_rules import rules_config, timeless, weights
from tests.training.small_runs import act_in

# Dropout draws from torch's generator, whose state must come back too; a seed leaves on the way.
SETTINGS = {
    "grammar": "baN", "seeds": 3, "patience": 1, "max_steps": 40, "validate_every": 4, "lr": 0.3,
    "schedule": "constant", "lstm": LSTMConfig(embedding=6, hidden=12, layers=1, dropout=0.3),
}  # fmt: skip

# Killed in the middle of everything: while a step is made, between the rows of a validation and
# the state, and while the state is written.
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.training.rules.small_rules import rules_config
from tests.training.rules.test_resume import SETTINGS
from pyseq.training.callbacks import LastCheckpoint, StopAtEnd
from pyseq.training import checkpoint_io
from pyseq.training.rules.run import train_rules

where, step = sys.argv[2], int(sys.argv[3])
owner, name = {
    "batch": (StopAtEnd, "on_train_batch_end"),
    "validation": (LastCheckpoint, "on_validation_end"),
    "state": (checkpoint_io, "replace_file"),
}[where]
before, calls = getattr(owner, name), []

def kill(*arguments, **more):
    calls.append(1)
    if len(calls) == step:
        os.kill(os.getpid(), signal.SIGKILL)
    return before(*arguments, **more)

setattr(owner, name, kill)
train_rules(rules_config(Path(sys.argv[1]), resume="auto", **SETTINGS), told=False)
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    record = train_rules(rules_config(folder, **SETTINGS), told=False)
    lengths = [len(rows) for rows in record.histories]
    assert min(lengths) == 3  # at step 12
    assert max(lengths) > 3
    return folder


def assert_alike(folder: Path, other: Path) -> None:
    """Both runs have the same rows, stops and weights, bit for bit."""
    assert timeless(other / "run") == timeless(folder / "run")
    ours, theirs = (read_record(where / "run" / "record.json") for where in (folder, other))
    assert ours.stops == theirs.stops
    for name in ("model.pt", "last.pt"):
        expected, found = weights(folder / "run" / name), weights(other / "run" / name)
        for key, tensor in expected.items():
            assert torch.equal(found[key], tensor), (name, key)


@pytest.mark.parametrize(
    ("where", "step"), [("batch", 2), ("batch", 11), ("batch", 14), ("validation", 2), ("state", 3)]
)
def test_a_killed_training_goes_on_as_if_nothing_had_been(tmp_path, whole, where, step):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), where, str(step)],
        capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[3], check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "run" / "record.json").exists()
    train_rules(rules_config(tmp_path, resume="auto", **SETTINGS), told=False)
    assert_alike(whole, tmp_path)


def test_a_signal_saves_the_state_and_says_how_to_go_on(tmp_path, whole, monkeypatch):
    with monkeypatch.context() as once:
        act_in(
            once,
            "on_train_batch_start",
            lambda trainer: trainer.global_step == 9 and os.kill(os.getpid(), signal.SIGTERM),
        )
        with pytest.raises(TrainingStopped) as end:
            train_rules(rules_config(tmp_path, **SETTINGS), told=False)
    folder = tmp_path / "run"
    assert str(end.value) == (
        f"stopped by SIGTERM; saved step 10 in {folder}/last;"
        f" to go on: pyseq rules train --config {folder}/config.yaml --resume auto"
    )
    # Nothing is left to do that would bring the validation and the end of the seeds.
    with pytest.raises(UserError, match=r"after 10 steps, .*; --max_steps 11 and more"):
        train_rules(
            rules_config(tmp_path, resume="auto", **SETTINGS | {"max_steps": 10}), told=False
        )
    train_rules(rules_config(tmp_path, resume="auto", **SETTINGS), told=False)
    assert_alike(whole, tmp_path)


def test_a_finished_training_is_only_reported_again(tmp_path):
    settings = {"max_steps": 6}
    first = train_rules(rules_config(tmp_path, **settings), told=False)
    before = weights(tmp_path / "run" / "model.pt")
    for name in ("record.json", "model.pt"):
        (tmp_path / "run" / name).unlink()
    again = train_rules(rules_config(tmp_path, **settings, resume="auto"), told=False)
    assert again.histories == first.histories
    after = weights(tmp_path / "run" / "model.pt")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_more_steps_than_before_are_the_same_training(tmp_path, whole):
    settings = SETTINGS | {"max_steps": 8}
    few = train_rules(rules_config(tmp_path, **settings), told=False)
    assert few.stops == ["max_steps"] * 3
    assert "max_steps 8" in few.variant
    record = train_rules(rules_config(tmp_path, resume="auto", **SETTINGS), told=False)
    assert_alike(whole, tmp_path)
    assert record.config["max_steps"] == 40
    # Patience ended what 40 steps did not: no bound on steps tells this run from a longer one.
    ended = {"patience"} == set(record.stops)
    assert ("max_steps" in record.variant) is not ended
    steps = record.steps
    with pytest.raises(
        UserError, match=f"has made {steps} steps, more than --max_steps 8; {steps}"
    ):
        train_rules(rules_config(tmp_path, resume="auto", **settings), told=False)


def test_a_cosine_follows_the_number_of_steps(tmp_path):
    settings = {"max_steps": 6, "schedule": "cosine"}
    train_rules(rules_config(tmp_path, **settings), told=False)
    more = rules_config(tmp_path, resume="auto", **settings | {"max_steps": 12})
    with pytest.raises(UserError, match="had max_steps 6, now it is 12; the same settings fit"):
        train_rules(more, told=False)


def test_other_settings_are_refused_and_resume_never_begins_anew(tmp_path):
    train_rules(rules_config(tmp_path, max_steps=6), told=False)
    other = rules_config(tmp_path, max_steps=6, resume="auto", batch=8)
    with pytest.raises(UserError, match="had batch 16, now it is 8; the same settings fit"):
        train_rules(other, told=False)
    wider = dataclasses.replace(other, batch=16, lstm=LSTMConfig(hidden=24))
    with pytest.raises(UserError, match=r"had lstm \{.*'hidden': 12"):
        train_rules(wider, told=False)


def test_the_record_holds_what_the_rows_say(tmp_path):
    record = train_rules(rules_config(tmp_path, grammar="L3"), told=False)
    assert record.to_json() == json.loads((tmp_path / "run" / "record.json").read_text())
    rows = timeless(tmp_path / "run")
    for seed, history in zip(record.seeds, record.histories, strict=True):
        mine = [row for row in rows if row["seed"] == seed]
        assert [row["validation_loss"] for row in history] == [r["validation_loss"] for r in mine]
    assert record.floor == pytest.approx(torch.log(torch.tensor(6.0)).item() / 13)
    assert (record.grammar, record.model, record.max_length) == ("aNbN", "lstm", 12)
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert record.config == settings
    assert settings["lstm"]["hidden"] == 12
    assert "transformer" not in settings


def test_a_rate_that_was_found_is_told_also_after_going_on(tmp_path):
    settings = {"grammar": "baN", "lr_find": True, "max_steps": 6}
    first = train_rules(rules_config(tmp_path, **settings), told=False)
    assert first.config["lr"] != 1e-2
    again = train_rules(rules_config(tmp_path, **settings, resume="auto"), told=False)
    assert again.config == {**first.config, "resume": "auto"}
    assert again.variant == first.variant
