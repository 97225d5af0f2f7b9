"""`pyseq rules`: what its subcommands print, leave behind and refuse."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyseq.analysis.rules import read_record
from pyseq.analysis.rules.published import Spread
from pyseq.cli.main import main
from pyseq.cli.rules.narrow_table import compact
from pyseq.models.rules import load_stack
from pyseq.training.metrics_file import MetricsFile

SMALL = ["--max_length", "12", "--prompt_length", "4", "--num_train", "40", "--num_validation",
         "20", "--batch", "16", "--warmup", "5", "--validate_every", "6", "--max_steps", "12",
         "--seeds", "2", "--lr", "1e-2", "--device", "cpu", "--model", "lstm", "--lstm.hidden",
         "12", "--lstm.layers", "1"]  # fmt: skip


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(["rules", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of a small run."""
    folder = tmp_path_factory.mktemp("rules") / "run"
    assert main(["rules", "train", "--grammar", "L3", *SMALL, "--out", str(folder)]) == 0
    return folder


def test_training_prints_both_selections_beside_the_paper_and_leaves_a_folder(tmp_path, capsys):
    folder = tmp_path / "run"
    code, out, err = run(capsys, "train", "--grammar", "L3", *SMALL, "--out", str(folder))
    assert code == 0
    assert "lstm on aNbN, a^n b^n" in out
    assert re.search(r"OOD R1( +1?\.\d{3}±\.\d{3}){2} +\.376±\.209 ", out)
    assert "lowest possible loss: 0.13783 nats per target" in out  # ln 6 / 13
    # Of an enumerated grammar num_train and num_validation change nothing.
    assert "other settings than the published: prompt_length 4, lr 0.01" in out
    assert "another length" in out
    assert f"report: {folder}/report.html" in out
    assert len(re.findall(r"^step (6|12)  seeds 2 ", err, re.MULTILINE)) == 2
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "last", "last.pt", "metrics.csv", "metrics.jsonl", "model.pt", "record.json",
        "report.html",
    }  # fmt: skip
    assert "<svg" in (folder / "report.html").read_text()
    assert all(len(line) <= 80 for line in out.splitlines() if "±" in line)


def test_the_saved_settings_are_flags_again(trained, tmp_path, capsys):
    again = tmp_path / "again"
    code, _, _ = run(capsys, "train", "--config", str(trained / "config.yaml"), "--out", str(again))
    assert code == 0
    first, second = read_record(trained / "record.json"), read_record(again / "record.json")
    for one, other in zip(first.histories, second.histories, strict=True):
        for left, right in zip(one, other, strict=True):
            assert left | {"seconds": 0} == right | {"seconds": 0}


def test_a_killed_command_goes_on(trained, tmp_path, capsys):
    folder = tmp_path / "run"
    flags = ["train", "--grammar", "L3", *SMALL, "--out", str(folder), "--resume", "auto"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pyseq", "rules", *flags], env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not MetricsFile.read(folder) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert MetricsFile.read(folder)
    code, _, _ = run(capsys, *flags)
    assert code == 0
    timeless = [
        [row | {"seconds": 0} for row in MetricsFile.read(where)] for where in (trained, folder)
    ]
    assert timeless[0] == timeless[1]


def test_evaluation_shows_every_seed_the_ensemble_and_what_they_are_held_against(trained, capsys):
    code, out, _ = run(capsys, "evaluate", str(trained / "model.pt"))
    assert code == 0
    rows = [line.split()[0] for line in out.splitlines() if re.match(r" +[a-zE].*\d\.\d{3}", line)]
    assert rows == ["seed", "seed", "mean", "ensemble", "published", "chance", "EOS"]
    record = read_record(trained / "record.json")
    losses = [min(row["validation_loss"] for row in rows) for rows in record.histories]
    for loss in losses:  # the file holds each seed's weights at its lowest loss
        assert f"{loss:.5f}" in out
    assert "3 prompts in and 13 out of distribution" in out
    assert all(len(line) <= 80 for line in out.splitlines() if line.startswith("  "))


def test_prompts_may_be_as_long_as_the_longest_word_and_no_longer(trained, capsys):
    model = str(trained / "model.pt")
    code, out, _ = run(capsys, "evaluate", model, "--prompt_length", "12")
    assert code == 0
    assert "7 prompts in and 4089 out of distribution" in out
    code, out, err = run(capsys, "evaluate", model, "--prompt_length", "13")
    assert (code, out) == (2, "")
    assert err == (
        "pyseq rules: prompts of 13 symbols are longer than the longest word of the training, 12"
        " symbols\n"
    )


def test_a_model_of_another_grammar_is_refused(trained, capsys):
    code, out, err = run(capsys, "evaluate", str(trained / "model.pt"), "--grammar", "Dyck")
    assert (code, out) == (2, "")
    assert err == (
        f"pyseq rules: {trained}/model.pt holds models of aNbN, not of parentheses_and_brackets\n"
    )
    assert run(capsys, "evaluate", str(trained / "model.pt"), "--grammar", "L3")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "--grammar", "aNbX"], "there is no grammar 'aNbX'; known are baN (L1), bbaN"),
        (["train", "--model", "rnn"], "--model rnn; known: transformer, lstm, linear"),
        (["train", "--transformer.heads", "3"], "3 heads do not divide width 10"),
        (["train", "--max_length", "16", "--prompt_length", "20"],
         "prompts of 20 symbols are longer than the longest word, --max_length 16"),
        (["train", "--lstm.bidirectional"], "bidirectional is refused"),
        (["train", "--oracle", "--adversarial"], "--adversarial and --oracle contradict"),
        (["train", "--curriculum_lengths", "8", "4", "--curriculum_epochs", "1", "2"],
         "two equally long, rising lists fit"),
        (["train", "--multi_task", "aNbN"], "--multi_task aNbN repeats a grammar"),
        (["train", "--lr", "0"], "--lr 0.0; a positive rate fits"),
        (["show", "aNbX"], "there is no grammar 'aNbX'"),
        (["evaluate", "nowhere.pt"], "nowhere.pt is no file"),
        (["sweep", "--model", "linear", "--dropouts", "0,.1"], "--model linear has none; known:"),
        (["sweep", "--vary", "lr"], "--vary lr; NAME=VALUE,VALUE fits"),
        (["sweep", "--model", "lstm", "--vary", "lstm.heads=2"], "there is no setting heads"),
        (["sweep", "--vary", "lstm.hidden=2"], "lstm.hidden is no setting of --model transformer"),
        (["sweep", "--vary", "lr.x=2"], "lr has no setting x to vary"),
        (["sweep", "--vary", "optimizer=adam,foo"], "optimizer is foo; one of adamw, adam, sgd"),
        (["sweep", "--vary", "schedule=foo"], "schedule is foo; one of inverse_sqrt, constant"),
        (["sweep", "--vary", "threads=foo"], "threads 'foo'; a value of type int fits"),
        (["sweep", "--vary", "out=a,b"], "out cannot be varied"),
        (["train", "--first_seed", str(2**64)], "with 5 seeds; seeds below 2^32 fit"),
        (["table", "nowhere"], "nowhere is not there"),
        (["table", "--metrics", "speed"], "--metrics speed; known: validation_loss"),
        (["dance"], "unknown subcommand 'dance'; known: train, evaluate, sweep, table, show"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_grammar_is_shown_with_its_numbers(capsys):
    code, out, _ = run(capsys, "show", "aNbN")
    assert code == 0
    for line in (
        "aNbN (L3): a^n b^n, n >= 1",
        "R1: as many a's as b's",
        "words of up to 256 symbols: 128, each once",
        "prompts in distribution: 5, 5 distinct",
        "prompts out of distribution: 251, 251 distinct",
        "lowest possible loss: 0.01888 nats per target over 257 targets",
        "EOS at once: ID R1 0.200, ID R2 1.000, OOD R1 0.275",
        "published transformer: OOD R1 0.657 ± 0.162",
    ):
        assert line in out
    assert "0.08402 nats per target over 33" in run(capsys, "show", "L3", "--max_length", "32")[1]


def test_help_names_every_subcommand_and_model_option(capsys):
    assert "sweep" in run(capsys, "--help")[1]
    code, out, _ = run(capsys, "train", "--help")
    assert code == 0
    for flag in (
        "--transformer.heads",
        "--lstm.hidden",
        "--linear.variant",
        "--curriculum_lengths",
    ):
        assert flag in out
    assert "attention heads" in out


def test_a_sweep_ranks_every_combination_and_goes_on(tmp_path, capsys):
    flags = ["sweep", *SMALL, "--lrs", "1e-3,1e-2", "--sizes", "8", "--sizes", "12", "--out",
             str(tmp_path / "sweep"), "--budget", "10"]  # fmt: skip
    code, out, err = run(capsys, *flags)
    assert code == 0
    names = {f"lr={lr},hidden={size}" for lr in (0.001, 0.01) for size in (8, 12)}
    assert {path.name for path in (tmp_path / "sweep").iterdir()} == names
    shown = [line for line in out.splitlines() if "lr=" in line]
    assert len(shown) == 4
    ranked = [float(line.split()[2]) for line in shown]
    assert ranked == sorted(ranked, reverse=True)
    assert err.count("training") == 4
    wide = read_record(tmp_path / "sweep" / "lr=0.001,hidden=12" / "record.json")
    narrow = read_record(tmp_path / "sweep" / "lr=0.001,hidden=8" / "record.json")
    assert wide.parameters > narrow.parameters
    assert wide.config["max_time"] == 2.5  # a quarter of the budget
    (tmp_path / "sweep" / "lr=0.01,hidden=8" / "record.json").unlink()
    _, again, err = run(capsys, *flags)
    assert (err.count("there already"), err.count("training")) == (3, 1)
    assert [line.split()[:3] for line in again.splitlines() if "lr=" in line] == [
        line.split()[:3] for line in shown
    ]
    # Trained under other settings, they would be ranked as what they are not.
    code, out, err = run(capsys, *flags, "--max_steps", "6")
    assert (code, out) == (2, "")
    assert "has made 12 steps, more than --max_steps 6; 12 and more fit, or another --out" in err
    _, _, err = run(capsys, *flags, "--max_steps", "18")
    assert err.count("training") == 4
    assert read_record(tmp_path / "sweep" / "lr=0.01,hidden=8" / "record.json").steps == 18


def test_the_learning_rate_is_found_and_used(tmp_path, capsys):
    folder = tmp_path / "run"
    code, out, _ = run(
        capsys, "train", "--grammar", "L1", *SMALL, "--lr_find", "--out", str(folder)
    )
    assert code == 0
    found = re.search(r"learning rate: (\S+), at which the loss fell fastest", out)
    assert found
    rate = float(found[1])
    assert read_record(folder / "record.json").config["lr"] == rate
    assert 1e-4 < rate < 1
    curve = (folder / "lr_find.csv").read_text().splitlines()
    assert curve[0] == "lr,bits"
    assert len(curve) > 40
    # The training that follows is the one that this rate gives.
    other = tmp_path / "other"
    run(capsys, "train", "--grammar", "L1", *SMALL, "--lr", found[1], "--out", str(other))
    rows = [[r | {"seconds": 0} for r in MetricsFile.read(where)] for where in (folder, other)]
    assert rows[0] == rows[1]


def test_the_table_shows_what_was_run_and_what_was_not(trained, tmp_path, capsys):
    code, out, _ = run(capsys, "table", str(trained), "--out", str(tmp_path / "table"))
    assert code == 0
    ours = [line for line in out.splitlines() if re.search(r"aNbN +lstm +12 +2 ", line)]
    assert len(ours) == 1
    assert ".376±.209" in ours[0]
    assert ours[0].rstrip().endswith("(1)")
    assert "(1) other settings: prompt_length 4, lr 0.01" in out
    assert re.search(r"aNbN +transformer .*not run", out)
    assert all(len(line) <= 80 for line in out.splitlines() if "±" in line)
    for name in ("table.md", "table.html"):
        assert "not run" in (tmp_path / "table" / name).read_text()


def test_the_missing_cells_are_run_in_order_and_only_once(tmp_path, monkeypatch, capsys):
    from pyseq.training.folder_lock import locked
    from pyseq.training.rules import cells as cells_module
    from pyseq.training.rules.run import train_rules

    ran = []

    def train(config):
        ran.append((Path(config.out).name, config.seeds, config.resume))
        folder = Path(config.out)
        folder.mkdir(parents=True, exist_ok=True)
        record = json.loads((tmp_path / "one.json").read_text())
        record |= {"stops": ["patience"] * 2, "config": config.to_dict()}
        (folder / "record.json").write_text(json.dumps(record))

    assert main(["rules", "train", *SMALL, "--max_steps", "6", "--out", str(tmp_path / "a")]) == 0
    (tmp_path / "a" / "record.json").rename(tmp_path / "one.json")
    monkeypatch.setattr(cells_module, "train_rules", train)
    flags = ["table", "--run", "minimum", "--out", str(tmp_path / "table")]
    assert run(capsys, *flags)[0] == 0
    assert [name for name, _, _ in ran] == [
        "aNbN-linear-64", "aNbN-linear-fixed-64", "aNbN-lstm-64", "aNbN-transformer-64",
        "baN-linear-64", "baN-linear-fixed-64", "baN-lstm-64", "baN-transformer-64",
        "aNbN-linear-256", "aNbN-linear-fixed-256", "aNbN-lstm-256", "aNbN-transformer-256",
    ]  # fmt: skip
    assert [seeds for _, seeds, _ in ran] == [5] * 10 + [3] * 2
    assert {resume for _, _, resume in ran} == {"auto"}
    code, _, err = run(capsys, *flags)
    assert code == 0
    assert len(ran) == 12
    assert err.count("complete") == 12
    # A cell that had no more steps goes on where there are more.
    path = tmp_path / "table" / "baN-lstm-64" / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"stops": ["max_steps"] * 2}))
    assert run(capsys, *flags, "--max_steps", "6")[0] == 0
    assert len(ran) == 12
    assert run(capsys, *flags)[0] == 0
    assert [name for name, _, _ in ran[12:]] == ["baN-lstm-64"]
    # What another process is training is left to it.
    record = tmp_path / "table" / "aNbN-lstm-64" / "record.json"
    record.unlink()
    with locked(record.parent, "--out"):
        monkeypatch.setattr(cells_module, "train_rules", train_rules)
        code, _, err = run(capsys, *flags)
    assert code == 0
    assert "3/12 aNbN-lstm-64: another training is writing to" in err
    assert "4/12 aNbN-transformer-64: complete" in err
    record.write_text((record.parents[1] / "aNbN-transformer-64" / "record.json").read_text())
    # What has made more steps than are asked for is not what is asked for.
    code, _, err = run(capsys, *flags, "--max_steps", "5")
    assert code == 2
    assert "aNbN-linear-64 has made 6 steps, more than --max_steps 5; 6 and more fit" in err
    assert len(ran) == 13


def test_a_grammar_without_a_second_rule_has_no_scores_out_of_distribution(tmp_path, capsys):
    folder = tmp_path / "run"
    code, out, err = run(capsys, "train", "--grammar", "abN", *SMALL, "--out", str(folder))
    assert code == 0
    assert "OOD" not in err
    rows = {line[:12].strip(): line[12:].split() for line in out.splitlines()}
    assert rows["OOD R1"] == rows["OOD fin."] == []
    assert rows["ID fin."] != []
    record = read_record(folder / "record.json")
    assert {row["ood_rule_1"] for rows in record.histories for row in rows} == {None}
    page = (folder / "report.html").read_text()
    assert "No prompt is out of distribution" in page
    assert ">nan<" not in page
    code, out, _ = run(capsys, "evaluate", str(folder / "model.pt"))
    assert code == 0
    assert "no prompt is out of distribution" in out
    assert "nan" not in out
    assert run(capsys, "table", str(folder), "--out", str(tmp_path / "table"))[0] == 0
    code, out, _ = run(capsys, "show", "abN")
    assert code == 0
    assert "OOD" not in out


def test_a_cell_that_ran_out_of_time_goes_on(tmp_path, capsys):
    folder = tmp_path / "run"
    flags = ["train", "--grammar", "L3", *SMALL, "--out", str(folder), "--max_steps", "30"]
    assert run(capsys, *flags, "--max_time", "1e-6")[0] == 0
    record = read_record(folder / "record.json")
    assert record.stops == ["max_time"] * 2
    assert not record.complete
    assert run(capsys, *flags, "--resume", "auto")[0] == 0
    after = read_record(folder / "record.json")
    assert after.stops == ["max_steps"] * 2
    assert [row["step"] for row in after.histories[0]][-1] == 30
    assert after.histories[0][0] == record.histories[0][0]
    assert load_stack(folder / "model.pt")[0].seeds == 2


def test_published_losses_have_no_more_digits_than_were_published():
    loss = Spread(0.0220, 0.0020, 268)
    assert compact(loss, "validation_loss") == ".0220±.0020"
    assert compact(loss, "validation_loss", published=True) == ".022±.002"
    assert compact(Spread(2.553, 0.159, 12), "validation_loss") == "2.553±.159"


def test_an_evaluation_says_how_the_model_was_trained(tmp_path, capsys):
    flags = ["train", "--grammar", "L3", *SMALL, "--oracle", "--out", str(tmp_path / "run")]
    code, out, _ = run(capsys, *flags)
    assert code == 0
    assert "note: trained on the tested prompts" in out
    _, out, _ = run(capsys, "evaluate", str(tmp_path / "run" / "model.pt"))
    assert "trained with other settings than the published: prompt_length 4, lr 0.01" in out
    assert ", oracle on, " in out
    assert re.search(r"published +0\.019 ", out)


def test_a_table_that_cannot_be_written_is_one_sentence(trained, capsys):
    code, _, err = run(capsys, "table", str(trained), "--out", str(trained / "model.pt"))
    assert code == 2
    assert "--out" in err
    assert "cannot be made a folder: File exists" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--grammar", "abN", "--oracle"], "completions of abN are not defined; known: baN, bbaN"),
        (["--out", f"{__file__}/run"], "/run cannot be made a folder: Not a directory"),
        (["--out", __file__], "test_rules.py cannot be made a folder: File exists"),
    ],
)
def test_a_training_that_cannot_begin_says_why(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "train", *SMALL, *arguments)
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
