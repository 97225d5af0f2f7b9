"""SIGTERM, Ctrl-C and kill -9: where a training ends, what it says, and that nothing is lost."""

import gc
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

import pyseq.training.run
from pyseq.cli.main import main
from pyseq.training import fit as fit_module
from pyseq.training import interruption
from pyseq.training.checkpoint_io import has_checkpoint
from pyseq.training.fit import fit
from pyseq.training.interruption import SIGNALS, Interruption, TrainingStopped
from pyseq.training.metrics_file import MetricsFile
from pyseq.training.run import prepare
from tests.training.small_runs import (
    act_in,
    assert_alike,
    assert_logged_once,
    config,
    rows,
    state,
)

EXIT_CODES = {signal.SIGTERM: 0, signal.SIGINT: 130}
AT_ONCE = {signal.SIGTERM: 143, signal.SIGINT: 130}
SETTINGS = {"max_steps": 24, "epochs": 5, "gradient_accumulation": 3, "eval_every": 8,
            "save_every": 7, "dropout": 0.1, "log_every": 3}  # fmt: skip


@pytest.fixture(autouse=True)
def handlers_stay():
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.fixture(scope="module")
def whole(markov, tmp_path_factory):
    """An uninterrupted run and its outcome."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, fit(prepare(config(markov, folder, **SETTINGS)))


def sending(*numbers: int, step: int | None = None):
    """Send this process signals, once, at an optimiser step."""
    left = list(numbers)

    def act(trainer=None):
        while left and step in (None, getattr(trainer, "global_step", None)):
            os.kill(os.getpid(), left.pop(0))

    return act


def stopped(settings, *hooks, patch) -> TrainingStopped:
    """How a training ends in which `hooks`, pairs of a name and an act, act."""
    with patch.context() as once:
        for hook, act in hooks:
            act_in(once, hook, act)
        with pytest.raises(TrainingStopped) as end:
            fit(prepare(settings))
    return end.value


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("hook", "step", "saved"),
    [
        ("on_train_batch_start", 4, 5),  # at the first of three batches of a step
        ("on_before_optimizer_step", 6, 7),  # at the last of them; saved then anyway
        ("on_validation_batch_start", 8, 8),
        ("on_validation_end", 16, 16),
    ],
)
def test_a_signal_ends_the_training_at_a_whole_step(
    markov, tmp_path, monkeypatch, capfd, whole, number, hook, step, saved
):
    settings = config(markov, tmp_path, **SETTINGS)
    end = stopped(settings, (hook, sending(number, step=step)), patch=monkeypatch)
    assert (end.received, end.exit_code) == (number, EXIT_CODES[number])
    name = signal.Signals(number).name
    folder = tmp_path / "model.run"
    assert str(end) == (
        f"stopped by {name}; saved step {saved} in {folder}/last;"
        f" to go on: pyseq train --config {folder}/config.yaml --resume auto"
    )
    said = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("step ")]
    assert said == [f"{name}: saving after this step; again to stop at once"]
    assert (state(tmp_path)["global_step"], state(tmp_path)["finished"]) == (saved, False)
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "last", "metrics.csv", "metrics.jsonl", "tensorboard",
    }  # fmt: skip
    expected = [row for row in rows(whole[0]) if row["step"] <= saved]
    assert rows(tmp_path) == expected  # and no validation but those that were due
    fit(prepare(config(markov, tmp_path, **SETTINGS, resume="auto")))
    assert_alike(whole[0], tmp_path)
    assert_logged_once(tmp_path)


@pytest.mark.parametrize(("first", "second"), [SIGNALS, SIGNALS[::-1], SIGNALS[:1] * 2])
def test_a_second_signal_stops_at_once(
    markov, tmp_path, monkeypatch, whole, unevaluated, first, second
):
    monkeypatch.setattr(interruption, "SAME_SECONDS", 0)
    settings = config(markov, tmp_path, **SETTINGS)
    act = sending(first, second, step=11)
    end = stopped(settings, ("on_train_batch_start", act), patch=monkeypatch)
    assert (end.received, end.exit_code) == (second, AT_ONCE[second])
    assert f"stopped by {signal.Signals(second).name}; at once, without saving; to go on" in str(
        end
    )
    assert state(tmp_path)["global_step"] == 7
    fit(prepare(config(markov, tmp_path, **SETTINGS, resume="auto")))
    assert_alike(whole[0], tmp_path)


def test_the_same_signal_twice_in_an_instant_is_one(markov, tmp_path, monkeypatch):
    """timeout(1) sends it to the process, and to the group that the process is in."""
    settings = config(markov, tmp_path, **SETTINGS)
    act = sending(signal.SIGTERM, signal.SIGTERM, step=11)
    end = stopped(settings, ("on_train_batch_start", act), patch=monkeypatch)
    assert end.exit_code == 0
    assert state(tmp_path)["global_step"] == 12


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("hook", ["setup", "on_train_start"])
def test_a_signal_before_the_first_step(
    markov, tmp_path, monkeypatch, whole, unevaluated, number, hook
):
    """Nothing is saved, in a new run and in one that goes on, and nothing is lost."""
    settings = config(markov, tmp_path, **SETTINGS)
    end = stopped(settings, (hook, sending(number)), patch=monkeypatch)
    assert end.exit_code == EXIT_CODES[number]
    assert "no step was made; to go on" in str(end)
    assert not has_checkpoint(tmp_path / "model.run" / "last")
    assert rows(tmp_path) == []
    settings = config(markov, tmp_path, **SETTINGS, resume="auto")
    stopped(settings, ("on_train_batch_end", sending(number, step=10)), patch=monkeypatch)
    end = stopped(settings, (hook, sending(number)), patch=monkeypatch)
    assert "no step was made; to go on" in str(end)
    assert state(tmp_path)["global_step"] == 10
    fit(prepare(settings))
    assert_alike(whole[0], tmp_path)


@pytest.mark.parametrize(
    ("step", "words"), [(7, "; saved step 8 in"), (24, "; all steps are made and saved; ")]
)
def test_a_signal_while_a_state_is_saved(
    markov, tmp_path, monkeypatch, whole, unevaluated, step, words
):
    """It is for the next step, if there is one."""
    act, save = sending(signal.SIGTERM, step=step), Trainer.save_checkpoint

    def interrupted_save(trainer, *args):
        act(trainer)
        save(trainer, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save_checkpoint", interrupted_save)
        end = stopped(config(markov, tmp_path, **SETTINGS), patch=patch)
    assert end.exit_code == 0
    assert words in str(end)
    fit(prepare(config(markov, tmp_path, **SETTINGS, resume="auto")))
    assert_alike(whole[0], tmp_path)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_at_the_last_step(markov, tmp_path, monkeypatch, whole, number):
    """The training is complete, only its evaluation is not made."""
    settings = config(markov, tmp_path, **SETTINGS)
    act = sending(number, step=24)
    end = stopped(settings, ("on_validation_batch_start", act), patch=monkeypatch)
    assert end.exit_code == EXIT_CODES[number]
    assert "saved step 24 in" in str(end)
    assert state(tmp_path)["finished"]
    assert not (tmp_path / "model.run" / "summary.json").exists()
    outcome = fit(prepare(config(markov, tmp_path, **SETTINGS, resume="auto")))
    assert outcome.summary["test"] == whole[1].summary["test"]
    assert_alike(whole[0], tmp_path)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("moment", ["evaluate", "write_report"])
def test_a_signal_after_the_last_step(markov, tmp_path, monkeypatch, whole, number, moment):
    """The evaluation or the report is cut short, and made when the run goes on."""
    act, real = sending(number), getattr(fit_module, moment)

    def interrupted(*args, **kwargs):
        act()
        return real(*args, **kwargs)

    monkeypatch.setattr(fit_module, moment, interrupted)
    end = stopped(config(markov, tmp_path, **SETTINGS), patch=monkeypatch)
    assert end.exit_code == EXIT_CODES[number]
    assert not (tmp_path / "model.run" / "report.html").exists()
    assert state(tmp_path)["finished"]
    outcome = fit(prepare(config(markov, tmp_path, **SETTINGS, resume="auto")))
    assert outcome.summary["test"] == whole[1].summary["test"]
    assert outcome.report.exists()
    assert_alike(whole[0], tmp_path)


def test_the_progress_bar_is_done_when_a_signal_has_stopped_it(
    markov, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    settings = config(markov, tmp_path, **SETTINGS)
    stopped(settings, ("setup", sending(signal.SIGINT)), patch=monkeypatch)  # before it is there
    act = sending(signal.SIGINT, step=9)
    stopped(settings, ("on_train_batch_start", act), patch=monkeypatch)
    assert "bits=" in capsys.readouterr().out
    gc.collect()
    assert capsys.readouterr().out == ""


def test_other_threads_can_train(markov, tmp_path, whole):
    """There Python lets nobody set handlers."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(fit, prepare(config(markov, tmp_path, **SETTINGS))).result()
    assert_alike(whole[0], tmp_path)


def test_what_is_ignored_stays_ignored():
    """As in a job that a script has put into the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption():
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(TrainingStopped):
                os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_python_drops_is_obeyed_when_the_training_begins(markov, tmp_path):
    """What is raised where weak references die, as they do in imports, reaches nobody."""
    mortal = {1}
    reference = weakref.ref(mortal, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    run = prepare(config(markov, tmp_path, **SETTINGS))
    with Interruption():
        del mortal
        assert reference() is None
        with pytest.raises(TrainingStopped, match="stopped by SIGTERM"):
            fit(run)
    assert list((tmp_path / "model.run").iterdir()) == []


def line(command: str, markov, folder: Path, *more: str) -> list[str]:
    """A command line for a small training; the demo chooses for itself."""
    if command == "demo":
        return ["demo", "--out", str(folder), "--minutes", "0.03"]
    return [command, "--u16_path", markov, "--ckpt", str(folder / "model.pt"), "--d_model", "16",
            "--nlayers", "1", "--nhead", "2", "--dim_ff", "24", "--seq_len", "32", "--batch", "8",
            "--max_steps", "12", "--eval_every", "5", "--eval_symbols", "1000", *more]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "number"),
    [("train", signal.SIGINT), ("supercharged", signal.SIGTERM), ("demo", signal.SIGTERM)],
)
def test_commands_stop_and_say_how_to_go_on(markov, tmp_path, monkeypatch, capsys, command, number):
    with monkeypatch.context() as once:
        act_in(once, "on_train_batch_start", sending(number, step=3))
        assert main(line(command, markov, tmp_path)) == EXIT_CODES[number]
    said = capsys.readouterr().err.splitlines()
    start = f"pyseq {command}: stopped by {signal.Signals(number).name}; saved step 4 in"
    assert said[-1].startswith(start)
    again = shlex.split(said[-1].split("to go on: ")[1])
    assert again[0] == "pyseq"
    assert main(again[1:]) == 0
    assert f"resumed from {tmp_path}/model.run/last" in capsys.readouterr().out
    assert state(tmp_path)["finished"]


@pytest.mark.parametrize("command", ["train", "supercharged", "demo"])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_before_a_training_is_set_up(
    markov, tmp_path, monkeypatch, capsys, command, number
):
    act = sending(number)
    monkeypatch.setattr(pyseq.training.run, "prepare", lambda config: act())
    assert main(line(command, markov, tmp_path)) == EXIT_CODES[number]
    name = signal.Signals(number).name
    assert (
        capsys.readouterr().err == f"pyseq {command}: stopped by {name}; no training was running\n"
    )
    written = ["stdlib.u16", "stdlib.u16.json"] if command == "demo" else []
    assert sorted(path.name for path in tmp_path.iterdir()) == written


def test_resuming_nothing_begins_anew_and_says_so(markov, tmp_path, capsys):
    assert main(line("train", markov, tmp_path, "--resume", "auto")) == 0
    out = capsys.readouterr().out
    assert f"nothing to resume in {tmp_path}/model.run: a new training begins" in out


STEPS, EVAL_EVERY = 90, 15
BASELINE = ["train", "--gradient_accumulation", "3", "--batch", "8", "--dropout", "0.1"]
SUPERCHARGED = ["supercharged", "--batch", "8", "--local_width", "32", "--memory", "4", "--patch",
                "8", "--stochastic_depth", "0.3", "--scale_bins", "16"]  # fmt: skip


def chain_line(start: list[str], markov, folder: Path, *more: str) -> list[str]:
    """A training in which log rows, validations and states fall on different steps."""
    return [*start, "--u16_path", markov, "--ckpt", str(folder / "model.pt"), "--d_model", "32",
            "--nlayers", "2", "--nhead", "2", "--dim_ff", "48", "--seq_len", "32", "--epochs", "9",
            "--max_steps", str(STEPS), "--eval_every", str(EVAL_EVERY), "--eval_symbols", "1000",
            "--save_every", "4", "--log_every", "3", "--lr", "3e-3", *more]  # fmt: skip


class Watched:
    """A training in a process of its own, and what its files show of it."""

    def __init__(self, line: list[str], folder: Path):
        self.run = folder / "model.run"
        self.before = self.unfinished(), self.metrics()
        resumes = has_checkpoint(self.run / "last")
        self.resumed_step = state(folder)["global_step"] if resumes else 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pyseq", *line, "--resume", "auto"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            # Also where the tests run in a background job.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def unfinished(self) -> set[Path]:
        """Files of states that are being written, or that a kill has left."""
        return set((self.run / "last").glob(".*.partial"))

    def metrics(self) -> int | None:
        """Which file the metrics are in: each process begins a new one."""
        file = self.run / "metrics.jsonl"
        return file.stat().st_ino if file.exists() else None

    def new_rows(self) -> list[dict]:
        """What this process has written."""
        if self.metrics() == self.before[1]:
            return []
        return [row for row in MetricsFile.read(self.run) if row["step"] > self.resumed_step]

    def phase(self) -> str:
        """What it is doing now."""
        rows = self.new_rows()
        if self.unfinished() - self.before[0]:
            return "checkpoint"
        if not rows:
            finished = self.resumed_step == STEPS and self.metrics() != self.before[1]
            return "evaluation" if finished else "set-up"
        if "val_bits" in rows[-1]:
            return "evaluation" if rows[-1]["step"] == STEPS else "step"
        return "validation" if rows[-1]["step"] % EVAL_EVERY == 0 else "step"

    def wait_for(self, phase: str, rng: random.Random) -> None:
        """Return in the middle of a phase, after some steps, or at the end if it is missed."""
        if phase == "set-up":
            status = Path(f"/proc/{self.process.pid}/status")
            while not handles(status, signal.SIGTERM):  # before that Python itself sets up
                time.sleep(0.002)
            time.sleep(rng.uniform(0.0, 1.2))
            return
        least = 1 if phase == "evaluation" else rng.randrange(2, 7)
        while self.process.poll() is None:
            if len(self.new_rows()) >= least and self.phase() == phase:
                break
            time.sleep(0.002)
        latest = {"checkpoint": 0.0, "evaluation": 0.2}.get(phase, 0.01)
        time.sleep(rng.uniform(0.0, latest))


def handles(status: Path, number: int) -> bool:
    """Whether a process has a handler for a signal, by its /proc/PID/status."""
    caught = int(re.search(r"SigCgt:\s*(\w+)", status.read_text())[1], 16)
    return bool(caught >> (number - 1) & 1)


def interrupted(line: list[str], folder: Path, kind: int, wanted: str, rng: random.Random) -> str:
    """Start a training, interrupt it, check what it says; returns the phase that was hit."""
    watched = Watched(line, folder)
    watched.wait_for(wanted, rng)
    phase = watched.phase()
    watched.process.send_signal(kind)
    err = watched.process.communicate(timeout=300)[1]
    code, said = watched.process.returncode, err.splitlines()
    said = [each for each in said if not each.startswith("step ")]
    if kind == signal.SIGKILL:
        assert (code, said) == (-signal.SIGKILL, [])
        # What the kill has left says more than what was seen before it.
        return "checkpoint" if watched.unfinished() - watched.before[0] else phase
    assert code == EXIT_CODES[kind], err
    assert said[-1].startswith(f"pyseq {line[0]}: stopped by {signal.Signals(kind).name}; "), err
    saved = re.search(r"saved step (\d+) in", said[-1])
    if saved is None:
        assert phase in ("set-up", "evaluation") or state(folder)["finished"], err
        return phase
    assert said[:-1] == [
        f"{signal.Signals(kind).name}: saving after this step; again to stop at once"
    ]
    assert state(folder)["global_step"] == int(saved[1])
    assert {row["step"] for row in rows(folder)} <= set(range(int(saved[1]) + 1))
    return phase


@pytest.mark.slow
def test_twenty_interruptions_change_nothing(markov, tmp_path):
    """Real processes, two models, random kinds of interruptions at random moments.

    Four trainings are interrupted five times each and go on each time; they end as those end that
    nobody interrupts: parameters, best model, metrics, and TensorBoard's curves.
    """
    for name, start in (("baseline", BASELINE), ("supercharged", SUPERCHARGED)):
        (tmp_path / name).mkdir()
        assert main(chain_line(start, markov, tmp_path / name)) == 0
    wanted = ["set-up"] * 4 + ["step"] * 6 + ["validation"] * 4 + ["checkpoint"] * 4
    random.Random(0).shuffle(wanted)
    for last in (4, 9):  # of a chain
        wanted.insert(last, "evaluation")
    kinds = [signal.SIGTERM, signal.SIGINT, signal.SIGKILL] * 6 + [signal.SIGKILL] * 2
    random.Random(1).shuffle(kinds)
    plan = list(zip(wanted, kinds, strict=True))

    def chain(number: int) -> list[str]:
        name, start = [("baseline", BASELINE), ("supercharged", SUPERCHARGED)][number % 2]
        folder, rng = tmp_path / f"{name}{number}", random.Random(number)
        folder.mkdir()
        line = chain_line(start, markov, folder)
        hit = [
            interrupted(line, folder, kind, phase, rng)
            for phase, kind in plan[5 * number : 5 * number + 5]
        ]
        assert Watched(line, folder).process.wait(300) == 0
        assert_alike(tmp_path / name, folder)
        assert_logged_once(folder)
        assert (folder / "model.run" / "report.html").exists()
        return hit

    with ThreadPoolExecutor(2) as pool:
        hit = Counter(phase for phases in pool.map(chain, range(4)) for phase in phases)
    print(dict(hit))
    assert hit.total() == 20
    least = {"set-up": 2, "step": 4, "validation": 2, "checkpoint": 2, "evaluation": 1}
    assert all(hit[phase] >= number for phase, number in least.items()), hit
