"""`pyseq evaluate --analyze_predictions` on small models: its tables, and the page it writes."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest

from pyseq.cli.main import main
from pyseq.data.streams import make

SMALL = ["--d_model", "32", "--nhead", "2", "--dim_ff", "48", "--seq_len", "32", "--batch", "16",
         "--eval_every", "10", "--eval_symbols", "1500"]  # fmt: skip
SUPERCHARGED = ["--model", "supercharged", "--nlayers", "2", "--local_width", "32", "--memory", "4",
                "--horizons", "3", "--bins", "64", "--max_steps", "20"]  # fmt: skip


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(list(map(str, arguments)))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A baseline of text, and a supercharged model of rolls that nobody can predict."""
    where = tmp_path_factory.mktemp("analysis")
    text = "".join(f"def f{i % 10}(x): return x + {i % 7}\n" for i in range(1500))
    (where / "code.py").write_text(text)
    assert main(["data", "text", f"{where}/code.py", "--out", f"{where}/code.u16"]) == 0
    rolls = make("hmac_rolls").generate(30_000, 0).numpy().astype("<u2")
    rolls.tofile(where / "rolls.u16")
    assert main(["train", "--u16_path", f"{where}/code.u16", *SMALL, "--nlayers", "1", "--lr",
                 "1e-2", "--max_steps", "30", "--ckpt", f"{where}/code.pt"]) == 0  # fmt: skip
    assert main(["train", "--u16_path", f"{where}/rolls.u16", "--alphabet", "10001", "--kind",
                 "values", *SMALL, *SUPERCHARGED, "--ckpt", f"{where}/rolls.pt"]) == 0  # fmt: skip
    return where


def line(folder, name: str, *more: str) -> list[str]:
    return ["evaluate", "--u16_path", f"{folder}/{name}.u16", "--ckpt", f"{folder}/{name}.pt",
            "--max_samples", "1500", *more]  # fmt: skip


def sections(page: Path) -> list[str]:
    return re.findall(r'<section id="([^"]*)">', page.read_text())


def test_the_tables_and_the_page_of_tokens(folder, capsys):
    code, out, err = run(capsys, *line(folder, "code", "--analyze_predictions"))
    assert (code, err) == (0, "")
    for words in ("predictions by confidence", "predictions by entropy", "verdict: structure",
                  "one head", "tokens", "the most frequent mistakes"):  # fmt: skip
        assert words in out
    page = folder / "code.run" / "evaluation.html"
    assert out.splitlines()[-1] == f"report: {page}"
    assert sections(page) == [
        "bits-per-symbol", "held-out-metrics", "heads", "scales", "confusions",
        "calibration-of-the-top-prediction", "entropy-of-the-predictions", "where-attention-looks",
        "components", "this-run",
    ]  # fmt: skip
    text = page.read_text()
    assert "block 1: cosine" in text
    assert "counted by the baselines" in text


def test_on_rolls_every_table_and_the_page_say_at_chance(folder, capsys):
    code, out, _ = run(capsys, *line(folder, "rolls", "--analyze_predictions"))
    assert code == 0
    assert "verdict: at chance" in out
    assert "The model is at chance" in out
    assert len(re.findall(r"^ *(?:next symbol|\d ahead) .* at chance *$", out, re.MULTILINE)) == 3
    assert len(re.findall(r"^ *[\d,]+ (?:classes|bins) .* at chance *$", out, re.MULTILINE)) >= 2
    page = (folder / "rolls.run" / "evaluation.html").read_text()
    assert '<div class="verdict"><div>at chance: ' in page
    found = re.sub(r"is said to show structure", "", page)
    assert "structure" not in found
    for words in ("3 ahead", "16 bins, named by their first symbols", "memory", "Fourier mixing"):
        assert words in page


def test_the_training_writes_the_same_sections_and_more(folder):
    training = sections(folder / "rolls.run" / "report.html")
    evaluation = sections(folder / "rolls.run" / "evaluation.html")
    assert [name for name in training if name not in ("training", "speed")] == evaluation
    assert {"training", "speed"} < set(training)


def test_the_summary_is_ready_for_a_table_of_runs(folder):
    rows = []
    for name in ("code", "rolls"):
        summary = json.loads((folder / f"{name}.run" / "summary.json").read_text())
        report = (folder / f"{name}.run" / "report.html").read_text()
        copied = re.search(r'<pre class="row">(.*?)</pre>', report, re.DOTALL)[1]
        [row] = csv.DictReader(io.StringIO(copied), dialect="excel-tab")
        assert list(row) == list(summary["row"])
        rows.append(row)
        assert summary["row"]["model_bits"] == summary["test"]["bits_per_symbol"]["model"][0]
        assert (
            sum(part["parameters"] for part in summary["components"].values())
            == (summary["parameters"])
        )
        assert summary["budget"]["steps"] == summary["steps"] == summary["row"]["steps"]
        assert summary["budget"]["symbols"] == summary["steps"] * 16 * 32
        assert summary["budget"]["symbols_per_second"] > 0
        assert (summary["seed"], summary["device"]) == (0, "cpu")
    baseline, supercharged = rows
    assert list(baseline) == list(supercharged)
    assert (baseline["memory"], supercharged["memory"]) == ("", "4")
    assert (baseline["verdict"], supercharged["verdict"]) == ("structure", "at chance")
    assert [head["horizon"] for head in summary["heads"]] == [1, 2, 3]
    assert [scale["bins"] for scale in summary["scales"]][:1] == [64]
    assert {part["verdict"] for part in summary["heads"] + summary["scales"]} == {"at chance"}


def test_without_the_flag_there_is_a_page_only_where_asked_for(folder, tmp_path, capsys):
    shutil.copy(folder / "code.pt", tmp_path / "code.pt")
    plain = ["evaluate", "--u16_path", f"{folder}/code.u16", "--ckpt", f"{tmp_path}/code.pt",
             "--max_samples", "500"]  # fmt: skip
    code, out, _ = run(capsys, *plain)
    assert code == 0
    assert "report:" not in out
    assert [path.name for path in tmp_path.iterdir()] == ["code.pt"]
    page = tmp_path / "mine.html"
    code, out, _ = run(capsys, *plain, "--report", page)
    assert out.splitlines()[-1] == f"report: {page}"
    assert "heads" not in sections(page)
    code, out, _ = run(capsys, *plain, "--analyze_predictions")  # the run folder is made
    assert "heads" in sections(tmp_path / "code.run" / "evaluation.html")


def test_a_range_that_was_trained_on_gets_no_verdict_anywhere(folder, tmp_path, capsys):
    page = tmp_path / "seen.html"
    code, out, _ = run(
        capsys, *line(folder, "rolls", "--analyze_predictions", "--range", "all", "--report", page)
    )
    assert code == 0
    said = "no verdict: the scored range holds symbols that the model was trained on"
    assert said in out
    text = page.read_text()
    assert f'<div class="verdict"><div>{said}</div></div>' in text
    for words in ("at chance", "structure", "held-out", "Held-out"):
        assert words not in out
        assert words not in text


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ("{folder}/page.txt", "a name that ends in .html fits"),
        ("{folder}/code.pt", "a name that ends in .html fits"),
        ("{folder}/none/page.html", "has no folder {folder}/none to lie in"),
        ("{folder}/taken.html", "is a folder"),
    ],
)
def test_a_page_that_cannot_be_written_is_refused_first(folder, capsys, report, words):
    (folder / "taken.html").mkdir(exist_ok=True)
    code, out, err = run(capsys, *line(folder, "code", "--report", report.format(folder=folder)))
    assert (code, out) == (2, "")
    assert words.format(folder=folder) in err
    assert len(err.strip().splitlines()) == 1
