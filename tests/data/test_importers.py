import os
import platform
import sysconfig
import wave
from pathlib import Path

import numpy as np
import pytest

from pyseq.data import importers
from pyseq.data.stream_info import write_stream
from pyseq.data.tokenizer import Tokenizer
from pyseq.errors import UserError


def symbols(imported):
    """Everything that was imported, after checking what Imported promises."""
    chunks = list(imported.chunks)
    assert all(chunk.dtype == np.uint16 and chunk.ndim == 1 for chunk in chunks)
    whole = np.concatenate(chunks)
    assert imported.count in (len(whole), None)
    assert whole.max() < imported.alphabet
    return whole


def sentence(call, *arguments, **keywords):
    """The message of the UserError that a call, or reading what it gives, raises."""
    with pytest.raises(UserError) as caught:
        list(call(*arguments, **keywords).chunks)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# text


@pytest.fixture
def folder(tmp_path):
    """A folder of texts, with a binary file, hidden entries and an empty file among them."""
    root = tmp_path / "docs"
    for name, content in {
        "b.py": b"B",
        "a/z.txt": b"Z\xff",
        "a.py": b"A",
        "empty.py": b"",
        "picture.py": b"GIF\0",
        ".hidden.py": b"H",
        ".git/config.py": b"H",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_text_of_a_folder_is_sorted_by_full_path(folder):
    imported = importers.text(folder)
    assert bytes(symbols(imported).astype(np.uint8)) == b"AZ\xffB"  # "a.py" < "a/z.txt" as text
    assert (imported.alphabet, imported.kind) == (256, "tokens")
    assert imported.source == f"text: 4 files from {folder}"


def test_text_pattern_chooses_files_of_folders_only(folder):
    other = folder / "a" / "z.txt"
    imported = importers.text([str(other), folder], pattern="*.py")
    assert bytes(symbols(imported).astype(np.uint8)) == b"Z\xffAB"


def test_named_text_files_are_taken_as_they_are(folder):
    assert symbols(importers.text([folder / "picture.py", folder / ".hidden.py"])).tolist() == [
        *b"GIF\0H"
    ]


def test_text_longer_than_one_read(tmp_path):
    data = np.random.default_rng(0).integers(256, size=2**21 + 3, dtype=np.uint8)
    (tmp_path / "f").write_bytes(data.tobytes())
    np.testing.assert_array_equal(symbols(importers.text(tmp_path / "f")), data)


def test_bad_text(tmp_path, folder):
    assert sentence(importers.text, tmp_path / "none") == f"{tmp_path / 'none'} does not exist"
    assert "'*.md'" in sentence(importers.text, folder, pattern="*.md")
    assert "holds no bytes" in sentence(importers.text, folder / "empty.py")
    assert "at least one file" in sentence(importers.text, [])
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in sentence(importers.text, tmp_path / "pipe")
    assert "does not exist" in sentence(importers.text, "n" * 300)


def test_text_that_goes_away_before_it_is_read(folder):
    imported = importers.text(folder / "b.py")
    (folder / "b.py").unlink()
    with pytest.raises(UserError, match=r"b\.py cannot be read: No such file"):
        list(imported.chunks)


def test_text_passes_over_what_is_no_file(folder):
    os.mkfifo(folder / "pipe")
    (folder / "broken").symlink_to(folder / "none")
    assert importers.text(folder).source.startswith("text: 4 files")


def test_standard_library_text():
    imported = importers.stdlib_text()
    root = Path(sysconfig.get_path("stdlib"))
    left_out = {"site-packages", "dist-packages", "test", "tests"}
    files = sorted(
        str(file) for file in root.rglob("*.py") if not left_out & set(file.relative_to(root).parts)
    )
    assert imported.count == sum(Path(file).stat().st_size for file in files)
    start = next(imported.chunks)
    first = b"".join(Path(file).read_bytes() for file in files[:5])
    size = min(len(start), len(first))
    assert bytes(start[:size].astype(np.uint8)) == first[:size]
    assert f"{len(files)} .py files" in imported.source
    assert platform.python_version() in imported.source


def test_a_python_without_source_files(tmp_path, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert f"{tmp_path} holds no *.py" in sentence(importers.stdlib_text)


# byte pairs


@pytest.fixture
def prose(tmp_path):
    """A text whose last fifth has words of its own."""
    path = tmp_path / "prose.txt"
    path.write_bytes(b"tick tock\n" * 80 + b"zigzag\xff zig\n" * 16 + b"tock\n")
    return path


def test_byte_pairs_give_back_the_text(prose, folder):
    imported = importers.by_byte_pairs(lambda: importers.text([prose, folder]), 300)
    assert imported.tokenizer is not None
    assert (imported.alphabet, imported.kind) == (imported.tokenizer.alphabet, "tokens")
    tokens = symbols(imported)
    assert imported.tokenizer.decode(tokens) == prose.read_bytes() + b"AZ\xffB"
    assert len(tokens) < 0.5 * prose.stat().st_size


@pytest.mark.parametrize("share", [0.8, 0.5, 0.79])
def test_byte_pairs_are_learned_from_the_first_share_alone(prose, share):
    imported = importers.by_byte_pairs(lambda: importers.text(prose), 300, share=share)
    data = prose.read_bytes()
    first = data[: int(share * len(data))]
    assert imported.learned_bytes == len(first)
    assert imported.tokenizer.json == Tokenizer.learn([first], 300).json
    assert not any(b"zig" in token for token in imported.tokenizer.tokens)
    everything = importers.by_byte_pairs(lambda: importers.text(prose), 300, share=1)
    assert everything.learned_bytes == len(data)
    assert b" zig" in everything.tokenizer.tokens
    assert imported.source == (
        f"byte-pair tokens learned from the first {len(first)} bytes of text: 1 file from {prose}"
    )


def test_tokens_of_another_text(prose, folder):
    learned = importers.by_byte_pairs(lambda: importers.text(prose), 300).tokenizer
    imported = importers.with_tokenizer(importers.text(folder), learned)
    assert learned.decode(symbols(imported)) == b"AZ\xffB"
    assert (imported.tokenizer, imported.learned_bytes) == (learned, 0)
    assert "learned elsewhere" in imported.source


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_bad_shares(prose, share):
    words = sentence(importers.by_byte_pairs, lambda: importers.text(prose), 300, share=share)
    assert f"--bpe_share {share}; a share above 0 and up to 1 fits" in words


@pytest.mark.parametrize("content", [b"x", b"abcdefghij", b"tick" + b"\n" * 50])
def test_too_little_text_for_byte_pairs(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    words = sentence(importers.by_byte_pairs, lambda: importers.text(tmp_path / "f"), 300)
    assert "bytes, which are too few: no pair of them occurs twice" in words
    bytes_alone = importers.by_byte_pairs(lambda: importers.text(tmp_path / "f"), 256)
    assert bytes(symbols(bytes_alone).astype(np.uint8)) == content


# wav


def make_wav(path, frames, *, width=2, rate=8000):
    """Write int16 frames (n, channels), or raw bytes of another width."""
    frames = np.asarray(frames)
    path.parent.mkdir(exist_ok=True, parents=True)
    with wave.open(os.fspath(path), "wb") as writer:
        writer.setnchannels(1 if frames.ndim == 1 else frames.shape[1])
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(frames.astype("<i2").tobytes() if width == 2 else frames.tobytes())
    return path


STEREO = np.array([[-32768, 32767], [-5, -4], [100, 300]], dtype=np.int16)


def test_wav_moves_samples_up(tmp_path):
    file = make_wav(tmp_path / "a.wav", [-32768, -1, 0, 1, 32767])
    imported = importers.wav(file)
    assert symbols(imported).tolist() == [0, 32767, 32768, 32769, 65535]
    assert (imported.alphabet, imported.kind, imported.count) == (65_536, "values", 5)
    assert imported.source == f"wav: 1 file from {file}, 8000 samples/s"


@pytest.mark.parametrize(
    ("channel", "samples"),
    [(0, STEREO[:, 0]), (1, STEREO[:, 1]), ("mix", [0, -4, 200])],  # -.5 and -4.5 round to even
)
def test_wav_channels(tmp_path, channel, samples):
    imported = importers.wav(make_wav(tmp_path / "a.wav", STEREO), channel)
    assert symbols(imported).tolist() == [int(sample) + 32768 for sample in samples]
    assert imported.source.endswith(f"channel {channel}")


def test_wav_mix_does_not_overflow(tmp_path):
    loud = np.array([[32767] * 6, [-32768] * 6], dtype=np.int16)
    mixed = symbols(importers.wav(make_wav(tmp_path / "a.wav", loud), "mix"))
    assert mixed.tolist() == [65535, 0]


def test_wav_files_and_folders_follow_one_another_in_sorted_order(tmp_path):
    make_wav(tmp_path / "in" / "b.WAV", [2])
    make_wav(tmp_path / "in" / "a" / "c.wav", [1])
    (tmp_path / "in" / "notes.txt").write_text("no audio")
    first = make_wav(tmp_path / "first.wav", [0])
    imported = importers.wav([tmp_path / "in", first])
    assert symbols(imported).tolist() == [32768, 32769, 32770]
    assert imported.source.startswith(f"wav: 3 files from {tmp_path / 'in'}, {first}")


def test_long_wav(tmp_path):
    samples = np.random.default_rng(0).integers(-32768, 32768, 2**20 + 7).astype(np.int16)
    file = make_wav(tmp_path / "a.wav", samples)
    np.testing.assert_array_equal(symbols(importers.wav(file)), samples.astype(np.int32) + 32768)


def test_bad_wav(tmp_path):
    text = tmp_path / "text.wav"
    text.write_text("no audio at all, only text that goes on")
    assert f"{text} is no wav file of 16-bit PCM" in sentence(importers.wav, text)
    empty = tmp_path / "empty.wav"
    empty.write_bytes(b"")
    assert "ends within its header" in sentence(importers.wav, empty)
    assert "does not exist" in sentence(importers.wav, tmp_path / "none.wav")
    (tmp_path / "folder").mkdir()
    assert "no *.wav lies in" in sentence(importers.wav, tmp_path / "folder")
    eight = make_wav(tmp_path / "8.wav", np.zeros(4, np.uint8), width=1)
    assert "8-bit samples; 16-bit PCM fits" in sentence(importers.wav, eight)
    deep = make_wav(tmp_path / "24.wav", np.zeros(6, np.uint8), width=3)
    assert "24-bit samples" in sentence(importers.wav, deep)
    assert "no frames" in sentence(importers.wav, make_wav(tmp_path / "0.wav", []))
    stereo = make_wav(tmp_path / "2.wav", STEREO)
    assert "2 channels; choose 0..1 or mix" in sentence(importers.wav, stereo)
    assert "no channel 2; 0..1 or mix fits" in sentence(importers.wav, stereo, 2)
    assert "no channel -1" in sentence(importers.wav, stereo, -1)
    slow, fast = make_wav(tmp_path / "r1.wav", [1]), make_wav(tmp_path / "r2.wav", [1], rate=16000)
    assert "16000 samples/s but" in sentence(importers.wav, [slow, fast])


def test_compressed_wav(tmp_path):
    file = make_wav(tmp_path / "a.wav", [1, 2, 3])
    data = bytearray(file.read_bytes())
    data[20:22] = (0x0011).to_bytes(2, "little")  # the format tag of IMA ADPCM
    file.write_bytes(data)
    assert "is no wav file of 16-bit PCM: unknown format: 17" in sentence(importers.wav, file)


@pytest.mark.parametrize("lost", [1, 2, 5, 8])
def test_truncated_wav_leaves_no_output(tmp_path, lost):
    file = make_wav(tmp_path / "a.wav", STEREO)
    file.write_bytes(file.read_bytes()[:-lost])
    imported = importers.wav(file, 0)
    with pytest.raises(UserError, match=rf"ends after {(12 - lost) // 4} of the 3 frames"):
        write_stream(
            tmp_path / "out.u16", imported.chunks, alphabet=65_536, kind="values", source="x"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


# npy


def make_npy(path, values):
    np.save(path, values)
    return path


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", ">u2", "int16", "int64", "uint64"])
def test_npy_of_any_integers(tmp_path, dtype):
    imported = importers.npy(make_npy(tmp_path / "a.npy", np.array([0, 7, 100], dtype)))
    assert symbols(imported).tolist() == [0, 7, 100]
    assert (imported.alphabet, imported.kind) == (101, "values")
    assert imported.source == f"npy: {tmp_path / 'a.npy'}, {np.dtype(dtype)}"


def test_npy_moves_signed_samples_up(tmp_path):
    imported = importers.npy(make_npy(tmp_path / "a.npy", np.array([-32768, 0, 32767], np.int16)))
    assert symbols(imported).tolist() == [0, 32768, 65535]
    assert imported.alphabet == 65_536
    assert "moved up by 32768" in imported.source


def test_npy_longer_than_one_piece(tmp_path):
    values = np.random.default_rng(0).integers(65_536, size=2**20 + 5, dtype=np.uint16)
    file = make_npy(tmp_path / "a.npy", values)
    np.testing.assert_array_equal(symbols(importers.npy(file)), values)


def test_npy_takes_a_declared_alphabet_and_kind(tmp_path):
    file = make_npy(tmp_path / "a.npy", np.array([3]))
    imported = importers.npy(file, alphabet=10, kind="tokens")
    assert (imported.alphabet, imported.kind) == (10, "tokens")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([1.0, 2.0]), "holds float64 of shape (2,)"),
        (np.zeros((2, 3), np.uint16), "holds uint16 of shape (2, 3)"),
        (np.zeros(0, np.uint16), "holds uint16 of shape (0,)"),
        (np.uint16(3), "shape ()"),
        (np.array([True]), "holds bool"),
        (np.array(["a"]), "1-D array of at least one whole number fits"),
        (np.array([5, 65_536]), "holds 65536 at offset 1; 0..65535 fit"),
        (np.array([5, -1]), "holds -1 at offset 1"),
        (np.array([-1], np.int8), "holds -1 at offset 0"),
        (np.array([None], object), "cannot be read as a .npy array"),
    ],
)
def test_bad_npy(tmp_path, values, words):
    assert words in sentence(importers.npy, make_npy(tmp_path / "a.npy", values))


def test_what_is_no_npy(tmp_path):
    assert "does not exist" in sentence(importers.npy, tmp_path / "none.npy")
    assert "is a folder; a file fits" in sentence(importers.npy, tmp_path)
    file = tmp_path / "a.npy"
    file.write_text("0,1,2")
    assert f"{file} cannot be read as a .npy array" in sentence(importers.npy, file)
    whole = make_npy(file, np.arange(100)).read_bytes()
    file.write_bytes(whole[:-8])
    assert "cannot be read as a .npy array" in sentence(importers.npy, file)


# csv


def make_csv(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "column"),
    [
        ("n,roll\n1,7\n2,10000\n", "roll"),
        ("n,roll\n1,7\n2,10000\n", 1),
        ("1,7\n2,10000", 1),
        ("\ufeffroll\r\n7\r\n\r\n10000\r\n", "roll"),
        ('"the ""n""","the roll"\n"a, b"," 7 "\n"a\nb",00010000\n', "the roll"),
        ("7\n10000\n", 0),
    ],
)
def test_csv_columns(tmp_path, content, column):
    imported = importers.csv(make_csv(tmp_path, content), column)
    assert symbols(imported).tolist() == [7, 10_000]
    assert (imported.alphabet, imported.kind) == (10_001, "values")
    assert imported.source == f"csv: {tmp_path / 't.csv'}, column {column!r}"


def test_csv_delimiter_alphabet_and_kind(tmp_path):
    file = make_csv(tmp_path, "a\tb\n1\t2\n")
    imported = importers.csv(file, "b", delimiter="\t", alphabet=5, kind="tokens")
    assert (symbols(imported).tolist(), imported.alphabet, imported.kind) == ([2], 5, "tokens")


@pytest.mark.parametrize(
    ("content", "column", "words"),
    [
        ("roll\n7\n-3\n", "roll", "line 3 of {} holds '-3' in column 'roll'; a whole number"),
        ("roll\n7\n3.5\n", "roll", "line 3 of {} holds '3.5'"),
        ("roll\n7\n65536\n", 0, "line 3 of {} holds '65536'"),
        ("roll\n7\nsix\n", 0, "line 3 of {} holds 'six'"),
        ("roll\n7\n1_0\n", 0, "line 3 of {} holds '1_0'"),
        ("roll\n٣\n", 0, "line 2 of {} holds '٣'"),
        (f"roll\n{'9' * 5000}\n", 0, f"line 2 of {{}} holds '{'9' * 40}' in"),
        ("-7\n7\n", 0, "line 1 of {} holds '-7'"),
        ('a,b\n"x\ny",1\nz\n', "b", "line 4 of {} has no column 'b'; 0..0 fit"),
        ("1,2\n", 2, "line 1 of {} has no column 2; 0..1 fit"),
        ("1,2\n", -1, "line 1 of {} has no column -1"),
        ("a,b\n1,2\n", "c", "{} has no column 'c'; it has a, b"),
        ("", 0, "{} holds no numbers in column 0"),
        ("roll\n", "roll", "{} holds no numbers in column 'roll'"),
        (b"roll\n\xff\n", "roll", "{} is no text in UTF-8"),
        ("7\n" + "1" * 200_000, 0, "line 2 of {} is no table row: field larger"),
    ],
)
def test_bad_csv(tmp_path, content, column, words):
    file = make_csv(tmp_path, content)
    assert words.format(file) in sentence(importers.csv, file, column)


def test_what_is_no_csv(tmp_path):
    assert "does not exist" in sentence(importers.csv, tmp_path / "none.csv")
    assert "is a folder" in sentence(importers.csv, tmp_path)
    for delimiter in ("", ";;", '"', "\n"):
        words = sentence(importers.csv, make_csv(tmp_path, "1"), delimiter=delimiter)
        assert "one character fits" in words
