import contextlib
import hashlib
import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyseq.data.stream_info import (
    StreamInfo,
    info_path,
    read_info,
    require_new,
    tokenizer_path,
    write_stream,
)
from pyseq.data.tokenizer import Tokenizer
from pyseq.errors import UserError

SYMBOLS = np.array([3, 0, 513, 65_535, 7], dtype=np.uint16)

TEXT = b"to be or not to be, to be or not\n"
TOKENS, OTHER_TOKENS = (Tokenizer.learn([TEXT], alphabet) for alphabet in (260, 259))


def write(path, chunks=(SYMBOLS,), **changes):
    description = {"alphabet": 65_536, "kind": "values", "source": "a test"} | changes
    return write_stream(path, iter(chunks), **description)


def write_tokens(path, tokenizer=TOKENS):
    return write(
        path,
        [tokenizer.encode(TEXT)],
        alphabet=tokenizer.alphabet,
        kind="tokens",
        tokenizer=tokenizer,
        learned_bytes=20,
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def is_whole(path):
    """No leftovers, and JSON and tokenizer, if they are there, are those of the stream."""
    info, tokenizer = read_info(path), tokenizer_path(path)
    allowed = {"s.u16", "s.u16.json", "s.u16.tokenizer.json"}
    if not set(names(path.parent)) <= allowed or (info is None and tokenizer.exists()):
        return False
    if info is None:
        return True
    hashed = hashlib.sha256(path.read_bytes()).hexdigest()
    known = hashlib.sha256(tokenizer.read_bytes()).hexdigest() if tokenizer.exists() else None
    return (info.sha256, info.tokenizer) == (hashed, known)


def test_bytes_are_little_endian_and_hashed(tmp_path):
    info = write(tmp_path / "s.u16", [SYMBOLS[:2], SYMBOLS[2:]], entropy_rate=3.5, min_entropy=2)
    data = bytes.fromhex("0300 0000 0102 ffff 0700")
    assert (tmp_path / "s.u16").read_bytes() == data
    assert info == StreamInfo(
        65_536, "values", "a test", 5, hashlib.sha256(data).hexdigest(), 3.5, 2
    )
    assert read_info(tmp_path / "s.u16") == info
    assert names(tmp_path) == ["s.u16", "s.u16.json"]


def test_json_is_readable_and_has_a_version(tmp_path):
    write(tmp_path / "s.u16", source="Zürich, channel 0")
    text = (tmp_path / "s.u16.json").read_text(encoding="utf-8")
    assert info_path(tmp_path / "s.u16") == tmp_path / "s.u16.json"
    assert json.loads(text)["version"] == 1
    assert '\n  "source": "Zürich, channel 0",\n' in text
    assert "null" not in text


def test_tokens_have_their_tokenizer_beside_them(tmp_path):
    path = tmp_path / "s.u16"
    info = write_tokens(path)
    assert names(tmp_path) == ["s.u16", "s.u16.json", "s.u16.tokenizer.json"]
    assert tokenizer_path(path).read_text() == TOKENS.json
    assert (info.tokenizer, info.alphabet) == (TOKENS.sha256, 260)
    assert (info.source_bytes, info.learned_bytes) == (len(TEXT), 20)
    assert info.count == len(TOKENS.encode(TEXT)) < len(TEXT)
    assert read_info(path) == info
    assert is_whole(path)


def test_a_stream_without_a_tokenizer_takes_an_older_one_away(tmp_path):
    write_tokens(tmp_path / "s.u16")
    assert write(tmp_path / "s.u16").tokenizer is None
    assert names(tmp_path) == ["s.u16", "s.u16.json"]


@pytest.mark.parametrize("taken", ["s.u16", "s.u16.json", "s.u16.tokenizer.json"])
def test_an_output_is_new_only_without_any_of_its_files(tmp_path, taken):
    require_new(tmp_path / "s.u16")
    (tmp_path / taken).write_bytes(b"x")
    with pytest.raises(UserError, match=f"{taken} exists already"):
        require_new(tmp_path / "s.u16")


@settings(max_examples=40, deadline=None)
@given(
    symbols=st.lists(st.integers(0, 65_535), min_size=1, max_size=50),
    cuts=st.lists(st.integers(0, 50), max_size=4),
    spare=st.integers(1, 1000),
    layout=st.sampled_from(["<u2", ">u2", "strided"]),
)
def test_round_trip(tmp_path_factory, symbols, cuts, spare, layout):
    path = tmp_path_factory.mktemp("round") / "s.u16"
    whole = np.array(symbols, dtype=np.uint16)
    strided = np.repeat(whole, 2)[::2]
    given_symbols = strided if layout == "strided" else whole.astype(layout)
    alphabet = min(max(symbols) + spare, 65_536)
    info = write(path, np.split(given_symbols, sorted(cuts)), alphabet=alphabet, kind="tokens")
    assert np.fromfile(path, dtype="<u2").tolist() == symbols
    assert read_info(path) == info
    assert (info.count, info.alphabet, info.kind) == (len(symbols), alphabet, "tokens")


def test_a_symbol_outside_the_alphabet_is_named_with_its_offset(tmp_path):
    chunks = [np.array([1, 2], np.uint16), np.array([0, 9, 10, 11], np.uint16)]
    with pytest.raises(UserError, match=r"symbol 10 at offset 4 .* 0\.\.9 fit"):
        write(tmp_path / "s.u16", chunks, alphabet=10)
    assert names(tmp_path) == []


def test_the_largest_symbol_of_the_alphabet_fits(tmp_path):
    assert write(tmp_path / "s.u16", [np.array([9], np.uint16)], alphabet=10).count == 1
    assert write(tmp_path / "t.u16", [np.array([0], np.uint16)], alphabet=1).count == 1


@pytest.mark.parametrize("chunks", [[], [np.empty(0, np.uint16)]])
def test_an_empty_source_leaves_nothing(tmp_path, chunks):
    with pytest.raises(UserError, match="no symbols"):
        write(tmp_path / "s.u16", chunks)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "chunk",
    [np.zeros(2, np.int64), np.zeros(2, np.uint8), np.zeros(2, np.int16), np.zeros((2, 2), "u2")],
)
def test_only_flat_uint16_chunks_are_taken(tmp_path, chunk):
    with pytest.raises(TypeError, match="1-D uint16"):
        write(tmp_path / "s.u16", [chunk])
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alphabet": 0}, "alphabet is 0"),
        ({"alphabet": 65_537}, "alphabet is 65537"),
        ({"alphabet": 2.0}, r"alphabet is 2\.0"),
        ({"alphabet": True}, "alphabet is True"),
        ({"kind": "words"}, "values or tokens"),
        ({"source": None}, "source is None"),
        ({"entropy_rate": 16.1}, r"0\.\.16 bits"),
        ({"entropy_rate": float("nan")}, "entropy_rate is nan"),
        ({"min_entropy": -0.1}, r"min_entropy is -0\.1"),
        ({"min_entropy": "3"}, "min_entropy is '3'"),
    ],
)
def test_a_wrong_description_is_refused_before_anything_is_read(tmp_path, changes, words):
    def chunks():
        pytest.fail("the source was read")
        yield

    with pytest.raises(UserError, match=words):
        write(tmp_path / "s.u16", chunks(), **changes)
    assert names(tmp_path) == []


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, OSError, SystemExit])
@pytest.mark.parametrize("exists", [False, True])
def test_a_failing_source_changes_nothing(tmp_path, failure, exists):
    def chunks():
        yield np.zeros(100_000, np.uint16)
        raise failure("from the source")

    path = tmp_path / "s.u16"
    if exists:
        write(path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(failure, match="from the source"):
        write(path, chunks())
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_nothing_appears_before_the_end(tmp_path):
    seen = []

    def chunks():
        yield SYMBOLS
        seen.extend(name for name in names(tmp_path) if name.startswith("s.u16"))
        yield SYMBOLS

    write(tmp_path / "s.u16", chunks())
    assert seen == []


def test_success_replaces_the_older_pair(tmp_path):
    path = tmp_path / "s.u16"
    write(path)
    info = write(path, [SYMBOLS[:1]], alphabet=4)
    assert read_info(path) == info
    assert path.stat().st_size == 2
    assert is_whole(path)


@pytest.mark.parametrize("older", ["alone", "described", "tokens"])
@pytest.mark.parametrize("newer", ["described", "tokens"])
@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_while_renaming_pairs_no_stream_with_another_json(
    tmp_path, monkeypatch, after, newer, older
):
    replace = os.replace
    fates = set()
    for stop in range(1, 6):  # of at most five renames, each is interrupted once
        path = tmp_path / str(stop) / "s.u16"
        path.parent.mkdir()
        if older == "tokens":
            write_tokens(path, OTHER_TOKENS)
        else:
            write(path, [SYMBOLS[:1]])
        if older == "alone":
            info_path(path).unlink()
        before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
        renamed = 0

        def interrupted(source, target):
            nonlocal renamed
            if not os.path.exists(source):
                return replace(source, target)  # which raises
            renamed += 1
            if renamed == stop and not after:  # noqa: B023
                raise KeyboardInterrupt
            replace(source, target)
            if renamed == stop:  # noqa: B023
                raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", interrupted)
        with contextlib.suppress(KeyboardInterrupt):
            write_tokens(path) if newer == "tokens" else write(path)
        monkeypatch.undo()
        restored = {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
        if not restored:
            assert path.read_bytes() != before["s.u16"]
            orphan = tokenizer_path(path)
            assert is_whole(path) or (not info_path(path).exists() and orphan.exists())
        fates.add(restored)
    # without anything older beside the stream, the first rename is the one that decides
    assert fates == ({False} if after and older == "alone" else {True, False})


def test_a_missing_folder(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        write(tmp_path / "none" / "s.u16")


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(UserError, match="there is no folder"):
        write(tmp_path / "file" / "s.u16")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder nobody can write to")
def test_a_folder_that_cannot_be_written():
    with pytest.raises(UserError, match=r"^/proc/self/s\.u16 cannot be written: [^\n]+$"):
        write("/proc/self/s.u16")


@pytest.mark.parametrize("taken", ["s.u16", "s.u16.json", "s.u16.tokenizer.json"])
def test_a_folder_in_place_of_the_output(tmp_path, taken):
    (tmp_path / taken).mkdir()
    with pytest.raises(UserError, match="is a folder"):
        write(tmp_path / "s.u16")
    assert names(tmp_path) == [taken]


@pytest.mark.parametrize("length", [253, 300])  # the JSON's name is too long, or both are
def test_a_name_that_is_too_long_leaves_nothing(tmp_path, length):
    with pytest.raises(UserError, match="cannot be written"):
        write(tmp_path / ("s" * length))
    assert names(tmp_path) == []


@pytest.mark.parametrize("size", [1000, 2**18])  # of chunks that are buffered, and that are not
def test_a_file_that_may_not_grow_leaves_the_older_one(tmp_path, size):
    path = tmp_path / "s.u16"
    info = write(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot be written: File too large"):
            write(path, [np.zeros(size, np.uint16)] * (2**20 // size))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_info(path) == info
    assert is_whole(path)


def test_no_json_is_no_error(tmp_path):
    assert read_info(tmp_path / "s.u16") is None


GOOD = {
    "version": 1,
    "alphabet": 10,
    "kind": "values",
    "source": "x",
    "count": 2,
    "sha256": "0" * 64,
}


OF_TOKENS = {"tokenizer": "1" * 64, "source_bytes": 5, "learned_bytes": 4}


def test_a_description_of_tokens_has_all_three_fields(tmp_path):
    (tmp_path / "s.u16.json").write_text(json.dumps(GOOD | OF_TOKENS))
    assert read_info(tmp_path / "s.u16") == StreamInfo(
        10, "values", "x", 2, "0" * 64, None, None, "1" * 64, 5, 4
    )


def test_entropies_may_be_left_out(tmp_path):
    (tmp_path / "s.u16.json").write_text(json.dumps(GOOD))
    assert read_info(tmp_path / "s.u16") == StreamInfo(10, "values", "x", 2, "0" * 64)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b"[]", "no JSON object"),
        (b"{}", "version is None"),
        (GOOD | {"version": 2}, "version is 2; 1 fits"),
        ({key: GOOD[key] for key in GOOD if key != "count"}, "missing fields: count; unknown"),
        (GOOD | {"entropy": 1}, "unknown fields: entropy"),
        (GOOD | {"alphabet": "10"}, "alphabet is '10'"),
        (GOOD | {"kind": ["values"]}, "values or tokens"),
        (GOOD | {"count": 0}, "count is 0"),
        (GOOD | {"sha256": "0" * 63}, "64 lower-case"),
        (GOOD | {"sha256": 5}, "64 lower-case"),
        (GOOD | OF_TOKENS | {"tokenizer": None}, "tokenizer is None; 64 lower-case"),
        (GOOD | OF_TOKENS | {"tokenizer": "1"}, "tokenizer is '1'; 64 lower-case"),
        (GOOD | OF_TOKENS | {"learned_bytes": 6}, "learned_bytes is 6 and source_bytes is 5"),
        (GOOD | OF_TOKENS | {"learned_bytes": -1}, "learned_bytes is -1"),
        (GOOD | OF_TOKENS | {"source_bytes": "5"}, "source_bytes is '5'"),
        (GOOD | OF_TOKENS | {"learned_bytes": None}, "learned_bytes is None"),
        (GOOD | {"entropy_rate": 3.4}, r"entropy_rate is 3\.4; 0\.\.3\.32193 bits"),
    ],
)
def test_a_malformed_json_is_one_sentence(tmp_path, content, words):
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    (tmp_path / "s.u16.json").write_bytes(raw)
    with pytest.raises(UserError, match=words) as caught:
        read_info(tmp_path / "s.u16")
    assert "s.u16.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_in_place_of_the_json(tmp_path):
    (tmp_path / "s.u16.json").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        read_info(tmp_path / "s.u16")


def test_a_json_of_another_stream_is_noticed_by_its_length(tmp_path):
    path = tmp_path / "s.u16"
    write(path)
    path.write_bytes(path.read_bytes() + b"\0\0")
    with pytest.raises(UserError, match=r"5 symbols but .* 12 bytes; 10 bytes fit"):
        read_info(path)


def test_a_header_of_256_int32_is_not_counted(tmp_path):
    path = tmp_path / "s.u16"
    info = write(path)
    path.write_bytes(bytes(1024) + path.read_bytes())
    assert read_info(path) == info
