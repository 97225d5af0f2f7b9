"""`pyseq compare` and its quick form: what they say, what they leave, how they go on."""

import json
import os
import re
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from pyseq.analysis.ceilings import ceiling
from pyseq.cli import compare as compare_module
from pyseq.cli import train as train_module
from pyseq.cli.compare import print_comparison
from pyseq.cli.main import main
from pyseq.data.streams import make
from pyseq.training.metrics_file import MetricsFile

SMALL = ["--d_model", "32", "--nlayers", "1", "--nhead", "2", "--dim_ff", "48", "--seq_len", "32",
         "--batch", "16", "--lr", "1e-2", "--eval_every", "20", "--memory", "4", "--local_width",
         "32", "--local_layers", "1", "--horizons", "1", "--scale_bins", "8"]  # fmt: skip


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A stream that both models find structure in after a few steps."""
    path = tmp_path_factory.mktemp("chain") / "chain.u16"
    rng = np.random.default_rng(0)
    steps = np.where(rng.random(40_000) < 0.9, 1, rng.integers(0, 16, 40_000))
    (np.cumsum(steps) % 16).astype("<u2").tofile(path)
    return str(path)


@pytest.fixture(scope="module")
def rolls(tmp_path_factory):
    path = tmp_path_factory.mktemp("rolls") / "rolls.u16"
    make("hmac_rolls").generate(60_000, 0).numpy().astype("<u2").tofile(path)
    return str(path)


def test_both_models_stand_in_one_table_beside_the_baselines(chain, tmp_path, capsys):
    code, out, _ = run(
        capsys, "compare", "--u16_path", chain, *SMALL, "--max_steps", "80", "--samples", "1500",
        "--ckpt", f"{tmp_path}/both.pt",
    )  # fmt: skip
    assert code == 0
    table = out[out.index("1,500 held-out symbols, with 95 % intervals") :]
    table = table[: table.index("ceiling for independent draws")]
    rows = [line.split() for line in table.splitlines()[1:] if re.match(r" +\w", line)]
    assert [name for name, *_ in rows] == [
        "predictor", "baseline", "supercharged", "marginal", "order-1", "order-2", "xz", "ceiling",
    ]  # fmt: skip
    assert all(word in table for word in ("bits/symbol", "perplexity", "top-1 accuracy"))
    assert table.count("[") == 3 * 2 + 2 * 3  # three intervals of each model, two of each Markov
    for line in (
        "budget: 80 optimiser steps for each model", "what each used", "parameters", "TFLOP",
        "verdict: ", "baseline on its own: structure", "supercharged on its own: structure",
        "best of all predictors: ", "99 % intervals", "with one seed",
    ):  # fmt: skip
        assert line in out
    assert "at chance" not in out
    leftovers = {path.name for path in tmp_path.iterdir()}
    assert leftovers == {
        "both.run", "both.baseline.pt", "both.baseline.run", "both.supercharged.pt",
        "both.supercharged.run",
    }  # fmt: skip
    summary = json.loads((tmp_path / "both.run" / "summary.json").read_text())
    assert f"verdict: {summary['sentence']}" in out
    assert summary["models"]["baseline"]["steps"] == 80
    assert summary["sentence"] in (tmp_path / "both.run" / "report.html").read_text()
    page = f"report: {tmp_path}/both.run/report.html"
    assert out.rstrip().endswith(page)


def test_tables_fit_80_columns_and_sentences_keep_their_lines(monkeypatch, capsys):
    """In a pipe, where nobody knows how wide the reader's window is."""
    monkeypatch.delenv("COLUMNS", raising=False)
    widest = ("10.0313 [10.0268, 10.0362]", "1,046.5 [1,043.2, 1,050.0]")
    models = ("baseline", "supercharged")
    compared = SimpleNamespace(
        outcomes=dict.fromkeys(models),
        evaluation=SimpleNamespace(
            ceiling=ceiling(np.full(1024, 100)),
            scores=SimpleNamespace(bits=np.zeros(100_000), number_of_classes=1024),
        ),
        rows=lambda: [(name, *widest, "0.0550 % [0.0247 %, 0.0904 %]") for name in models],
        spent_rows=lambda: [("learning rate", "0.001", "0.000413")],
        statements=lambda: [("verdict", "at chance: " + "words [in brackets] " * 30)],
    )
    print_comparison(compared, 13.28786)
    *lines, verdict = capsys.readouterr().out.splitlines()
    tables = [line for line in lines if line.startswith(" ")]
    assert len(tables) > 9
    assert max(map(len, tables)) <= 80
    for name in models:
        at = next(k for k, line in enumerate(lines) if line.split()[:1] == [name])
        assert lines[at].split() == [name, "10.0313", "1,046.5", "0.0550", "%"]
        assert lines[at + 1].split("  ")[-1].strip() == "[0.0247 %, 0.0904 %]"
    assert verdict.startswith("verdict: at chance: words [in brackets] ")
    assert len(verdict) > 500


@pytest.mark.parametrize("command", [["compare"], ["compare", "--quick"]])
def test_on_rolls_the_models_are_at_chance_and_neither_is_better(rolls, tmp_path, capsys, command):
    code, out, _ = run(
        capsys, *command, "--u16_path", rolls, *SMALL, "--max_steps", "30", "--bins", "64",
        "--samples", "3000", "--ckpt", f"{tmp_path}/both.pt",
    )  # fmt: skip
    assert code == 0
    said = {line.split(": ")[0]: line for line in out.splitlines() if ": " in line}
    assert said["verdict"].startswith("verdict: at chance: neither baseline nor supercharged found")
    assert "so neither is called better" in said["verdict"]
    assert "bits/symbol or more would have shown in 3,000 symbols" in said["verdict"]
    assert "a pass is not a certificate" in said["verdict"]
    for name in ("baseline", "supercharged"):
        assert said[f"{name} on its own"].startswith(f"{name} on its own: at chance")
    assert said["best of all predictors"].endswith(
        "none, for no predictor shows that knowing the past helps"
    )
    assert "structure:" not in out
    assert "better than" not in out
    assert "worse than baseline" not in out
    summary = json.loads((tmp_path / "both.run" / "summary.json").read_text())
    assert summary["verdict"] == "at chance"
    assert {model["test"]["verdict"] for model in summary["models"].values()} == {"at chance"}


def test_flags_reach_the_models_and_their_defaults_differ_where_train_has_it_so(
    chain, tmp_path, monkeypatch, capsys
):
    seen = []
    monkeypatch.setattr(compare_module, "train_model", lambda run: seen.append(run) or 1 / 0)
    monkeypatch.setattr(compare_module, "print_decisions", lambda run: seen.append(run))
    line = ["compare", "--u16_path", chain, *SMALL, "--no_hard", "--ckpt", f"{tmp_path}/both.pt"]
    assert run(capsys, *line)[0] == 1
    baseline = seen[1].config
    assert (baseline.max_time, baseline.dropout, baseline.nhead_kv) == (2, 0, 2)
    assert (baseline.eval_symbols, baseline.batch, baseline.hard) == (100_000, 16, False)
    seen.clear()
    assert run(capsys, *line[:1], "--quick", *line[1:3], "--ckpt", f"{tmp_path}/q.pt")[0] == 1
    quick = seen[1].config
    assert (quick.max_time, quick.eval_symbols, quick.d_model, quick.stride) == (1, 50_000, 128, 1)


def test_a_comparison_goes_on_with_what_was_not_finished(chain, tmp_path, monkeypatch, capsys):
    line = ["compare", "--u16_path", chain, *SMALL, "--max_steps", "40", "--samples", "1000",
            "--ckpt", f"{tmp_path}/both.pt"]  # fmt: skip
    real = train_module.train_model

    def stopped_at_the_second(run):
        if run.config.model == "supercharged":
            os.kill(os.getpid(), signal.SIGTERM)
        return real(run)

    with monkeypatch.context() as patch:
        patch.setattr(compare_module, "train_model", stopped_at_the_second)
        code, out, err = run(capsys, *line)
    assert code == 0
    assert "to go on with the comparison: the same flags and --resume auto" in err
    assert "verdict:" not in out
    assert list((tmp_path / "both.run").iterdir()) == []
    before = MetricsFile.read(tmp_path / "both.baseline.run")
    code, out, err = run(capsys, *line, "--resume", "auto")
    assert code == 0, err
    assert f"resumed from {tmp_path}/both.baseline.run/last" in out
    assert f"nothing to resume in {tmp_path}/both.supercharged.run" in out
    assert MetricsFile.read(tmp_path / "both.baseline.run") == before
    assert "verdict:" in out
    assert json.loads((tmp_path / "both.run" / "summary.json").read_text())["models"].keys() == {
        "baseline", "supercharged",
    }  # fmt: skip


def test_a_config_file_sets_flags_of_a_comparison(chain, tmp_path, capsys):
    settings = tmp_path / "c.yaml"
    flags = {"u16_path": chain, "ckpt": f"{tmp_path}/both.pt", "max_steps": 2, "eval_symbols": 500}
    settings.write_text(yaml.safe_dump(flags))
    code, out, err = run(capsys, "compare", "--config", str(settings), *SMALL, "--max_steps", "3")
    assert code == 0, err
    assert "budget: 3 optimiser steps for each model" in out
    assert "500 held-out symbols" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "baseline"], "--model"),
        (["--ckpt", "{folder}"], "is a directory; a file name fits"),
        (["--patch", "0"], "--patch is 0; at least 1 fits"),
        (["--samples", "0"], "--eval_symbols 0; at least 1 fits"),
        (["--quick", "--max_time", "0"], "--max_time 0.0; a positive number of minutes fits"),
        (["--u16_path", "{folder}/none.u16"], "cannot be read: No such file or directory"),
    ],
)
def test_the_users_mistakes(chain, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    arguments = [argument.format(folder=tmp_path) for argument in arguments]
    code, out, err = run(capsys, "compare", "--u16_path", chain, *arguments)
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err + out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "ckpt", "scored"), [([], "compare.pt", 100_000), (["--quick"], "quick.pt", 50_000)]
)
def test_the_help_shows_the_defaults(capsys, command, ckpt, scored):
    code, out, _ = run(capsys, "compare", *command, "--help")
    assert code == 0
    flat = " ".join(out.replace("│", " ").split())
    assert f"(default: {ckpt})" in flat
    scores = "--samples INT, --eval_symbols INT Symbols scored at each validation, and in the final"
    assert f"{scores} test. (default: {scored})" in flat
    assert "Default: 2 (--quick: 1), unless --max_steps or --epochs is given." in flat
    assert "--model" not in flat
