import os
import sysconfig
import wave

import numpy as np
import pytest

from pyseq.cli.data import main
from pyseq.data.stream_info import read_info, tokenizer_path
from pyseq.data.streams import STREAMS, GbAr, HiddenMarkov, Markov1, make
from pyseq.data.tokenizer import Tokenizer
from pyseq.errors import UserError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def stored(path):
    return np.fromfile(path, dtype="<u2")


@pytest.mark.parametrize("name", [name for name in STREAMS if name != "urandom"])
def test_synthetic_writes_the_named_stream(tmp_path, capsys, name):
    out = tmp_path / "s.u16"
    assert main(["synthetic", name, "--count", "5000", "--seed", "3", "--out", str(out)]) == 0
    stream, info = make(name), read_info(out)
    np.testing.assert_array_equal(stored(out), stream.generate(5000, 3).numpy())
    assert (info.alphabet, info.kind) == (stream.alphabet, stream.kind)
    assert (info.entropy_rate, info.min_entropy) == (stream.entropy_rate, stream.min_entropy)
    assert info.source == stream.describe(3)
    printed = capsys.readouterr()
    assert printed.out == (
        f"{out}: 5,000 symbols, alphabet {stream.alphabet}, {stream.kind}, "
        f"entropy rate {stream.entropy_rate:.5f} bits/symbol, sha256 {info.sha256[:12]}\n"
    )
    assert printed.err == ""


@pytest.mark.parametrize("spelling", ["matrix_seed", "matrix-seed"])
@pytest.mark.parametrize("order", [0, 1])
def test_flags_in_both_spellings_and_any_order(tmp_path, spelling, order):
    out = tmp_path / "s.u16"
    common = ["--count", "1000", "--out", str(out)]
    flags = [f"--{spelling}", "5", "--alphabet", "8"]
    if order:
        main(["synthetic", *common, "markov1", *flags])
    else:
        main(["synthetic", "markov1", *flags, *common])
    np.testing.assert_array_equal(stored(out), Markov1(8, matrix_seed=5).generate(1000, 0).numpy())


@pytest.mark.parametrize(
    ("flags", "stream"),
    [
        (["gbar", "--weights", "0.5", "-0.2"], GbAr((0.5, -0.2))),
        (["hidden_markov", "--leave", ".2", ".3"], HiddenMarkov(leave=(0.2, 0.3))),
    ],
)
def test_flags_of_several_numbers(tmp_path, flags, stream):
    out = tmp_path / "s.u16"
    assert main(["synthetic", *flags, "--count", "1000", "--out", str(out)]) == 0
    np.testing.assert_array_equal(stored(out), stream.generate(1000, 0).numpy())
    assert read_info(out).source == stream.describe(0)


def test_what_cannot_be_made_again_says_so(tmp_path):
    for name in ("a.u16", "b.u16"):
        line = ["synthetic", "urandom", "--count", "1000", "--out", str(tmp_path / name)]
        assert main(line) == 0
    info = read_info(tmp_path / "a.u16")
    assert info.source == "urandom (os.urandom, cannot be made again)"
    assert info.sha256 != read_info(tmp_path / "b.u16").sha256


def test_text_of_paths(tmp_path, capsys):
    for name in ("b.py", "a.py", "c.txt"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_text(name)
    out = str(tmp_path / "s.u16")
    lone, folder = str(tmp_path / "in" / "c.txt"), str(tmp_path / "in")
    assert main(["text", lone, folder, "--pattern", "*.py", "--out", out]) == 0
    assert bytes(stored(out).astype(np.uint8)) == b"c.txta.pyb.py"
    assert f"{out}: 13 symbols, alphabet 256, tokens, sha256 " in capsys.readouterr().out


def test_text_of_the_standard_library(tmp_path):
    out = tmp_path / "s.u16"
    assert main(["text", "--stdlib", "--out", str(out)]) == 0
    info = read_info(out)
    assert "standard library of" in info.source
    assert info.count > 1_000_000


TEXT = b"the cat sat on the mat, the rat on the hat\n\xff" * 30


def test_tokens_by_byte_pairs(tmp_path, capsys):
    (tmp_path / "a.txt").write_bytes(TEXT)
    for name in ("s.u16", "t.u16"):
        line = ["text", str(tmp_path / "a.txt"), "--bpe", "270", "--out", str(tmp_path / name)]
        assert main(line) == 0
    out, size = tmp_path / "s.u16", len(TEXT)
    info, tokenizer = read_info(out), Tokenizer.read(tokenizer_path(out))
    assert tokenizer.decode(stored(out)) == TEXT
    assert (info.alphabet, info.kind, info.tokenizer) == (270, "tokens", tokenizer.sha256)
    assert (info.source_bytes, info.learned_bytes) == (size, size * 8 // 10)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        f"{out}: {info.count:,} symbols, alphabet 270, tokens, sha256 {info.sha256[:12]}",
        f"{out}.tokenizer.json: {size / info.count:.3f} bytes/symbol, learned from the first "
        f"{size * 8 // 10:,} of {size:,} bytes",
    ]
    for beside in ("", ".json", ".tokenizer.json"):  # the same text gives the same files
        first, second = (tmp_path / f"{name}.u16{beside}" for name in "st")
        assert first.read_bytes() == second.read_bytes()


def test_fewer_tokens_than_asked_for_are_told(tmp_path, capsys):
    (tmp_path / "a.txt").write_bytes(TEXT)
    line = ["text", str(tmp_path / "a.txt"), "--bpe", "5000", "--bpe_share", "1", "--out"]
    assert main([*line, str(tmp_path / "s.u16")]) == 0
    alphabet = read_info(tmp_path / "s.u16").alphabet
    assert 270 < alphabet < 300
    told = capsys.readouterr().out
    assert f"alphabet {alphabet}, tokens" in told
    assert "fewer than 5000 tokens: no other pair is in the text twice" in told


def test_tokens_of_an_earlier_stream(tmp_path, capsys):
    (tmp_path / "a.txt").write_bytes(TEXT)
    (tmp_path / "b.txt").write_bytes(b"a hat for the cat")
    first, second = tmp_path / "a.u16", tmp_path / "b.u16"
    main(["text", str(tmp_path / "a.txt"), "--bpe", "270", "--out", str(first)])
    known = ["--tokenizer", str(tokenizer_path(first))]
    assert main(["text", str(tmp_path / "b.txt"), *known, "--out", str(second)]) == 0
    assert tokenizer_path(second).read_bytes() == tokenizer_path(first).read_bytes()
    assert Tokenizer.read(tokenizer_path(second)).decode(stored(second)) == b"a hat for the cat"
    assert read_info(second).learned_bytes == 0
    assert "bytes/symbol, learned from another text" in capsys.readouterr().out


def test_tokens_of_the_standard_library(tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.py").write_bytes(TEXT)
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path / "lib"))
    out = tmp_path / "s.u16"
    assert main(["text", "--stdlib", "--bpe", "260", "--out", str(out)]) == 0
    assert Tokenizer.read(tokenizer_path(out)).decode(stored(out)) == TEXT
    assert "standard library of" in read_info(out).source


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--bpe", "255"], "--bpe 255; 256 to 65536 tokens fit"),
        (["--bpe", "65537"], "--bpe 65537; 256 to 65536 tokens fit"),
        (["--bpe", "300", "--bpe_share", "0"], r"--bpe_share 0\.0; a share above 0"),
        (
            ["--bpe", "300", "--bpe_share", "1e-4"],
            "the first 0.0001 of the text, 0 bytes, which are too few",
        ),
        (["--bpe", "300", "--tokenizer", "t.json"], "either --bpe or --tokenizer"),
        (["--tokenizer", "none.json"], r"none\.json cannot be read: No such file"),
    ],
)
def test_bad_tokens_leave_nothing(tmp_path, flags, words):
    (tmp_path / "a.txt").write_bytes(TEXT)
    with pytest.raises(UserError, match=words):
        main(["text", str(tmp_path / "a.txt"), *flags, "--out", str(tmp_path / "s.u16")])
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("sources", [[], ["a.txt", "--stdlib"]])
def test_text_takes_paths_or_the_standard_library(tmp_path, sources):
    with pytest.raises(UserError, match="either files and folders or --stdlib"):
        main(["text", *sources, "--out", str(tmp_path / "s.u16")])
    assert names(tmp_path) == []


@pytest.mark.parametrize(("channel", "expected"), [("1", [32767, 32772]), ("mix", [32768, 32770])])
def test_wav(tmp_path, channel, expected):
    source, out = tmp_path / "in.wav", tmp_path / "s.u16"
    with wave.open(os.fspath(source), "wb") as writer:
        writer.setnchannels(2)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes(np.array([[1, -1], [0, 4]], dtype="<i2").tobytes())
    assert main(["wav", str(source), "--channel", channel, "--out", str(out)]) == 0
    assert stored(out).tolist() == expected
    assert read_info(out).kind == "values"


def test_npy(tmp_path):
    np.save(tmp_path / "a.npy", np.array([4, 2]))
    out = tmp_path / "s.u16"
    flags = ["--alphabet", "9", "--kind", "tokens", "--out", str(out)]
    assert main(["npy", str(tmp_path / "a.npy"), *flags]) == 0
    assert stored(out).tolist() == [4, 2]
    info = read_info(out)
    assert (info.alphabet, info.kind) == (9, "tokens")


@pytest.mark.parametrize("column", ["1", "roll"])
def test_csv(tmp_path, column):
    (tmp_path / "a.csv").write_text("n;roll\n0;40\n1;2\n")
    out = tmp_path / "s.u16"
    flags = ["--column", column, "--delimiter", ";", "--out", str(out)]
    assert main(["csv", str(tmp_path / "a.csv"), *flags]) == 0
    assert stored(out).tolist() == [40, 2]
    assert read_info(out).alphabet == 41


def test_a_symbol_outside_the_declared_alphabet_leaves_nothing(tmp_path):
    np.save(tmp_path / "a.npy", np.array([4, 2, 9]))
    with pytest.raises(UserError, match=r"symbol 9 at offset 2 .* 0\.\.8 fit"):
        main(["npy", str(tmp_path / "a.npy"), "--alphabet", "9", "--out", str(tmp_path / "s.u16")])
    assert names(tmp_path) == ["a.npy"]


@pytest.mark.parametrize("existing", ["s.u16", "s.u16.json", "s.u16.tokenizer.json"])
def test_an_existing_output_needs_overwrite(tmp_path, existing):
    (tmp_path / existing).write_bytes(b"precious")
    command = ["synthetic", "uniform", "--count", "10", "--out", str(tmp_path / "s.u16")]
    with pytest.raises(UserError, match=f"{existing} exists already; .*--overwrite"):
        main(command)
    assert (tmp_path / existing).read_bytes() == b"precious"
    assert names(tmp_path) == [existing]
    assert main([*command, "--overwrite"]) == 0
    assert read_info(tmp_path / "s.u16").count == 10
    assert names(tmp_path) == ["s.u16", "s.u16.json"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--count", "0"], "no symbols"),
        (["--count", "-1"], "count is -1"),
        (["--seed", "-1"], "seed is -1"),
    ],
)
def test_bad_numbers_leave_nothing(tmp_path, flags, words):
    with pytest.raises(UserError, match=words):
        main(["synthetic", "uniform", *flags, "--out", str(tmp_path / "s.u16")])
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "command", [["text", "none.txt"], ["wav", "none.wav"], ["npy", "none.npy"]]
)
def test_a_missing_input(tmp_path, command):
    with pytest.raises(UserError, match=r"none\.\w+ does not exist"):
        main([*command, "--out", str(tmp_path / "s.u16")])
    assert names(tmp_path) == []


def test_a_parameter_out_of_range_is_told(tmp_path):
    with pytest.raises(UserError, match="alphabet is 70000"):  # tyro catches it on the way
        main(["synthetic", "uniform", "--alphabet", "70000", "--out", str(tmp_path / "s.u16")])
    assert names(tmp_path) == []


def test_a_missing_or_too_long_output(tmp_path):
    command = ["synthetic", "uniform", "--count", "10", "--out"]
    with pytest.raises(UserError, match="there is no folder"):
        main([*command, str(tmp_path / "none" / "s.u16")])
    with pytest.raises(UserError, match="cannot be written"):
        main([*command, str(tmp_path / ("s" * 300))])
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (["text"], ["--out", "--overwrite", "--pattern", "--stdlib", "--bpe", "--tokenizer"]),
        (["wav"], ["--out", "--overwrite", "--channel"]),
        (["npy"], ["--out", "--overwrite", "--alphabet", "--kind"]),
        (["csv"], ["--column", "--delimiter", "--alphabet", "--kind"]),
        (["synthetic", "markov1"], ["--count", "--seed", "--matrix_seed", "--sharpness"]),
        (["synthetic", "hmac_rolls"], ["--client_seed"]),
    ],
)
def test_help_shows_flags_and_defaults(capsys, command, flags):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in flags)
    assert "default: " in shown


@pytest.mark.parametrize(
    "arguments", [[], ["image"], ["text", "a.txt"], ["synthetic", "coin", "--out", "s.u16"]]
)
def test_a_wrong_command_line_is_told_in_one_sentence(capsys, arguments):
    with pytest.raises(UserError, match="--help shows the flags") as told:
        main(arguments)
    assert "\n" not in str(told.value)
    assert capsys.readouterr() == ("", "")
