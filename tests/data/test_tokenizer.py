"""Bytes come back from their tokens whatever they are; learning is the same every time."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from pyseq.data import tokenizer as tokenizer_module
from pyseq.data.tokenizer import Bytes, Tokenizer
from pyseq.errors import UserError

TEXT = Path(tokenizer_module.__file__).read_bytes() + "naïve café, naïve café\n".encode() * 9
LEARNED = Tokenizer.learn([TEXT], 600)
ONE_LINE = st.binary(max_size=60)
LINES = st.lists(st.one_of(ONE_LINE, st.sampled_from(TEXT.split(b"\n"))), max_size=8)


def learn(text: bytes, alphabet: int) -> list[bytes]:
    """The tokens that are more than a byte."""
    return list(Tokenizer.learn([text], alphabet).tokens[256:])


@settings(max_examples=200, deadline=None)
@given(data=LINES.map(b"\n".join))
def test_any_bytes_come_back_exactly(data):
    symbols = LEARNED.encode(data)
    assert symbols.dtype == np.uint16
    assert LEARNED.decode(symbols) == data
    assert LEARNED.lengths[symbols].sum() == len(data)
    assert len(symbols) <= len(data)
    assert Bytes().decode(Bytes().encode(data)) == data


@settings(max_examples=40, deadline=None)
@given(text=st.binary(min_size=1, max_size=400), other=st.binary(max_size=100))
def test_any_bytes_can_teach_tokens(text, other):
    learned = Tokenizer.learn([text, text], 300)
    assert learned.decode(learned.encode(text + other)) == text + other


@settings(max_examples=60, deadline=None)
@given(data=LINES.map(b"\n".join), cuts=st.lists(st.integers(0, 400), max_size=5))
def test_how_a_text_is_cut_does_not_show(data, cuts):
    """Neither in the chunks it comes in, nor in the pieces it is encoded by, where lines fit."""
    whole = LEARNED.encode(data).tolist()
    chunks = [data[a:b] for a, b in itertools.pairwise([0, *sorted(cuts), len(data)])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_module, "PIECE_BYTES", 128)
        patch.setattr(tokenizer_module, "BATCH", 2)
        cut = [*LEARNED.encode_chunks(iter(chunks))]
    assert np.concatenate([np.empty(0, int), *cut]).tolist() == whole


def test_a_long_text_is_read_a_part_at_a_time():
    line, taken = b"x" * 65_535 + b"\n", 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield line

    symbols = LEARNED.encode_chunks(endless())
    for part in range(1, 4):
        assert LEARNED.decode(next(symbols)) == line * 16
        assert taken <= 16 * part + 1


def test_a_line_longer_than_a_piece_is_cut_anywhere(monkeypatch):
    monkeypatch.setattr(tokenizer_module, "PIECE_BYTES", 10)
    data = b"abc" * 20 + b"\n" + b"xyz"
    sizes = [len(piece) for piece in tokenizer_module._pieces([data[:33], b"", data[33:]])]
    assert sizes == [10] * 6 + [4]
    assert LEARNED.decode(LEARNED.encode(data)) == data


def test_the_first_tokens_are_the_bytes_and_later_ones_join_two():
    assert LEARNED.tokens[:256] == tuple(bytes([byte]) for byte in range(256))
    assert LEARNED.alphabet == len(set(LEARNED.tokens)) == 600
    for number, token in enumerate(LEARNED.tokens[256:], 256):
        earlier = set(LEARNED.tokens[:number])
        assert any({token[:cut], token[cut:]} <= earlier for cut in range(1, len(token)))
    assert LEARNED.lengths.tolist() == [len(token) for token in LEARNED.tokens]


def test_the_most_frequent_pair_becomes_a_token_first():
    assert learn(b"cdcdcdcdcd\nabababababab", 258) == [b"ab", b"cd"]
    assert learn("é é é é".encode(), 258)[:1] == ["é".encode()]


def test_what_occurs_once_becomes_no_token():
    assert learn(b"ab ab cdefgh", 400) == [b"ab"]
    assert learn(b"abcdefgh", 400) == []


def test_no_token_goes_on_behind_a_newline_or_joins_words():
    words = b"for x in y:\n    return 12345678, x\n\n\n" * 50
    for token in learn(words, 600):
        assert b"\n" not in token[:-1]
        assert b" " not in token[1:] or not token.strip(b" ")
    assert LEARNED.encode(b"a\n\nb").tolist() == [*b"a\n\nb"]


def test_learning_is_the_same_with_other_chunks_threads_and_processes():
    halves = [TEXT[: len(TEXT) // 2], TEXT[len(TEXT) // 2 :]]
    assert Tokenizer.learn(halves, 600).json == LEARNED.json
    code = (
        "import sys; from pyseq.data.tokenizer import Tokenizer;"
        "print(Tokenizer.learn([sys.stdin.buffer.read()], 600).sha256)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=TEXT,
        capture_output=True,
        check=True,
        env=os.environ | {"RAYON_NUM_THREADS": "4", "PYTHONHASHSEED": "5"},
    )
    assert done.stdout.decode().strip() == LEARNED.sha256


def test_the_json_is_all_there_is():
    again = Tokenizer(LEARNED.json)
    assert again.sha256 == LEARNED.sha256
    assert again.tokens == LEARNED.tokens
    symbols = LEARNED.encode(TEXT).tolist()
    assert again.encode(TEXT).tolist() == symbols
    library = tokenizers.Tokenizer.from_str(LEARNED.json)  # other programs can use it, too
    assert library.decode(symbols, skip_special_tokens=False).encode("latin-1") == TEXT


@pytest.mark.parametrize("alphabet", [-1, 0, 255, 65_537])
def test_only_alphabets_of_16_bits_that_hold_the_bytes_are_learned(alphabet):
    with pytest.raises(UserError, match=rf"--bpe {alphabet}; 256 to 65536 tokens fit"):
        Tokenizer.learn([TEXT], alphabet)
    assert learn(TEXT, 256) == []


def changed(**changes) -> str:
    """The JSON of a tokenizer of another kind."""
    fields = json.loads(LEARNED.json)
    for name, value in changes.items():
        fields[name] = value(fields[name]) if callable(value) else value
    return json.dumps(fields)


def bpe(vocabulary: list[str]):
    fields = {"vocab": {token: number for number, token in enumerate(vocabulary)}, "merges": []}
    return lambda model: model | fields


BYTES = [chr(byte) for byte in range(256)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "EOF while parsing"),
        ("{}", "Model missing"),
        (LEARNED.json[:-9], "EOF while parsing"),
        ("\ufffd", "expected value"),
        (changed(normalizer={"type": "Lowercase"}), "whose tokens are bytes"),
        (
            changed(
                truncation={
                    "max_length": 2,
                    "strategy": "LongestFirst",
                    "stride": 0,
                    "direction": "Right",
                }
            ),
            "whose tokens are bytes",
        ),
        (changed(pre_tokenizer={"type": "WhitespaceSplit"}), "whose tokens are bytes"),
        (changed(model=lambda model: model | {"dropout": 0.5}), "whose tokens are bytes"),
        (changed(model=bpe([*BYTES, ""])), "whose tokens are bytes"),
        (changed(model=bpe(BYTES[::-1])), "whose tokens are bytes"),
        (changed(model=bpe(BYTES[:255])), "whose tokens are bytes"),
        (changed(model=bpe([*BYTES, "Ġa"])), "whose tokens are bytes"),
        (
            changed(model=bpe([*BYTES, *(BYTES[i >> 8] + BYTES[i & 255] for i in range(65_281))])),
            "whose tokens are bytes",
        ),
    ],
)
def test_a_file_of_another_kind_is_one_sentence(tmp_path, content, words):
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(UserError, match=rf"t\.json holds no tokenizer.*{words}") as told:
        Tokenizer.read(path)
    assert "\n" not in str(told.value)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"none\.json cannot be read: No such file"):
        Tokenizer.read(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"binary\.json holds no tokenizer"):
        Tokenizer.read(tmp_path / "binary.json")
