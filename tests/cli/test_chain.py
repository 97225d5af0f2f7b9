"""The command lines of the specification, as written but small, and what they must say."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest

import pyseq
from pyseq.cli.main import COMMANDS, main
from pyseq.ops import backends

ROOT = Path(__file__).parents[2]
SMALL = ["--d_model", "32", "--nlayers", "1", "--nhead", "2", "--dim_ff", "48", "--seq_len", "32",
         "--batch", "16", "--max_steps", "30", "--eval_every", "15"]  # fmt: skip


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A text stream with a model trained on it."""
    where = tmp_path_factory.mktemp("chain")
    text = "".join(f"def f{i % 10}(x): return x + {i % 7}\n" for i in range(1500))
    (where / "code.py").write_text(text)
    assert main(["data", "text", str(where / "code.py"), "--out", str(where / "code.u16")]) == 0
    assert main(["train", "--u16_path", str(where / "code.u16"), *SMALL, "--lr", "1e-2",
                 "--ckpt", str(where / "model.pt")]) == 0  # fmt: skip
    return where


def test_evaluate_says_what_the_model_is_worth(folder, capsys):
    code, out, err = run(
        capsys, "evaluate", "--u16_path", f"{folder}/code.u16", "--ckpt", f"{folder}/model.pt",
        "--max_samples", "3000", "--use_amp",
    )  # fmt: skip
    assert (code, err) == (0, "")
    for word in ("model", "marginal", "order-1", "order-2", "xz", "top-1", "top-3", "top-5",
                 "perplexity", "mean confidence", "mean entropy", "expected calibration error",
                 "ceiling", "verdict: structure"):  # fmt: skip
        assert word in out
    assert "3,000 held-out symbols" in out


def test_predict_shows_context_top_k_and_truth(folder, capsys):
    code, out, _ = run(
        capsys, "predict", "--u16_path", f"{folder}/code.u16", "--ckpt", f"{folder}/model.pt",
        "--idx", "4000", "--topk", "10",
    )  # fmt: skip
    assert code == 0
    lines = out.splitlines()
    text = (folder / "code.py").read_bytes()
    assert lines[0] == f"context: {text[4000 - 24 : 4000]!r}".replace(": b", ": ")
    assert len(lines) == 12
    shares = [float(line.rsplit("%")[0].split()[-1]) for line in lines[1:11]]
    assert shares == sorted(shares, reverse=True)
    assert lines[-1].startswith(f"came: {text[4000:4001]!r}".replace(": b", ": "))


def test_the_saved_model_is_an_api(folder):
    model = pyseq.load(folder / "model.pt")
    stream = np.frombuffer((folder / "code.u16").read_bytes(), "<u2")
    window = stream[1000:1033].astype(np.int64)
    assert model.log_prob(window).shape == (32,)
    assert len(model.predict(window, topk=3).classes) == 3
    assert model.generate(window, 5).shape == (5,)


def test_the_training_line_as_written(folder, tmp_path, capsys):
    line = (
        f"train --u16_path {folder}/code.u16 --d_model 32 --nlayers 1 --nhead 4 --dim_ff 64"
        " --epochs 1 --batch 64 --lr 1e-3 --warmup_ratio 0.1 --gradient_accumulation 4 --use_amp"
        f" --eval_every 500 --patience 5 --max_samples 20000 --workers 8 --ckpt {tmp_path}/model.pt"
        " --seq_len 64"
    )
    done = subprocess.run(
        [sys.executable, ROOT / "u16_seq_model.py", *line.split()], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "parameters" in done.stdout
    if len(os.sched_getaffinity(0)) < 8:
        assert "--workers 8 is capped at this machine's" in done.stdout
    assert (tmp_path / "model.run" / "report.html").exists()
    assert "GPU available" not in done.stdout + done.stderr
    assert "Warning" not in done.stderr


def test_the_other_lines_run_through_the_script(folder):
    for line in (
        f"evaluate --u16_path {folder}/code.u16 --ckpt {folder}/model.pt --max_samples 2000"
        " --analyze_predictions --use_amp",
        f"predict --u16_path {folder}/code.u16 --ckpt {folder}/model.pt --idx 10000 --topk 10",
    ):
        done = subprocess.run(
            [sys.executable, ROOT / "u16_seq_model.py", *line.split()],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        if line.startswith("evaluate"):
            assert "by confidence" in done.stdout


def test_symbols_that_were_trained_on_are_never_called_held_out(folder, tmp_path, capsys):
    """The stream cut into shards is recognised; grown, only what is new is scored."""
    stream = (folder / "code.u16").read_bytes()
    (tmp_path / "part1.u16").write_bytes(stream[:30_000])
    (tmp_path / "part2.u16").write_bytes(stream[30_000:])
    line = ("evaluate", "--ckpt", f"{folder}/model.pt")
    code, whole, _ = run(capsys, *line, "--u16_path", f"{folder}/code.u16")
    code, cut, _ = run(capsys, *line, "--u16_path", f"{tmp_path}/part*.u16")
    assert code == 0
    assert cut == whole
    assert "held-out" in whole
    (tmp_path / "grown.u16").write_bytes(stream + stream[:4000])
    code, grown, _ = run(capsys, *line, "--u16_path", f"{tmp_path}/grown.u16")
    first = int(grown.split("scored: symbols ")[1].split(" ")[0].replace(",", ""))
    data = pyseq.load(folder / "model.pt").card.data  # the best model was chosen by validation
    assert first > data["splits"]["validation"][1] + 32 > data["trained"][1] + 32
    code, everything, _ = run(capsys, *line, "--u16_path", f"{folder}/code.u16", "--range", "all")
    assert code == 0
    assert "no verdict" in everything
    assert "verdict: structure" not in everything
    assert "held-out" not in everything


def test_hyphens_are_accepted(folder, tmp_path, capsys):
    arguments = [a.replace("_", "-") if a.startswith("--") else a for a in SMALL]
    code, _, err = run(
        capsys, "train", "--u16-path", f"{folder}/code.u16", *arguments, "--ckpt",
        f"{tmp_path}/m.pt", "--max-steps", "2",
    )  # fmt: skip
    assert code == 0, err


def test_config_sets_flags_and_flags_win(folder, tmp_path, capsys):
    settings = tmp_path / "c.yaml"
    settings.write_text(
        f"u16_path: {folder}/code.u16\nd_model: 32\nnlayers: 1\nnhead: 2\ndim-ff: 48\nlr: 1e-3\n"
        "seq_len: 32\nbatch: 16\nmax_steps: 500\nuse_amp: true\nsplit: [0.7, 0.1, 0.2]\n"
        "nhead_kv: null\n"
    )
    code, _, err = run(
        capsys, "train", "--config", str(settings), "--max_steps", "3", "--ckpt",
        f"{tmp_path}/m.pt",
    )  # fmt: skip
    assert code == 0, err
    saved = (tmp_path / "m.run" / "config.yaml").read_text()
    assert "max_steps: 3" in saved
    assert "use_amp: true" in saved
    again = ["train", "--config", f"{tmp_path}/m.run/config.yaml", "--ckpt", f"{tmp_path}/n.pt"]
    assert run(capsys, *again)[0] == 0
    resaved = (tmp_path / "n.run" / "config.yaml").read_text()
    assert resaved.replace("/n.pt", "/m.pt") == saved


def test_rolls_are_at_chance_with_the_ceiling(tmp_path, capsys):
    rolls = f"{tmp_path}/rolls.u16"
    made = run(capsys, "data", "synthetic", "hmac_rolls", "--count", "400000", "--out", rolls)
    assert made[0] == 0
    code, out, _ = run(
        capsys, "train", "--u16_path", rolls, "--bins", "1024", *SMALL, "--ckpt",
        f"{tmp_path}/m.pt",
    )  # fmt: skip
    assert code == 0
    flat = " ".join(out.split())
    assert "classes: 1024 bins of equal width over 10001" in flat
    assert "at most 0.100 % on average on independent symbols" in flat
    assert "at most 0.500 % on average on independent symbols" in flat
    assert "9.99862 bits (6.93052 nats)" in flat
    assert "verdict: at chance" in flat
    code, out, _ = run(
        capsys, "evaluate", "--u16_path", rolls, "--ckpt", f"{tmp_path}/m.pt",
    )  # fmt: skip
    flat = " ".join(out.split())
    assert "verdict: at chance" in flat
    assert "at most 0.100 % on average on independent symbols" in flat
    summary = json.loads((tmp_path / "m.run" / "summary.json").read_text())
    assert summary["test"]["verdict"] == "at chance"
    assert summary["test"]["ceiling"]["top1"] == 10 / 10_001


def test_pcm_runs_through_the_chain_as_values(tmp_path, capsys):
    t = np.arange(60_000)
    noise = np.random.default_rng(0).normal(0, 50, len(t))
    signal = 9000 * np.sin(t / 9) + 3000 * np.sin(t / 31) + noise
    with wave.open(f"{tmp_path}/tone.wav", "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(signal.astype("<i2").tobytes())
    stream = f"{tmp_path}/tone.u16"
    assert run(capsys, "data", "wav", f"{tmp_path}/tone.wav", "--out", stream)[0] == 0
    code, out, _ = run(
        capsys, "train", "--u16_path", stream, "--kind", "values", *SMALL, "--max_steps", "150",
        "--stride", "4", "--lr", "1e-2", "--ckpt", f"{tmp_path}/m.pt",
    )  # fmt: skip
    assert code == 0
    assert "kind: values, as given" in out
    assert "classes: 1024 bins" in out
    assert "verdict: structure" in out
    code, out, _ = run(capsys, "predict", "--u16_path", stream, "--ckpt", f"{tmp_path}/m.pt",
                       "--idx", "50000", "--topk", "4")  # fmt: skip
    assert code == 0
    assert ".." in out  # a bin stands for a range of samples


def test_evaluating_on_another_stream_says_what_was_counted(folder, tmp_path, capsys):
    other = f"{tmp_path}/other.u16"
    (tmp_path / "other.py").write_text("def f1(x): return x + 1\n" * 400)
    assert run(capsys, "data", "text", f"{tmp_path}/other.py", "--out", other)[0] == 0
    line = ("evaluate", "--u16_path", other, "--ckpt", f"{folder}/model.pt")
    code, out, _ = run(capsys, *line)
    assert code == 0
    assert "scored: symbols 961 to 9,599 of 9,600" in out
    code, _, err = run(capsys, *line, "--range", "test")
    assert code == 2
    assert "needs the stream the model was trained on" in err


BAD_STREAMS = {
    "missing": (None, "cannot be read: No such file or directory"),
    "odd": (b"abc", "an odd number"),
    "empty": (b"", "is empty"),
    "short": (b"a\0" * 40, "less than one window of 33"),
    "header": (np.array([20240520, 1, 9], "<i4").tobytes().ljust(1024, b"\0"), "counts 9 symbols"),
}


@pytest.mark.parametrize("name", BAD_STREAMS)
@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
def test_bad_streams_get_one_sentence_and_exit_code_2(folder, tmp_path, capsys, command, name):
    content, words = BAD_STREAMS[name]
    path = tmp_path / "bad.u16"
    if content is not None:
        path.write_bytes(content)
    ckpt = tmp_path / "new.pt" if command == "train" else folder / "model.pt"
    extra = {"train": SMALL, "evaluate": [], "predict": ["--idx", "10"]}[command]
    before = sorted(tmp_path.iterdir())
    code, out, err = run(capsys, command, "--u16_path", str(path), "--ckpt", str(ckpt), *extra)
    if name == "short" and command != "train":
        assert code == 0, err  # 40 symbols are enough to predict one, and to score a few
        return
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err + out
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--u16_path", "{code}", "--alphabet", "50"], "at offset 0 lies outside the"),
        (["train", "--u16_path", "{folder}"], "is a directory"),
        (["train", "--u16_path", "{folder}/*.none"], "matches no file"),
        (["train", "--u16_path", "{code}", "--ckpt", "{folder}"], "is a directory"),
        (["train", "--u16_path", "{code}", "--ckpt", "{code}"], "is no model of pyseq"),
        (["train", "--u16_path", "{code}", "--ckpt", "/proc/x/model.pt"], "cannot be written"),
        (["train", "--u16_path", "{code}", "--config", "{folder}/none.yaml"], "cannot be read"),
        (["train", "--u16_path", "{code}", "--config", "{code}"], "is no YAML"),
        (["train", "--u16_path", "{code}", "--config", "{folder}/list.yaml"], "a mapping of flags"),
        (["train", "--config", "{folder}/key.yaml"], "unknown key 'colour'"),
        (["train", "--config"], "--config needs"),
        (["evaluate", "--u16_path", "{code}", "--ckpt", "{folder}/none.pt"], "is no file"),
        (["evaluate", "--u16_path", "{code}", "--ckpt", "{code}"], "is no safetensors file"),
        (["evaluate", "--u16_path", "{code}", "--ckpt", "{model}", "--max_samples", "1"],
         "--max_samples must be at least 2"),
        (["predict", "--u16_path", "{code}", "--ckpt", "{model}", "--idx", "0"], "--idx 0"),
        (["predict", "--u16_path", "{code}", "--ckpt", "{model}", "--idx", "99999999"], "1 to"),
        (["predict", "--u16_path", "{code}", "--ckpt", "{model}", "--idx", "9", "--topk", "0"],
         "--topk 0"),
        (["demo", "--minutes", "0"], "--minutes 0.0"),
        (["trian"], "unknown command 'trian'; known: data, train"),
    ],
)  # fmt: skip
def test_the_users_mistakes(folder, capsys, arguments, words):
    (folder / "list.yaml").write_text("[1, 2]")
    (folder / "key.yaml").write_text("colour: red")
    names = {"code": folder / "code.u16", "folder": folder, "model": folder / "model.pt"}
    code, out, err = run(capsys, *(a.format(**names) for a in arguments))
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err + out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--u16_path", "s.u16", "--lr", "fast"], "--lr"),
        (["train", "--u16_path", "s.u16", "--no_such_flag", "1"], "--no_such_flag"),
        (["train"], "--u16_path"),
        (["evaluate", "--u16_path", "s", "--max_samples", "many"], "--max_samples"),
        (["data", "synthetic", "uniform", "--alphabet", "70000", "--count", "5", "--out", "x"],
         "alphabet"),
        (["data", "synthetic", "nothing"], "nothing"),
    ],
)  # fmt: skip
def test_wrong_flags_get_one_sentence_and_exit_with_2(capsys, arguments, words):
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert "│" not in err + out


def test_ctrl_c_exits_with_130(folder, tmp_path):
    line = ["train", "--u16_path", f"{folder}/code.u16", *SMALL, "--ckpt", f"{tmp_path}/m.pt",
            "--epochs", "100000", "--max_steps", "1000000", "--log_every", "1"]  # fmt: skip
    training = subprocess.Popen(
        [sys.executable, "-m", "pyseq", *line], stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "m.run" / "metrics.jsonl"
    for _ in range(600):
        if metrics.exists() and metrics.stat().st_size > 1000:
            break
        time.sleep(0.1)
    training.send_signal(signal.SIGINT)
    _, err = training.communicate(timeout=60)
    assert training.returncode == 130
    assert "Traceback" not in err
    assert "stopped by SIGINT; saved step" in err


def test_a_big_endian_file_is_remarked_on(tmp_path, capsys):
    speech = (np.random.default_rng(0).normal(0, 300, 70_000) + 32768).astype(">u2")
    speech.tofile(tmp_path / "be.u16")
    code, out, err = run(capsys, "train", "--u16_path", f"{tmp_path}/be.u16", *SMALL, "--ckpt",
                         f"{tmp_path}/m.pt", "--max_steps", "1", "--bins", "64")  # fmt: skip
    assert code == 0
    assert "as if the file were big-endian" in out
    assert "Warning" not in err


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ("bench",)])
def test_every_command_has_help(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert command in out


def test_every_flag_of_train_has_help(capsys):
    _, out, _ = run(capsys, "train", "--help")
    import dataclasses

    from pyseq.training.config import TrainConfig

    for field in dataclasses.fields(TrainConfig):
        assert f"--{field.name}" in out
    blocks = out.split("│ --")[1:]
    assert all(len(" ".join(block.replace("│", " ").split()).split()) > 3 for block in blocks)


def test_no_command_shows_the_commands(capsys):
    code, out, _ = run(capsys)
    assert code == 2
    assert all(command in out for command in COMMANDS)
    assert run(capsys, "--version")[1].strip() == f"pyseq {pyseq.__version__}"


def test_doctor(capsys):
    code, out, _ = run(capsys, "doctor")
    assert code == 0
    assert "gather_windows" in out
    assert "cosine_attention" in out
    assert run(capsys, "doctor", "--help")[0] == 0


@pytest.mark.skipif(backends.refuse_native() is not None, reason="pyseq._core is not built")
def test_doctor_names_the_instruction_set(capsys, monkeypatch):
    monkeypatch.setenv("PYSEQ_ISA", "portable")
    assert "kernels for portable (PYSEQ_ISA: portable" in run(capsys, "doctor")[1]
    monkeypatch.setenv("PYSEQ_ISA", "mmx")
    code, out, _ = run(capsys, "doctor")
    assert code == 0
    assert "native: PYSEQ_ISA is 'mmx'; this machine runs portable" in out


def test_exit_codes_of_faults_full_disks_and_interrupts(capsys, monkeypatch):
    import pyseq.cli.doctor

    monkeypatch.setattr(pyseq.cli.doctor, "main", lambda arguments: 1 / 0)
    code, _, err = run(capsys, "doctor")
    assert code == 1
    assert "this is a fault of pyseq" in err

    def full_disk(arguments):
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.csv")

    monkeypatch.setattr(pyseq.cli.doctor, "main", full_disk)
    code, _, err = run(capsys, "doctor")
    assert code == 2
    assert err == "pyseq doctor: metrics.csv: No space left on device\n"

    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(pyseq.cli.doctor, "main", interrupted)
    assert run(capsys, "doctor")[0] == 130


def demo_bits(folder, capsys, minutes: str) -> dict:
    code, out, _ = run(capsys, "demo", "--out", f"{folder}/demo", "--minutes", minutes)
    assert code == 0
    for word in ("stream:", "marginal", "order-1", "order-2", "xz", "verdict:", "report:"):
        assert word in out
    summary = json.loads((folder / "demo" / "model.run" / "summary.json").read_text())
    return summary["test"]["bits_per_symbol"]


def test_demo_runs_the_whole_chain(tmp_path, capsys):
    bits = demo_bits(tmp_path, capsys, "0.05")
    assert bits["order-2"][0] < bits["order-1"][0] < bits["marginal"][0] < 8
    assert math.isfinite(bits["model"][0])


@pytest.mark.slow
def test_demo_beats_order_1(tmp_path, capsys):
    """Half of the demo's time is enough on two idle cores, and on a busier machine too."""
    bits = demo_bits(tmp_path, capsys, "1")
    assert bits["model"][2] < bits["order-1"][1]


def test_the_supercharged_line_and_what_follows(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # the model has its own name there
    small = [*SMALL, "--nlayers", "2", "--local_width", "32", "--memory", "4"]
    code, out, _ = run(
        capsys, "supercharged", "--u16_path", f"{folder}/code.u16", *small, "--lr", "1e-2",
        "--scale_bins", "16", "64", "--no_fourier",
    )  # fmt: skip
    assert code == 0
    assert "model: supercharged" in out
    card = pyseq.load("supercharged_model.pt").card
    assert card.config["scale_bins"] == [16, 64]
    assert (card.config["fourier"], card.config["dropout"], card.config["nhead_kv"]) == (
        False, 0.1, 1,
    )  # fmt: skip
    for command in (["evaluate", "--max_samples", "2000"], ["predict", "--idx", "4000"]):
        code, out, err = run(
            capsys, *command, "--u16_path", f"{folder}/code.u16", "--ckpt", "supercharged_model.pt"
        )
        assert (code, err) == (0, "")
        assert "verdict: " in out or "came: " in out
    code, out, _ = run(
        capsys, "supercharged", "--u16_path", f"{folder}/code.u16", "--resume", "auto",
        "--config", "supercharged_model.run/config.yaml",
    )  # fmt: skip
    assert code == 0
    assert "resumed from" in out


def test_bad_switches_are_one_sentence(folder, tmp_path, capsys):
    code, _, err = run(
        capsys, "supercharged", "--u16_path", f"{folder}/code.u16", "--patch", "0",
        "--ckpt", f"{tmp_path}/model.pt",
    )  # fmt: skip
    assert (code, err) == (2, "pyseq supercharged: --patch is 0; at least 1 fits\n")
    assert list(tmp_path.iterdir()) == []
