"""Alphabet and kind of a stream: declared, described or found, and always checked."""

import numpy as np
import pytest

from pyseq.data.described_stream import describe_stream, guess_kind
from pyseq.data.stream_info import write_stream
from pyseq.data.streams import make
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
