"""Streams behind a URL: copied once, with their description, and every failure told."""

import json
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from pyseq.data import U16Stream, remote
from pyseq.data.described_stream import describe_stream
from pyseq.errors import UserError


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder and counts what was asked for."""

    asked: ClassVar[list[str]] = []

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder and its URL."""
    monkeypatch.setenv("PYSEQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Handler, "asked", [])
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def write(path: Path, symbols) -> np.ndarray:
    symbols = np.asarray(symbols, "<u2")
    symbols.tofile(path)
    return symbols


def test_a_stream_is_copied_once(served):
    folder, url = served
    symbols = write(folder / "a.u16", range(5000))
    for io in ("mmap", "pread", "ram"):
        with U16Stream(f"{url}/a.u16", io=io) as stream:
            assert stream[:].tolist() == symbols.tolist()
    assert Handler.asked.count("/a.u16") == 1
    assert len(list(remote.cache_folder().glob("*/a.u16"))) == 1


def test_a_changed_stream_is_copied_anew(served):
    folder, url = served
    write(folder / "a.u16", range(5000))
    with U16Stream(f"{url}/a.u16") as stream:
        before = stream.fingerprint
    write(folder / "a.u16", range(6000))
    with U16Stream(f"{url}/a.u16") as stream:
        assert len(stream) == 6000
        assert stream.fingerprint != before


def test_another_file_of_the_same_size_is_copied_anew(served):
    folder, url = served
    write(folder / "a.u16", [1] * 50)
    assert U16Stream(f"{url}/a.u16")[:2].tolist() == [1, 1]
    write(folder / "a.u16", [2] * 50)
    os.utime(folder / "a.u16", (1e9, 1e9))
    assert U16Stream(f"{url}/a.u16")[:2].tolist() == [2, 2]


def test_a_url_with_a_query(served):
    folder, url = served
    write(folder / "a.u16", [1, 2, 3])
    (folder / "a.u16.json").write_text("{}")
    signed = f"{url}/a.u16?signature={'x' * 300}"
    [path] = remote.local_copies(signed)
    assert path.name == "a.u16"
    assert path.with_name("a.u16.json").read_text() == "{}"
    assert f"/a.u16.json?signature={'x' * 300}" in Handler.asked


def test_what_describes_a_stream_comes_with_it(served):
    folder, url = served
    write(folder / "a.u16", [1, 2, 3] * 100)
    description = {
        "format": 1, "alphabet": 77, "kind": "tokens", "source": "a test", "count": 300,
    }  # fmt: skip
    (folder / "a.u16.json").write_text(json.dumps(description))
    [path] = remote.local_copies(f"{url}/a.u16")
    assert json.loads(path.with_name("a.u16.json").read_text()) == description
    (folder / "a.u16.json").write_text("changed")
    remote.local_copies(f"{url}/a.u16")
    assert path.with_name("a.u16.json").read_text() == "changed"
    (folder / "a.u16.json").unlink()
    assert describe_stream(f"{url}/a.u16").alphabet == 4
    assert not path.with_name("a.u16.json").exists()


def test_several_and_globs(tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setenv("PYSEQ_CACHE", str(tmp_path))
    files = fsspec.filesystem("memory")
    for name, first in (("b", 20), ("a", 10)):
        files.pipe(f"/shards/{name}.u16", np.arange(first, first + 5).astype("<u2").tobytes())
        files.pipe(f"/shards/{name}.u16.json", b"{}")
    with U16Stream("memory://shards/*") as stream:
        assert stream[:].tolist() == [*range(10, 15), *range(20, 25)]
    with U16Stream(["memory://shards/b.u16", "memory://shards/a.u16"]) as stream:
        assert stream[:].tolist() == [*range(20, 25), *range(10, 15)]
    with pytest.raises(UserError, match=r"memory://shards/\*\.wav matches no file"):
        U16Stream("memory://shards/*.wav")
    with pytest.raises(UserError, match="memory://shards is a directory"):
        U16Stream("memory://shards")
    files.rm("/shards", recursive=True)


def test_what_cannot_be_read_is_told_in_one_sentence(served, tmp_path):
    folder, url = served
    for lost in (f"{url}/none.u16", "http://127.0.0.1:9/a.u16"):
        with pytest.raises(UserError, match=f"^{lost} is not there, or nobody answers$"):
            U16Stream(lost)
    with pytest.raises(UserError, match=r"^nonsense://a\.u16 cannot be read: .*nonsense"):
        U16Stream("nonsense://a.u16")
    (folder / "odd.u16").write_bytes(b"abc")
    with pytest.raises(UserError, match="has 3 bytes, an odd number"):
        U16Stream(f"{url}/odd.u16")


def test_a_copy_that_ends_early_is_not_kept(tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setenv("PYSEQ_CACHE", str(tmp_path))
    files = fsspec.filesystem("memory")
    files.pipe("/early/a.u16", bytes(10_000))
    with monkeypatch.context() as patched:
        patched.setattr(
            type(files), "get_file", lambda self, name, target: Path(target).write_bytes(b"12")
        )
        with pytest.raises(UserError, match="ended after 2 of 10000 bytes while it was copied"):
            U16Stream("memory://early/a.u16")
    assert len(U16Stream("memory://early/a.u16")) == 5000


def test_many_who_ask_at_once_copy_once(served):
    folder, url = served
    symbols = write(folder / "a.u16", range(60_000))
    streams = []
    asking = [
        threading.Thread(target=lambda: streams.append(U16Stream(f"{url}/a.u16"))) for _ in range(6)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert [stream[:].tolist() for stream in streams] == [symbols.tolist()] * 6
    assert Handler.asked.count("/a.u16") == 1


def test_no_room_is_told(served, monkeypatch):
    folder, url = served
    write(folder / "a.u16", range(5000))
    blocked = folder.parent / "blocked"
    blocked.write_text("no folder")
    monkeypatch.setenv("PYSEQ_CACHE", str(blocked))
    with pytest.raises(UserError, match=r"a\.u16 cannot be read: .*blocked"):
        U16Stream(f"{url}/a.u16")
