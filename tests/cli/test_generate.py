"""Tokens of text through the chain, and continuations: shown, repeated, written, refused."""

import dataclasses
import io
import json
import sys
import wave

import numpy as np
import pytest
import torch

import pyseq
from pyseq.cli.generate import _print
from pyseq.cli.main import main
from pyseq.cli.symbol_text import readable
from pyseq.data import U16Stream
from pyseq.data.binning import Binning
from pyseq.data.stream_info import read_info, tokenizer_path, write_stream
from pyseq.data.tokenizer import Bytes, Tokenizer
from pyseq.models.checkpoint import MODELS, ModelCard, save_model

SMALL = ["--d_model", "16", "--nlayers", "1", "--nhead", "2", "--dim_ff", "24", "--seq_len", "16",
         "--batch", "16", "--max_steps", "20", "--eval_symbols", "2000"]  # fmt: skip
TEXT = "".join(f"the café on square {i % 7} opens\n\tat {i % 13} h\n" for i in range(900)).encode()
SIZES = {"d_model": 16, "nlayers": 1, "nhead": 2, "nhead_kv": 1, "dim_ff": 24}
PARTS = {"patch": 4, "local_width": 32, "memory": 2}


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def continuation(out: str) -> str:
    """What was printed between the heading and what was said about a file."""
    return out.partition("continuation:\n")[2]


def save(path, binning: Binning, kind: str, model: str = "baseline") -> None:
    """A model with random weights, whose distributions are not flat."""
    torch.manual_seed(0)
    sizes = SIZES | (PARTS if model == "supercharged" else {})
    config = dataclasses.asdict(MODELS[model][0](classes=binning.classes, kind=kind, **sizes))
    card = ModelCard(model, config, binning, kind, seq_len=16)
    network = card.build()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    save_model(path, network.state_dict(), card)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tokens of a text and a model trained on them; models of bytes and of sound; their streams."""
    where = tmp_path_factory.mktemp("generate")
    (where / "cafe.txt").write_bytes(TEXT)
    assert main(["data", "text", f"{where}/cafe.txt", "--bpe", "280", "--out",
                 f"{where}/cafe.u16"]) == 0  # fmt: skip
    line = ["train", "--u16_path", f"{where}/cafe.u16", *SMALL, "--ckpt", f"{where}/cafe.pt"]
    assert main(line) == 0
    assert main(["data", "text", f"{where}/cafe.txt", "--out", f"{where}/bytes.u16"]) == 0
    for model in MODELS:
        save(where / f"{model}.pt", Binning(256), "tokens", model)
    save(where / "sound.pt", Binning.uniform(65_536, 64), "values")
    tone = (32_768 + 9000 * np.sin(np.arange(500) / 9)).astype(np.uint16)
    write_stream(where / "sound.u16", [tone], alphabet=65_536, kind="values", source="a tone")
    return where


# tokens through the chain


def test_training_tells_how_long_tokens_are_and_scores_bytes(folder):
    summary = json.loads((folder / "cafe.run" / "summary.json").read_text())["test"]
    tokenizer = Tokenizer.read(tokenizer_path(folder / "cafe.u16"))
    first, count = summary["first_symbol"], summary["symbols"]
    with U16Stream(folder / "cafe.u16") as stream:
        scored = tokenizer.decode(stream[first : first + count].tolist())
    assert scored in TEXT
    bits = summary["bits_per_symbol"]["model"][0] * count
    value, low, high = summary["bits_per_byte"]
    assert value == pytest.approx(bits / len(scored))
    assert low < value < high


def test_evaluate_prints_bits_per_byte_of_tokens_only(folder, capsys):
    line = ("evaluate", "--max_samples", "1000", "--u16_path")
    code, out, err = run(capsys, *line, folder / "cafe.u16", "--ckpt", folder / "cafe.pt")
    assert (code, err) == (0, "")
    [row] = [row for row in out.splitlines() if row.startswith("bits/byte: ")]
    assert "comparable across tokenizers, which bits/symbol are not" in row
    code, out, _ = run(capsys, *line, folder / "bytes.u16", "--ckpt", folder / "baseline.pt")
    assert code == 0
    assert "bits/byte" not in out


def test_a_test_range_that_taught_the_tokens_is_told(folder, tmp_path, capsys):
    line = ["train", "--u16_path", folder / "cafe.u16", *SMALL, "--ckpt", tmp_path / "m.pt"]
    code, out, _ = run(capsys, *line, "--max_steps", "1", "--split", ".6", ".1", ".3")
    assert code == 0
    assert "tokens: learned from the first " in out
    assert "so tested text shaped them" in out
    scored = ["evaluate", "--u16_path", folder / "cafe.u16", "--max_samples", "1000"]
    page = tmp_path / "m.html"
    code, out, _ = run(capsys, *scored, "--ckpt", tmp_path / "m.pt", "--report", page)
    assert code == 0
    for told in (out, page.read_text()):
        assert "so tested text shaped them" in told
    code, out, _ = run(capsys, *line, "--max_steps", "1")
    assert code == 0
    assert "shaped them" not in out


def test_predict_shows_tokens_as_text(folder, capsys):
    line = ("predict", "--u16_path", folder / "cafe.u16", "--ckpt", folder / "cafe.pt")
    code, out, _ = run(capsys, *line, "--idx", "100", "--topk", "5")
    assert code == 0
    tokenizer = Tokenizer.read(tokenizer_path(folder / "cafe.u16"))
    with U16Stream(folder / "cafe.u16") as stream:
        context, came = stream[76:100].tolist(), stream[100:101].tolist()
        window = stream[84:100].long()
    lines = out.splitlines()
    assert lines[0] == f"context: {tokenizer.decode(context[-16:])!r}".replace(": b", ": ")
    best = pyseq.load(folder / "cafe.pt").predict(window, 5).classes.tolist()
    shown = [repr(tokenizer.decode([symbol]))[1:] for symbol in best]
    for line, name in zip(lines[1:6], shown, strict=True):
        assert line.startswith(f"{name:>14}  ")
    assert lines[6].startswith(f"came: {tokenizer.decode(came)!r}, given".replace(": b", ": "))


@pytest.mark.parametrize("command", ["evaluate", "predict", "generate"])
def test_a_stream_of_other_tokens_is_refused(folder, tmp_path, capsys, command):
    (tmp_path / "other.txt").write_bytes(TEXT[::-1])
    other = tmp_path / "other.u16"
    made = run(capsys, "data", "text", tmp_path / "other.txt", "--bpe", "280", "--out", other)
    assert made[0] == 0
    extra = ["--idx", "9"] if command == "predict" else []
    for stream, model in (
        (other, "cafe.pt"),
        (folder / "bytes.u16", "cafe.pt"),
        (folder / "cafe.u16", "baseline.pt"),
    ):
        line = (command, "--u16_path", stream, "--ckpt", folder / model, *extra)
        code, _, err = run(capsys, *line)
        assert code == 2
        assert "holds other tokens than the model" in err or "does not fit this stream" in err
        assert len(err.strip().splitlines()) == 1
    bare = tmp_path / "bare.u16"  # of which nothing is known
    bare.write_bytes((folder / "cafe.u16").read_bytes())
    assert run(capsys, command, "--u16_path", bare, "--ckpt", folder / "cafe.pt", *extra)[0] == 0


@pytest.mark.parametrize("command", ["evaluate", "predict", "generate"])
def test_a_stream_of_another_kind_is_told(folder, capsys, command):
    extra = {"predict": ["--idx", "20"], "generate": ["--n", "3", "--idx", "20"]}.get(command, [])
    line = (command, "--ckpt", folder / "sound.pt", *extra)
    said = "bytes.u16 holds 256 tokens by its JSON, and the model was made for 65536 values"
    code, out, err = run(capsys, *line, "--u16_path", folder / "bytes.u16")
    assert code == 0
    assert said in out + err
    code, out, err = run(capsys, *line, "--u16_path", folder / "sound.u16")
    assert code == 0
    assert "by its JSON" not in out + err


def test_a_model_from_before_there_were_tokens_still_reads(folder):
    card = pyseq.load(folder / "baseline.pt").card
    fields = json.loads(card.to_json())
    assert fields.pop("tokenizer") is None
    assert ModelCard.from_json(json.dumps(fields)) == card
    assert isinstance(card.codec, Bytes)
    assert card.symbol_bytes is None
    assert pyseq.load(folder / "sound.pt").card.codec is None


# continuations


def test_a_stream_goes_on_where_the_test_range_begins(folder, capsys):
    line = ("generate", "--u16_path", folder / "cafe.u16", "--ckpt", folder / "cafe.pt")
    code, out, err = run(capsys, *line, "--n", "60", "--seed", "3")
    assert (code, err) == (0, "")
    model = pyseq.load(folder / "cafe.pt")
    start = model.card.data["splits"]["test"][0]
    with U16Stream(folder / "cafe.u16") as stream:
        context = stream[start - 16 : start]
    tokenizer = Tokenizer.read(tokenizer_path(folder / "cafe.u16"))
    assert out.splitlines()[0] == f"context: {tokenizer.decode(context.tolist())!r}".replace(
        ": b", ": "
    )
    made = tokenizer.decode(model.generate(context, 60, seed=3).tolist())
    assert continuation(out) == "".join(readable([made])) + "\n"
    assert run(capsys, *line, "--n", "60", "--seed", "3", "--idx", start)[1] == out
    assert run(capsys, *line, "--n", "60", "--seed", "4")[1] != out


@pytest.mark.parametrize("model", MODELS)
def test_the_cache_changes_nothing(folder, capsys, model):
    line = ("generate", "--prompt", "the café", "--ckpt", folder / f"{model}.pt", "--n", "40")
    code, out, _ = run(capsys, *line)
    assert code == 0
    assert run(capsys, *line, "--no_cache")[1] == out
    assert len(continuation(out)) >= 40


def test_a_prompt_goes_on(folder, capsys):
    for name in ("cafe.pt", "baseline.pt"):
        model = pyseq.load(folder / name)
        line = ("generate", "--prompt", "the café\t", "--ckpt", folder / name, "--n", "20")
        code, out, _ = run(capsys, *line, "--topk", "4", "--temperature", ".5")
        assert code == 0
        assert out.startswith("context: the café\t\n")
        symbols = torch.from_numpy(model.card.codec.encode("the café\t".encode()))
        made = model.generate(symbols, 20, topk=4, temperature=0.5).tolist()
        assert continuation(out) == "".join(readable([model.card.codec.decode(made)])) + "\n"


def test_a_prompt_needs_no_stream_and_no_tokenizer_file(folder, tmp_path, capsys):
    (tmp_path / "m.pt").write_bytes((folder / "cafe.pt").read_bytes())
    code, out, _ = run(capsys, "generate", "--prompt", "x", "--ckpt", tmp_path / "m.pt")
    assert code == 0
    assert continuation(out).strip()


def test_values_go_on_as_numbers(folder, capsys):
    line = ("generate", "--u16_path", folder / "sound.u16", "--ckpt", folder / "sound.pt")
    code, out, _ = run(capsys, *line, "--idx", "500", "--n", "30")
    assert code == 0
    tone = np.fromfile(folder / "sound.u16", "<u2")
    made = pyseq.load(folder / "sound.pt").generate(torch.from_numpy(tone), 30)
    assert [int(number) for number in continuation(out).split()] == made.tolist()
    assert out.splitlines()[0].endswith(" ".join(map(str, tone[-16:])))


def test_a_continuation_becomes_a_stream(folder, tmp_path, capsys):
    out = tmp_path / "new.u16"
    line = ("generate", "--prompt", "the", "--ckpt", folder / "cafe.pt", "--n", "50", "--out", out)
    code, told, _ = run(capsys, *line)
    assert code == 0
    info, model = read_info(out), pyseq.load(folder / "cafe.pt")
    assert told.endswith(f"{out}: 50 symbols, sha256 {info.sha256[:12]}\n")
    prompt = torch.from_numpy(model.card.codec.encode(b"the"))
    made = model.generate(prompt, 50).tolist()
    assert np.fromfile(out, "<u2").tolist() == made
    assert (info.kind, info.alphabet, info.learned_bytes) == ("tokens", 280, 0)
    assert info.source_bytes == len(model.card.codec.decode(made))
    assert tokenizer_path(out).read_text() == model.card.tokenizer
    assert "temperature 1.0, seed 0, prompt 'the'" in info.source
    again = ("generate", "--u16_path", out, "--idx", "50", "--ckpt", folder / "cafe.pt", "--n", 5)
    assert run(capsys, *again)[0] == 0
    code, _, err = run(capsys, *line)
    assert (code, "new.u16 exists already" in err) == (2, True)
    assert run(capsys, *line, "--overwrite", "--seed", "1")[0] == 0
    assert read_info(out).sha256 != info.sha256


def test_values_become_sound(folder, tmp_path, capsys):
    out = tmp_path / "new.wav"
    line = ("generate", "--u16_path", folder / "sound.u16", "--ckpt", folder / "sound.pt")
    code, told, _ = run(capsys, *line, "--n", "40", "--out", out, "--rate", "16000")
    assert code == 0
    assert told.endswith(f"{out}: 40 samples, 16000 a second\n")
    numbers = np.array(continuation(told).splitlines()[0].split(), int)
    with wave.open(str(out), "rb") as file:
        assert file.getparams()[:4] == (1, 2, 16_000, 40)
        samples = np.frombuffer(file.readframes(40), np.int16)
    assert (samples.astype(int) + 32_768).tolist() == numbers.tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["new.wav"]


# text as it comes in


def test_characters_are_printed_when_they_are_whole(capsys):
    symbols = [*"aé".encode(), 0xFF, *b"\tz\n\x1b[0m\r", 0xE2, 0x82]
    expected = ["a", "", "é", "\\xff", "\t", "z", "\n", "\\x1b", "[", "0", "m", "\\r", "", ""]
    seen = []

    def coming():
        for symbol in symbols:
            yield symbol
            seen.append(capsys.readouterr().out)

    _print(coming(), Bytes())
    assert seen == expected
    assert capsys.readouterr().out == "\\xe2\\x82\n"


def test_a_terminal_without_the_character_gets_its_number(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    _print(iter("é".encode()), Bytes())
    sys.stdout.flush()
    assert raw.getvalue() == b"\\xe9\n"


# mistakes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompt", "x", "--n", "0"], "--n 0; at least 1 fits"),
        (["--prompt", "x", "--topk", "0"], "--topk 0; at least 1 fits"),
        (["--prompt", "x", "--temperature", "-1"], "--temperature -1.0; 0 or more fits"),
        (["--prompt", "x", "--temperature", "nan"], "--temperature nan; 0 or more fits"),
        (["--prompt", "x", "--seed", "-1"], "--seed -1; 0 or more fits"),
        (["--prompt", "x", "--rate", "0"], "--rate 0; at least 1 fits"),
        (["--prompt", "x", "--rate", "2147483648"], "--rate 2147483648; at most 2147483647 fits"),
        (["--prompt", ""], "--prompt is empty"),
        ([], "either --u16_path or --prompt"),
        (["--prompt", "x", "--u16_path", "{cafe}"], "either --u16_path or --prompt"),
        (["--prompt", "x", "--idx", "5"], "--prompt has none"),
        (["--u16_path", "{cafe}", "--idx", "0"], "--idx 0 has no context"),
        (["--u16_path", "{cafe}", "--idx", "99999999"], "symbols; 1 to "),
        (["--u16_path", "none.u16"], "none.u16 cannot be read"),
        (["--u16_path", "{large}", "--idx", "3"], "symbol 300 lies outside the model's alphabet"),
        (["--prompt", "x", "--ckpt", "none.pt"], "none.pt is no file"),
        (["--prompt", "x", "--ckpt", "{sound}"], "--prompt needs a model of text"),
        (["--prompt", "x", "--device", "cuda:77"], "cuda:77"),
        (["--prompt", "x", "--out", "{new}/none/a.u16"], "there is no folder"),
        (["--prompt", "x", "--out", "{new}"], "it is a folder"),
        (["--prompt", "x", "--out", "{new}/a.wav"], "280 tokens; 65536 values fit"),
        (["--u16_path", "{bytes}", "--ckpt", "{sound}", "--out", "{taken}"], "exists already"),
    ],
)
def test_the_users_mistakes(folder, tmp_path, capsys, arguments, words):
    large, taken, new = tmp_path / "large.u16", tmp_path / "taken.wav", tmp_path / "new"
    np.array([1, 300, 2, 5], "<u2").tofile(large)
    taken.write_bytes(b"precious")
    new.mkdir()
    names = {name: folder / f"{name}.u16" for name in ("cafe", "bytes")}
    names |= {"large": large, "taken": taken, "new": new, "sound": folder / "sound.pt"}
    model = [] if "--ckpt" in arguments else ["--ckpt", folder / "cafe.pt"]
    code, out, err = run(capsys, "generate", *(a.format(**names) for a in arguments), *model)
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err + out
    assert taken.read_bytes() == b"precious"
    assert list(new.iterdir()) == []
