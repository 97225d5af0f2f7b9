"""`pyseq fusion`: what its subcommands print, leave behind and refuse."""

import json
import os
import re
import runpy
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from pyseq.analysis.fusion import read_record
from pyseq.cli.main import main
from pyseq.data.modalities import find_data, locked_split, save_npz
from pyseq.training.fusion import techniques
from pyseq.training.fusion.model_store import load_ensemble
from pyseq.training.fusion.module import FusionTraining
from pyseq.training.interruption import present_interruption

TREE = Path(__file__).parents[2]
SMALL = ["--model.width", "16", "--model.heads", "2", "--model.encoder_layers", "1",
         "--model.fusion_layers", "1", "--model.classifier_layers", "1", "--widths", "16", "8",
         "--epochs", "3", "--cycle_epochs", "1", "--batch", "32", "--lr", "5e-3", "--folds", "2",
         "--device", "cpu"]  # fmt: skip


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(["fusion", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of a super-ensemble on wine, with everything on."""
    folder = tmp_path_factory.mktemp("fusion") / "run"
    everything = ["--strategy", "super_ensemble", "--weights", "fitted", "--snapshots", "--tta",
                  "2", "--mixup_alpha", "0.1", "0.4"]  # fmt: skip
    flags = ["--data", "wine", *SMALL, *everything, "--out", str(folder)]
    assert main(["fusion", "train", *flags]) == 0
    return folder


def test_training_leaves_a_folder_and_names_the_protocol(tmp_path, capsys):
    folder = tmp_path / "run"
    code, out, err = run(capsys, "train", "--data", "wine", *SMALL, "--out", str(folder))
    assert code == 0
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "model.safetensors", "record.json", "report.html"
    }  # fmt: skip
    assert re.search(r"single model +\d+\.\d\d \[\d", out)
    assert "36 test objects of wine" in out
    assert "once, by a locked split; choices were made on the validation part" in out
    assert re.search(
        r"single model: \d+\.\d\d % of the validation part, weights of epoch [1-5]", err
    )
    assert "36 of them locked away for the test" in err
    assert "<svg" in (folder / "report.html").read_text()
    record = read_record(folder / "record.json")
    data = find_data("wine")
    _, _, test = locked_split(data, 0)
    np.testing.assert_array_equal(record.label, data.label[test])
    assert record.protocol == "locked split"
    assert set(record.without) == set(data.names)
    assert set(record.corrupted) == {"noise of 0.5 deviations"}
    served = record.predictions["single model"]
    assert not np.allclose(served, record.corrupted["noise of 0.5 deviations"])
    assert all(not np.allclose(served, hidden) for hidden in record.without.values())


def test_the_whole_strategy_serves_every_model(trained, capsys):
    record = read_record(trained / "record.json")
    assert list(record.predictions) == ["super-ensemble", "k-fold", "ensemble", "full-data model"]
    assert list(record.histories)[::4] == ["fold 1", "all rows"]
    assert list(record.snapshots) == [2, 3]
    assert set(record.techniques) >= {"mixup", "snapshots", "test-time augmentation"}
    stored = load_ensemble(trained / "model.safetensors")
    assert len(stored.ensemble.members) == 5
    data = find_data("wine")
    tested = data.subset(locked_split(data, 0)[2])
    found = stored.ensemble.probabilities(tested, device="cpu")
    np.testing.assert_allclose(found, record.predictions["super-ensemble"], atol=1e-6)


def test_the_saved_settings_are_flags_again(trained, tmp_path, capsys):
    again = tmp_path / "again"
    code, _, err = run(
        capsys, "train", "--config", str(trained / "config.yaml"), "--out", str(again), "--no_save"
    )
    assert code == 0
    assert not (again / "model.safetensors").exists()
    first, second = (read_record(f / "record.json") for f in (trained, again))
    for name, given in first.predictions.items():
        np.testing.assert_array_equal(given, second.predictions[name])
    assert err.count(" of the held-out fold") == 2
    assert yaml.safe_load((again / "config.yaml").read_text())["save"] is False


def test_evaluation_scores_the_test_part_as_the_training_did(trained, capsys):
    code, out, _ = run(capsys, "evaluate", str(trained / "model.safetensors"), "--device", "cpu")
    assert code == 0
    assert "36 objects of wine" in out
    assert "scored: the test part of the data it was trained on" in out
    record = read_record(trained / "record.json")
    right = record.predictions["super-ensemble"].argmax(1) == record.label
    assert f"{100 * right.mean():.2f} [" in out
    assert "all rows" in out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data", "LEFT"], "modality left alone is one token"),
        (["--data", "STEPS", "--model.patch", "9"], "modality steps has 8 steps, one patch of 9"),
        (["--data", "wine", "--strategy", "k_fold", "--folds", "60"], "at least 60 fit, for 60"),
        # A fold has two groups of each class, but a fifth has not one.
        (["--data", "GROUPS", "--strategy", "super_ensemble"], "at least 5 fit, for 5 folds"),
    ],
)
def test_what_does_not_fit_leaves_an_earlier_run_as_it_was(tmp_path, capsys, flags, said):
    files = {
        "LEFT": arrays(right=None),
        "STEPS": arrays(steps=np.zeros((40, 8, 2), np.float32)),
        "GROUPS": arrays(group=np.arange(40) // 2 % 5 * 2 + np.arange(40) % 2),
    }
    for name, given in files.items():
        np.savez(tmp_path / f"{name}.npz", **given)
    flags = [str(tmp_path / f"{flag}.npz") if flag in files else flag for flag in flags]
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model.safetensors").write_text("an earlier one")
    code, _, err = run(capsys, "train", *SMALL, *flags, "--out", str(folder))
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1
    assert (folder / "model.safetensors").read_text() == "an earlier one"


def accuracy(out: str) -> float:
    return float(re.search(r"super-ensemble +(\d+\.\d\d) \[", out).group(1))


def test_evaluation_with_noise_and_without_modalities(trained, capsys):
    model = str(trained / "model.safetensors")
    record = read_record(trained / "record.json")
    _, out, _ = run(capsys, "evaluate", model, "--without", "taste", "--device", "cpu")
    right = record.without["taste"].argmax(1) == record.label
    assert accuracy(out) == pytest.approx(100 * right.mean(), abs=0.01)
    assert "wine, without taste" in out
    code, out, _ = run(capsys, "evaluate", model, "--noise", "30", "--device", "cpu")
    assert code == 0
    assert accuracy(out) < 75  # noise alone is left
    assert "noise of 30 deviations" in out


def test_the_same_data_by_another_name_are_known_again(trained, tmp_path, capsys):
    save_npz(tmp_path / "renamed.npz", find_data("wine"))
    code, out, _ = run(
        capsys, "evaluate", str(trained / "model.safetensors"), "--data",
        str(tmp_path / "renamed.npz"), "--device", "cpu",
    )  # fmt: skip
    assert code == 0
    assert "36 objects" in out
    assert "the test part of the data it was trained on" in out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data", "wines"], "wines"),
        (["--data", "digits", "--count", "5"], "--count is for --data synthetic"),
        (["--strategy", "both"], "both"),
        (["--epochs", "0"], "--epochs 0; at least 1 fits"),
        (["--mixup_alpha", "0.4", "0.1"], "--mixup_alpha 0.4 0.1; a rising range above 0 fits"),
        (["--snapshots", "--schedule", "cosine"], "--snapshots needs cycles"),
        (["--snapshots", "--epochs", "3"], "no cycle ends within 3 epochs"),
        (["--widths", "9"], "--widths 9; multiples of the 8 heads fit"),
        (["--weights", "fitted", "--average", "logits"], "--average logits needs uniform"),
        (["--tta", "1"], "--tta 1: one view is the object itself"),
        (["--mc_dropout", "3", "--model.dropout", "0"], "passes without dropout are all alike"),
        (["--model.width", "20"], "8 heads do not divide width 20"),
        (["--device", "tpu"], "--device tpu"),
    ],
)
def test_flags_that_do_not_fit_are_one_sentence(flags, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "train", *flags)
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def arrays(**changed: np.ndarray | None) -> dict[str, np.ndarray]:
    """A small file of two modalities and two classes."""
    random = np.random.default_rng(0)
    found = {
        "left": random.normal(size=(40, 3)).astype(np.float32),
        "right": random.normal(size=(40, 2)).astype(np.float32),
        "label": np.arange(40) % 2,
    } | changed
    return {name: value for name, value in found.items() if value is not None}


WITH_NAN = np.zeros((40, 2), np.float32)
WITH_NAN[7, 1] = np.nan


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"right": np.zeros((39, 2), np.float32)}, "39"),
        ({"label": None}, "label"),
        ({"right": WITH_NAN}, "modality right holds nan at row 7, feature 1"),
        ({"label": np.r_[np.zeros(39, int), 1]}, "class 1 has one member"),
    ],
)
def test_faulty_files_are_one_sentence(changed, said, tmp_path, capsys):
    np.savez(tmp_path / "faulty.npz", **arrays(**changed))
    code, _, err = run(capsys, "train", "--data", str(tmp_path / "faulty.npz"), *SMALL, "--out",
                       str(tmp_path / "out"))  # fmt: skip
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--without", "smell"], "smell"),
        (["--data", "digits"], "data digits has modality pixels, which the model does not know"),
        (["--data", "grapes"], "grapes"),
        (["--noise", "-1"], "noise is -1"),
    ],
)
def test_evaluation_refuses_in_one_sentence(trained, flags, said, capsys):
    code, _, err = run(capsys, "evaluate", str(trained / "model.safetensors"), *flags)
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_file_that_is_no_model_is_refused(trained, capsys):
    code, _, err = run(capsys, "evaluate", str(trained / "record.json"))
    assert code == 2
    assert "no safetensors file" in err
    assert len(err.splitlines()) == 1


def test_a_file_of_own_data_is_trained_and_evaluated(tmp_path, capsys):
    np.savez(tmp_path / "own.npz", **arrays(group=np.arange(40) // 2))
    out_folder = tmp_path / "out"
    flags = ["--data", str(tmp_path / "own.npz"), *SMALL, "--epochs", "1", "--out", str(out_folder)]
    assert run(capsys, "train", *flags)[0] == 0
    record = read_record(out_folder / "record.json")
    assert record.group is not None
    np.savez(tmp_path / "new.npz", **arrays(left=np.ones((40, 3), np.float32)))
    code, out, _ = run(
        capsys, "evaluate", str(out_folder / "model.safetensors"), "--data",
        str(tmp_path / "new.npz"), "--device", "cpu",
    )  # fmt: skip
    assert code == 0
    assert "40 objects" in out
    assert "whether it was trained on some of them is not known" in out


def test_the_table_runs_what_is_missing_and_prints_verdicts(tmp_path, monkeypatch, capsys):
    small = {"epochs": 2, "warmup_epochs": 1, "cycle_epochs": 1, "batch": 256, "model.width": 16,
             "model.heads": 4, "model.classifier_layers": 1}  # fmt: skip
    monkeypatch.setattr(techniques, "BASELINE", techniques.BASELINE | small)
    monkeypatch.setattr(techniques, "DATA", {"synthetic": {"count": 80}})
    folder = str(tmp_path / "table")
    code, out, _ = run(capsys, "table", "--out", folder)
    assert code == 0
    assert "no trainings found" in out
    name = "label smoothing .2"
    flags = ["table", "--out", folder, "--run", "--seeds", "2", "--data", "synthetic",
             "--techniques", name]  # fmt: skip
    code, out, err = run(capsys, *flags)
    assert code == 0
    assert len(err.splitlines()) == 2 * 3  # baseline, alone and so far, of two seeds
    assert "synthetic, alone" in out
    lines = (tmp_path / "table" / "synthetic.jsonl").read_text().splitlines()
    assert {json.loads(line)["technique"] for line in lines} == {"", name}
    assert f"| {name} | 2 (few) |" in (tmp_path / "table" / "table.md").read_text()
    code, _, err = run(capsys, *flags)
    assert err == ""  # nothing is trained again
    (tmp_path / "file").touch()
    code, _, err = run(capsys, "table", "--run", "--out", str(tmp_path / "file"))
    assert code == 2
    assert err.endswith("file cannot be made a folder: File exists\n")
    code, _, err = run(capsys, "table", "--techniques", "magic", "--out", folder)
    assert code == 2
    assert "--techniques 'magic'; known: cross-modal attention" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_table_with_what_it_has(tmp_path, monkeypatch, capsys, number, code):
    def interrupted(*_):
        interruption = present_interruption()
        assert interruption.next == "stopping after this step"
        with interruption.deferred():
            os.kill(os.getpid(), number)
            signal.getsignal(number)
            interruption.obey("")

    monkeypatch.setattr(techniques, "train", interrupted)
    monkeypatch.setattr(techniques, "DATA", {"digits": {}, "synthetic": {"count": 80}})
    found, _, err = run(
        capsys, "table", "--run", "--out", str(tmp_path), "--data", "synthetic"
    )  # fmt: skip
    assert found == code
    assert err.splitlines()[-1] == (
        f"pyseq fusion: stopped by {number.name}; the trainings that had ended are kept; the same"
        " command goes on"
    )
    code, _, err = run(capsys, "table", "--run", "--out", str(tmp_path), "--threads", "0")
    assert code == 2
    assert "--threads 0; at least 1 fits" in err


def test_the_script_runs_the_whole_strategy(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "boost"
    script = str(TREE / "run_extreme_boost.py")
    monkeypatch.setattr(
        sys, "argv", [script, "--data", "wine", *SMALL, "--tta", "2", "--out", str(folder)]
    )
    with pytest.raises(SystemExit) as end:
        runpy.run_path(script, run_name="__main__")
    assert end.value.code == 0
    out, err = capsys.readouterr()
    assert re.search(r"super-ensemble +\d+\.\d\d \[", out)
    stages = ["fold 1 of 2", "fold 2 of 2", "member 1 of 2", "member 2 of 2", "model on all",
              "scoring the test part, once"]  # fmt: skip
    places = [err.index(stage) for stage in stages]
    assert places == sorted(places)
    assert not (folder / "model.safetensors").exists()
    assert read_record(folder / "record.json").strategy == "super_ensemble"


class Kills:
    """Sends a signal as it is collected, where Python drops what a handler raises."""

    def __init__(self, number: int):
        self._number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self._number)
        signal.getsignal(self._number)  # the handler runs before this block ends


# Lightning's own handler would end with success by a SIGTERM that nobody else has heard.
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_training_with_a_sentence(tmp_path, monkeypatch, capsys, number, code):
    whole = FusionTraining.training_step

    def interrupted(self, index, step):
        if self.current_epoch == 1 and step == 0:
            Kills(number)
        return whole(self, index, step)

    monkeypatch.setattr(FusionTraining, "training_step", interrupted)
    before = signal.getsignal(number)
    found, _, err = run(capsys, "train", "--data", "wine", *SMALL, "--out", str(tmp_path))
    assert found == code
    assert err.splitlines()[-1] == (
        f"pyseq fusion: stopped by {number.name}; nothing is kept of the training; the same command"
        " begins anew"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml"}
    assert signal.getsignal(number) == before


def test_help_names_the_subcommands(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(name in out for name in ("train", "evaluate", "table"))
    assert run(capsys)[0] == 2
    code, _, err = run(capsys, "tarin")
    assert code == 2
    assert "known: train, evaluate, table" in err
    code, out, _ = run(capsys, "train", "--help")
    assert "--model.width" in out
    assert "--mixup_alpha" in out
