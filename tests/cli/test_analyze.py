"""`pyseq analyze` from the command line to the terminal, the page and the JSON."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from pyseq.cli.main import main
from pyseq.data.streams import make
from pyseq.ops import backends
from tests.analysis.predictability.nist_streams import DATA, figures

pytestmark = pytest.mark.skipif(
    backends.refuse_native() is not None, reason="pyseq._core is not built"
)

QUICK = ["--mixture_symbols", "5000", "--predictor_symbols", "5000"]
PREDICTORS = ("MultiMCW", "Lag", "MultiMMC", "LZ78Y")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the command runs: the page and the JSON have their own names there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_page(monkeypatch):
    """For tests of other things: drawing the page takes most of the time of a short run."""
    monkeypatch.setattr(
        "pyseq.analysis.report.stream.write_stream_report", lambda path, analysis: path.touch()
    )


def write(path: Path, symbols) -> str:
    np.asarray(symbols).astype("<u2").tofile(path)
    return str(path)


def rolls(count, seed=0, k=6):
    return np.random.Generator(np.random.PCG64(seed)).integers(k, size=count)


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = main(["analyze", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def analyzed(capsys, *arguments) -> tuple[dict, list[str]]:
    """What the JSON says, and the lines of the terminal, of a run that must succeed."""
    code, out, err = run(capsys, *arguments)
    assert code == 0, err
    assert "Traceback" not in err + out
    return json.loads(Path("analysis.json").read_text()), out.splitlines()


def structure(found) -> dict[str, bool]:
    return {verdict["question"]: verdict["structure"] for verdict in found["verdicts"]}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("uniform", (False, False)), ("biased", (True, False)), ("periodic", (True, True))],
)
def test_terminal_page_and_json_agree(folder, capsys, name, expected):
    stream = make(name, alphabet=6) if name == "uniform" else make(name)
    path = write(folder / "s.u16", stream.generate(12_000, 4).numpy())
    found, lines = analyzed(
        capsys, "--u16_path", path, "--alphabet", stream.alphabet, "--seed", "3", *QUICK
    )
    assert tuple(structure(found).values()) == expected
    assert (found["symbols"], found["alphabet"], found["level"]) == (12_000, stream.alphabet, 0.01)
    for verdict in found["verdicts"]:
        assert verdict["sentence"] in lines
    [last] = [line for line in lines if line.startswith("verdict: ")]
    words = re.fullmatch("verdict: marginal: (.+); dependence: (.+)", last).groups()
    for short, verdict in zip(words, found["verdicts"], strict=True):
        if verdict["structure"]:
            count = len(verdict["fired"])
            assert short == f"structure ({count} test{'s' * (count != 1)} fired)"
        else:
            assert short == "no evidence of structure"
    assert lines[-1] == "report: analysis.html, data: analysis.json"
    assert re.fullmatch(
        r"seconds: reading [\d.]+, sample [\d.]+, online mixture [\d.]+, predictors [\d.]+, "
        r"compressors [\d.]+, all [\d.]+", lines[-2],
    )  # fmt: skip
    facts = dict(found["facts"])
    assert (facts["stream"], facts["seed"]) == (path, 3)
    assert facts["alphabet"] == f"{stream.alphabet}, as given"
    page = Path("analysis.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert all(html.escape(verdict["sentence"]) in page for verdict in found["verdicts"])
    assert found["compressed"][0]["name"] == "xz -9e"
    assert sorted(file.name for file in folder.iterdir()) == [
        "analysis.html", "analysis.json", "s.u16",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "label", "bits"),
    [
        ("rand8_short.bin", "Literal", 8),
        ("rand8_short.bin", "Bitstring", 1),  # cut from bytes
        ("truerand_1bit.packed.bin", "Literal", 1),
    ],
)
def test_the_figures_are_those_of_the_nist_program(folder, no_page, capsys, name, label, bits):
    answers = figures((DATA / name).with_name(f"{name.split('.')[0]}.reference.txt").read_text(),
                      label)  # fmt: skip
    found, _ = analyzed(
        capsys, "--u16_path", DATA / name, "--symbol_bits", bits, "--mixture_symbols", "5000"
    )
    count = (DATA / name).stat().st_size * 8 // bits
    assert found["symbols"] == found["predicted_symbols"] == count
    assert found["alphabet"] == 1 << bits
    check_figures(found, answers)


def test_nibbles_have_the_figures_of_the_nist_program(folder, no_page, capsys):
    text = (DATA / "made_streams.reference.txt").read_text()
    part = text.split("Stream truerand_nibbles\n")[1].split("Stream ")[0]
    found, _ = analyzed(
        capsys, "--u16_path", DATA / "truerand_8bit.bin", "--symbol_bits", "4",
        "--predictor_symbols", "2000000", "--mixture_symbols", "5000",
    )  # fmt: skip
    check_figures(found, figures(part, "Literal"))


def check_figures(found, answers):
    assert [each["name"] for each in found["predictions"]] == list(PREDICTORS)
    for each in found["predictions"]:
        name = each["name"]
        assert each["correct"] == answers[name, "C"]
        assert abs(each["min_entropy"] - answers[name, "min entropy"]) < 1e-6
    common = found["most_common_value"]["min_entropy"]
    assert abs(common - answers["Most Common Value", "min entropy"]) < 1e-6


def test_a_law_from_another_stream(folder, no_page, capsys):
    biased = make("biased")
    path = write(folder / "s.u16", biased.generate(9_000, 1).numpy())
    null = write(folder / "null.u16", biased.generate(20_000, 2).numpy())
    found, lines = analyzed(capsys, "--u16_path", path, "--null", null, *QUICK)
    assert structure(found) == {"marginal": False, "dependence": False}
    assert f"that of the 20,000 symbols of {null}" in lines[0]
    assert not any("uniform" in test["name"] for test in found["tests"])
    fair = write(folder / "fair.u16", rolls(20_000))
    found, _ = analyzed(capsys, "--u16_path", path, "--null", fair, *QUICK)
    assert structure(found) == {"marginal": True, "dependence": False}


def test_the_first_symbols_only(folder, no_page, capsys):
    """Noise, and then a constant that would be found."""
    path = write(folder / "s.u16", np.r_[rolls(9_000), np.full(9_000, 5)])
    found, _ = analyzed(capsys, "--u16_path", path, "--max_samples", "9000", *QUICK)
    assert found["symbols"] == 9_000
    assert structure(found) == {"marginal": False, "dependence": False}
    beyond, _ = analyzed(capsys, "--u16_path", path, "--max_samples", "99000", *QUICK)
    assert beyond["symbols"] == 18_000
    assert structure(beyond)["dependence"]


def test_the_json_beside_a_stream_tells_alphabet_and_entropy(folder, no_page, capsys):
    assert main(["data", "synthetic", "uniform", "--alphabet", "40", "--count", "9000", "--out",
                 "u.u16"]) == 0  # fmt: skip
    found, lines = analyzed(capsys, "--u16_path", "u.u16", *QUICK)
    assert found["alphabet"] == 40
    assert found["entropy_rate"] == pytest.approx(np.log2(40))
    assert "true entropy rate of the source: 5.3219 bits/symbol" in lines
    facts = dict(found["facts"])
    assert facts["alphabet"] == "40, from the JSON beside the stream"
    assert "synthetic uniform" in facts["source"]
    plain = write(folder / "plain.u16", rolls(3_000, k=30))
    found, _ = analyzed(capsys, "--u16_path", plain, *QUICK)
    assert (found["alphabet"], found["entropy_rate"]) == (30, None)
    assert dict(found["facts"])["alphabet"] == "one more than the highest symbol"


def test_interim_lines_and_shards(folder, no_page, capsys):
    symbols = rolls(140_000)
    write(folder / "a0.u16", symbols[:90_000])
    write(folder / "a1.u16", symbols[90_000:])
    found, lines = analyzed(capsys, "--u16_path", "a*.u16", *QUICK)
    assert found["symbols"] == 140_000
    interim = [line for line in lines if re.match(r" +[\d,]+ symbols: ", line)]
    assert [line.split()[0] for line in interim] == ["65,536", "131,072"]
    assert all("nothing so far; smallest p " in line for line in interim)


def test_other_names_and_a_stricter_level(folder, capsys):
    path = write(folder / "s.u16", rolls(3_000))
    (folder / "out").mkdir()
    code, out, _ = run(capsys, "--u16_path", path, "--report", "out/a.HTML", "--json",
                       "out/b.json", "--level", "0.001", "--io", "ram", *QUICK)  # fmt: skip
    assert code == 0
    assert out.splitlines()[-1] == "report: out/a.HTML, data: out/b.json"
    assert json.loads(Path("out/b.json").read_text())["level"] == 0.001
    assert "level 0.1 %" in out.splitlines()[0]
    assert Path("out/a.HTML").stat().st_size > 1_000


S = ["--u16_path", "s.u16"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*S, "--level", "0"], "--level 0.0; a number between 0 and 0.5 fits"),
        ([*S, "--level", "0.5"], "--level 0.5; a number"),
        ([*S, "--level", "nan"], "--level nan; a number"),
        ([*S, "--max_samples", "0"], "--max_samples 0; 1 or more fits"),
        (
            [*S, "--max_samples", "9", "--ckpt", "m.pt"],
            "--ckpt and --train read the whole stream, and --max_samples a part of it",
        ),
        ([*S, "--mixture_symbols", "0"], "--mixture_symbols 0; 1 or more fits"),
        ([*S, "--predictor_symbols", "-4"], "--predictor_symbols -4; 1 or more fits"),
        ([*S, "--threads", "0"], "--threads 0; 1 or more fits"),
        ([*S, "--seed", "-1"], "--seed -1; 0 or more fits"),
        ([*S, "--train", "0"], "--train 0.0 minutes; more than 0 fits"),
        ([*S, "--train", "nan"], "--train nan minutes; more than 0 fits"),
        ([*S, "--alphabet", "0"], "--alphabet 0; 1 to 65536 fits"),
        ([*S, "--alphabet", "65537"], "--alphabet 65537; 1 to 65536 fits"),
        ([*S, "--alphabet", "5"], "symbol 5 lies outside the declared alphabet of 5"),
        ([*S, "--symbol_bits", "8", "--ckpt", "m.pt"], "--ckpt and --train read u16 streams"),
        ([*S, "--symbol_bits", "8", "--train", "1"], "--ckpt and --train read u16 streams"),
        ([*S, "--symbol_bits", "8", "--null", "s.u16"], "--null is a u16 stream"),
        ([*S, "--symbol_bits", "3"], "--symbol_bits"),
        ([*S, "--report", "page.txt"], "--report page.txt; a name that ends in .html fits"),
        ([*S, "--json", "data.html"], "--json data.html; a name that ends in .json fits"),
        ([*S, "--report", "no/page.html"], "--report no/page.html has no folder no to lie in"),
        ([*S, "--json", "no/data.json"], "--json no/data.json has no folder no to lie in"),
        ([*S, "--json", "folder.json"], "--json folder.json is a folder"),
        ([*S, "--null", "no.u16"], "no.u16 cannot be read: No such file"),
        ([*S, "--null", "empty.u16"], "empty.u16"),
        (["--u16_path", "no.u16"], "no.u16 cannot be read: No such file"),
        (["--u16_path", "odd.u16"], "odd.u16"),
        (["--u16_path", "empty.u16"], "empty.u16"),
        (["--u16_path", "no*.u16"], "no*.u16"),
        (["--u16_path", "empty.u16", "--symbol_bits", "4"], "empty.u16 is empty"),
        (["--u16_path", "no.bin", "--symbol_bits", "4"], "no.bin cannot be read: No such file"),
        ([], "--u16_path"),
    ],
)
def test_refusals_are_one_sentence(folder, capsys, arguments, words):
    write(folder / "s.u16", np.append(rolls(500), 5))
    (folder / "odd.u16").write_bytes(bytes(7))
    (folder / "empty.u16").touch()
    (folder / "folder.json").mkdir()
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("pyseq analyze: ")
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    assert not Path("analysis.html").exists()
    assert not Path("analysis.json").exists()


def test_a_model_that_is_not_there_is_one_sentence(folder, capsys):
    code, out, err = run(capsys, "--u16_path", write(folder / "s.u16", rolls(500)),
                         "--ckpt", "no.pt")  # fmt: skip
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "pyseq analyze: no.pt is no file; train a model with --ckpt no.pt first",
    ]


@pytest.mark.parametrize("symbols", [[0], [3], [1, 0], [5] * 40], ids=lambda x: f"{len(x)}-{x[0]}")
def test_odd_streams_get_a_page_too(folder, capsys, symbols):
    found, _ = analyzed(capsys, "--u16_path", write(folder / "s.u16", symbols))
    assert found["symbols"] == len(symbols)
    assert len(found["verdicts"]) == 2
    assert Path("analysis.html").stat().st_size > 1_000


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A chain and a model of its first part."""
    where = tmp_path_factory.mktemp("trained")
    x = rolls(8_000, k=8)
    for t in range(1, 8_000):
        if x[t] < 6:
            x[t] = (x[t - 1] + 3) % 8
    write(where / "s.u16", x)
    sizes = ["--d_model", "32", "--nhead", "2", "--nlayers", "1", "--dim_ff", "48", "--seq_len",
             "16", "--batch", "32", "--lr", "1e-2", "--eval_every", "40", "--eval_symbols", "500",
             "--device", "cpu", "--max_steps", "80"]  # fmt: skip
    line = ["train", "--u16_path", f"{where}/s.u16", "--ckpt", f"{where}/m.pt", "--kind", "tokens"]
    assert main([*line, *sizes]) == 0
    return where


def test_a_trained_model_joins_the_evidence(folder, capsys, trained):
    found, _ = analyzed(
        capsys, "--u16_path", trained / "s.u16", "--ckpt", trained / "m.pt", "--device", "cpu",
        *QUICK,
    )  # fmt: skip
    names = [code["name"] for code in found["code_lengths"]]
    assert names == ["online mixture of count models", "model m.pt"]
    model = found["code_lengths"][1]
    where = dict(found["facts"])["read by model m.pt"]
    first = int(re.match(r"symbols from ([\d,]+) on: the model was trained on 0 to", where)[1]
                .replace(",", ""))  # fmt: skip
    assert model["symbols"] == 8_000 - first - 1
    assert model["bits"][0] < 2.5  # 3 without the past, some 2 with it
    tests = {test["name"]: test for test in found["tests"]}
    assert tests["evidence by model m.pt"]["question"] == "dependence"
    assert tests["evidence by model m.pt"]["fired"]
    assert tests["evidence against uniform draws by model m.pt"]["question"] == "marginal"
    assert structure(found)["dependence"]


def test_a_model_is_trained_and_joins_the_evidence(folder, no_page, capsys, trained):
    found, _ = analyzed(
        capsys, "--u16_path", trained / "s.u16", "--train", "0.03", "--device", "cpu",
        "--threads", "1", *QUICK,
    )  # fmt: skip
    [_, model] = found["code_lengths"]
    assert model["name"] == "model trained for 0.03 minutes"
    facts = dict(found["facts"])
    assert facts["read by model trained for 0.03 minutes"].startswith("symbols from 5,6")
    assert 1_000 < model["symbols"] < 2_400
    assert [file.name for file in folder.iterdir() if file.suffix not in (".html", ".json")] == []


def test_without_native_code_the_refusal_says_why(folder, capsys, monkeypatch):
    from pyseq.ops import backends

    monkeypatch.setattr(backends, "_load_core", lambda: (None, backends.NOT_BUILT))
    code, out, err = run(capsys, "--u16_path", write(folder / "s.u16", rolls(500)))
    assert (code, out) == (2, "")
    assert err == f"pyseq analyze: the analysis is native code: {backends.NOT_BUILT}\n"
