"""Alphabet and kind of a stream: declared, described or found, and always checked."""

import numpy as np
import pytest

from pyseq.data.described_stream import describe_stream, guess_kind
from pyseq.data.stream_info import tokenizer_path, write_stream
from pyseq.data.streams import make
from pyseq.data.tokenizer import Tokenizer
from pyseq.errors import UserError


def raw(path, symbols) -> str:
    np.asarray(symbols).astype("<u2").tofile(path)
    return str(path)


def test_the_json_is_believed_and_checked(tmp_path):
    path = tmp_path / "s.u16"
    symbols = np.arange(1000, dtype=np.uint16) % 300
    write_stream(path, [symbols], alphabet=5000, kind="values", source="a test", entropy_rate=1.5)
    described = describe_stream(path)
    assert (described.alphabet, described.kind, described.entropy_rate) == (5000, "values", 1.5)
    assert all("from the JSON" in remark for remark in described.remarks)
    assert describe_stream(path, alphabet=300, kind="tokens").alphabet == 300
    with pytest.raises(UserError, match=r"symbol 299 at offset 299 lies outside .* of 299"):
        describe_stream(path, alphabet=299)


def test_without_json_the_highest_symbol_decides(tmp_path):
    described = describe_stream(raw(tmp_path / "s.u16", [5, 9, 0] * 50))
    assert described.alphabet == 10
    assert described.kind == "tokens"
    assert describe_stream(raw(tmp_path / "t.u16", [65_535, 0] * 50)).alphabet == 65_536


def test_the_first_offender_is_named_past_the_first_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr("pyseq.data.described_stream.CHUNK", 100)
    symbols = np.zeros(1000, int)
    symbols[[731, 900]] = 40
    with pytest.raises(UserError, match="symbol 40 at offset 731"):
        describe_stream(raw(tmp_path / "s.u16", symbols), alphabet=40)


def test_counts_are_of_the_range(tmp_path, monkeypatch):
    monkeypatch.setattr("pyseq.data.described_stream.CHUNK", 7)
    described = describe_stream(raw(tmp_path / "s.u16", [0, 1, 2, 2, 1] * 10))
    assert described.counts(0, 50).tolist() == [10, 20, 20]
    assert described.counts(2, 4).tolist() == [0, 0, 2]


def test_shards_must_agree(tmp_path):
    for name, alphabet in (("a", 10), ("b", 11)):
        write_stream(tmp_path / f"{name}.u16", [np.zeros(50, np.uint16)], alphabet=alphabet,
                     kind="tokens", source="a test")  # fmt: skip
    with pytest.raises(UserError, match="shards of one stream must agree"):
        describe_stream(str(tmp_path / "*.u16"))


TEXT = b"to be or not to be, that is the question\n" * 30
TOKENS = Tokenizer.learn([TEXT], 270)


def write_tokens(path, text=TEXT, learned_bytes=0, tokenizer=TOKENS) -> str:
    write_stream(path, [tokenizer.encode(text)], alphabet=tokenizer.alphabet, kind="tokens",
                 source="a test", tokenizer=tokenizer, learned_bytes=learned_bytes)  # fmt: skip
    return str(path)


def test_tokens_come_with_their_tokenizer(tmp_path):
    path = write_tokens(tmp_path / "s.u16")
    described = describe_stream(path)
    assert described.tokenizer.json == TOKENS.json
    per_symbol = len(TEXT) / len(described.stream)
    assert f"tokens: {per_symbol:.3f} bytes/symbol, by byte-pair encoding" in described.remarks
    assert described.tokenizer.decode(described.stream[:].tolist()) == TEXT
    assert describe_stream(raw(tmp_path / "t.u16", [5] * 50)).tokenizer is None
    for other in (269, 271):
        with pytest.raises(UserError, match=rf"of {other} does not fit this stream, .* 270 tokens"):
            describe_stream(path, alphabet=other)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file"),
        (b"{", "holds no tokenizer"),
        (TOKENS.json.encode() + b" ", "is not the tokenizer that .* was made with"),
    ],
)
def test_a_tokenizer_that_is_not_there_is_one_sentence(tmp_path, content, words):
    path = write_tokens(tmp_path / "s.u16")
    tokenizer_path(path).unlink()
    if content is not None:
        tokenizer_path(path).write_bytes(content)
    with pytest.raises(UserError, match=rf"s\.u16\.tokenizer\.json {words}"):
        describe_stream(path)


def test_shards_of_tokens_must_have_one_tokenizer(tmp_path):
    write_tokens(tmp_path / "a.u16")
    other = Tokenizer.learn([TEXT[::-1]], 270)
    assert other.alphabet == 270
    write_tokens(tmp_path / "b.u16", tokenizer=other)
    with pytest.raises(UserError, match="hold tokens of different tokenizers"):
        describe_stream(str(tmp_path / "*.u16"))


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_tokens_that_tested_text_has_shaped_are_told(tmp_path, order):
    """To the byte, and wherever the text that they were learned from lies in the stream."""
    paths = {
        "a": write_tokens(tmp_path / "a.u16", learned_bytes=100),
        "b": write_tokens(tmp_path / "b.u16", TEXT[:123]),
    }
    described = describe_stream([paths[name] for name in order])
    needed = 100 if order == "ab" else 223
    assert described.learned_bytes == needed
    lengths = TOKENS.lengths[described.stream[:].numpy()].cumsum()
    assert lengths[-1] == len(TEXT) + 123
    enough = int((lengths < needed).sum()) + 1  # symbols
    assert described.learned_beyond(enough) is None
    sentence = described.learned_beyond(enough - 1)
    assert f"first {needed} bytes, and the test range begins after {lengths[enough - 2]}" in (
        sentence
    )
    assert "tested text shaped them" in sentence
    assert described.source_bytes(3, enough) == lengths[enough - 1] - lengths[2]
    bare = describe_stream(raw(tmp_path / "c.u16", [5] * 9))
    assert (bare.source_bytes(0, 9), bare.learned_beyond(0)) == (None, None)


def test_a_glob_takes_no_tokenizer_for_a_shard(tmp_path):
    write_tokens(tmp_path / "s.u16")
    described = describe_stream(str(tmp_path / "s.u16*"))
    assert [shard.path.name for shard in described.stream.shards] == ["s.u16"]


def test_guesses():
    random = np.random.default_rng(0)
    rolls = make("hmac_rolls").generate(200_000, 0).numpy()
    speech = (np.cumsum(random.normal(0, 50, 100_000)) % 60_000).astype(np.uint16)
    noise = np.clip(random.normal(32_768, 3000, 100_000), 0, 65_535).astype(np.uint16)
    zipf = 1 / np.arange(1, 50_001)
    ids = random.permutation(50_000)[random.choice(50_000, 200_000, p=zipf / zipf.sum())]
    assert guess_kind(rolls)[0] == "values"
    assert guess_kind(speech)[0] == "values"
    assert guess_kind(noise)[0] == "values"
    assert guess_kind(ids.astype(np.uint16))[0] == "tokens"
    assert guess_kind(random.integers(0, 200, 1000).astype(np.uint16))[0] == "tokens"
    for symbols in (np.zeros(10, np.uint16), np.full(10, 65_535, np.uint16)):
        kind, why = guess_kind(symbols)  # constant streams divide by nothing
        assert kind in ("tokens", "values")
        assert why
