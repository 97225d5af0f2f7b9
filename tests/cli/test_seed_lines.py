"""The command lines that users were promised, as written, and what they say of rolls."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyseq.cli.main import main
from pyseq.data.streams import make

ROOT = Path(__file__).parents[2]
TRAINING = (
    "--d_model 256 --nlayers 6 --nhead 8 --dim_ff 2048 --epochs 5 --batch 64 --lr 1e-3"
    " --warmup_ratio 0.1 --gradient_accumulation 4 --use_amp --eval_every 500 --patience 5"
    " --max_samples 16500 --workers 8"  # one batch of 64 windows of 257 in each epoch
)
SMALL = (
    "--d_model 32 --nlayers 1 --nhead 2 --dim_ff 48 --seq_len 32 --batch 16 --max_steps 25"
    " --eval_symbols 3000 --memory 4 --local_width 32 --local_layers 1 --horizons 2"
    " --scale_bins 64"
)
BASELINES = ("marginal", "order-1", "order-2", "xz", "ceiling for independent draws")


def run(folder: Path, line: str) -> str:
    """What a line prints when it is run in `folder` with a script of the repository."""
    script, *flags = line.split()
    done = subprocess.run(
        [sys.executable, ROOT / script, *flags], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """F.u16, a chain that is easily learned with a symbol at 1,000,000, and S.u16, its start.

    Where a line scores a share of the stream as a whole, the short one is enough.
    """
    where = tmp_path_factory.mktemp("lines")
    rng, count = np.random.default_rng(0), 1_000_200
    steps = np.where(rng.random(count) < 0.9, 1, rng.integers(0, 16, count))
    symbols = (np.cumsum(steps) % 16).astype("<u2")
    symbols.tofile(where / "F.u16")
    symbols[:60_000].tofile(where / "S.u16")
    return where


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "ckpt"), [("train", "model.pt"), ("supercharged", "supercharged_model.pt")]
)
def test_the_lines_of_one_model(folder, command, ckpt):
    out = run(folder, f"u16_seq_model.py {command} --u16_path S.u16 {TRAINING} --ckpt {ckpt}")
    model = "baseline" if command == "train" else "supercharged"
    for words in (
        f"model: {model}, ", " parameters, ", "MFLOP per symbol and step",
        "MiB at the process's peak in one step", "training: 2 steps, 65,536 symbols a step",
        "held-out symbols", *BASELINES, "top-1 accuracy", "top-3 accuracy", "top-5 accuracy",
        "perplexity", "mean confidence", "mean entropy", "calibration error", "verdict: ",
    ):  # fmt: skip
        assert words in out
    if len(os.sched_getaffinity(0)) < 8:
        assert "--workers 8 is capped at this machine's" in out
    left = {path.name for path in (folder / ckpt).with_suffix(".run").iterdir()}
    assert left >= {
        "config.yaml", "metrics.jsonl", "metrics.csv", "tensorboard", "last", "summary.json",
        "report.html",
    }  # fmt: skip

    out = run(
        folder,
        f"u16_seq_model.py evaluate --u16_path S.u16 --ckpt {ckpt} --max_samples 100000"
        " --analyze_predictions --use_amp",
    )
    for words in ("held-out symbols", *BASELINES, "predictions by confidence", "verdict: "):
        assert words in out

    out = run(
        folder, f"u16_seq_model.py predict --u16_path F.u16 --ckpt {ckpt} --idx 1000000 --topk 10"
    )
    context, *likely, truth = out.splitlines()
    shares = [float(line.split("%")[0].split()[-1]) for line in likely]
    assert len(shares) == 10
    assert shares == sorted(shares, reverse=True)
    symbols = np.fromfile(folder / "F.u16", "<u2")
    assert context.startswith("context: ")
    assert context.endswith(str(symbols[999_999]))
    assert truth.startswith(f"came: {symbols[1_000_000]}, given ")


@pytest.mark.slow
def test_the_line_of_the_quick_comparison(folder):
    out = run(folder, "quick_accuracy_test.py --u16_path F.u16 --samples 50000")
    for words in (
        "budget: 1 minute with validations for each model", "50,000 held-out symbols", "baseline",
        "supercharged", *BASELINES, "verdict: ", "best of all predictors: ",
    ):  # fmt: skip
        assert words in out
    summary = json.loads((folder / "quick.run" / "summary.json").read_text())
    for model in summary["models"].values():
        assert model["seconds"] >= 60
        assert model["test"]["verdict"] == "structure"  # nine of ten symbols follow the one before


@pytest.fixture(scope="module")
def rolls(tmp_path_factory):
    """A folder with rolls.u16, which nobody can predict."""
    where = tmp_path_factory.mktemp("rolls")
    make("hmac_rolls").generate(100_000, 0).numpy().astype("<u2").tofile(where / "rolls.u16")
    return where


@pytest.mark.parametrize("command", ["train", "supercharged"])
def test_every_verdict_on_rolls_is_at_chance(rolls, capsys, command):
    """What compare and quick_accuracy_test.py say of them is in test_compare.py."""
    ckpt = f"{rolls}/{command}.pt"
    for line in (
        f"{command} {SMALL} --ckpt {ckpt}",
        f"evaluate --ckpt {ckpt} --max_samples 3000 --analyze_predictions",
    ):
        assert main([*line.split(), "--u16_path", f"{rolls}/rolls.u16"]) == 0
        out = capsys.readouterr().out
        [verdict] = [said for said in out.splitlines() if said.startswith("verdict: ")]
        assert verdict.startswith("verdict: at chance: ")
        assert "bits/symbol or more would have shown in " in verdict
        assert "structure:" not in out
        assert "better than" not in out


def test_the_scripts_are_the_commands(tmp_path):
    assert "usage: pyseq compare --quick" in run(tmp_path, "quick_accuracy_test.py --help")
    assert "usage: pyseq train" in run(tmp_path, "u16_seq_model.py train --help")
