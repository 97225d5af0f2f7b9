"""U16Stream: what it reads, what it refuses, and what happens when files change under it."""

import os
import pickle
import resource
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from pyseq.data import U16Stream, WindowLoader, u16_stream, upload
from pyseq.errors import UserError
from pyseq.ops import backends, gather_windows

MODES = ("mmap", "pread", "ram", "gpu")


def opened(path, io) -> U16Stream:
    """In any mode; without a GPU, what is for one is kept on the CPU, which must behave alike."""
    device = "cpu" if io == "gpu" and not torch.cuda.is_available() else None
    return U16Stream(path, io=io, device=device)


def write(path, symbols) -> str:
    np.asarray(symbols).astype("<u2").tofile(path)
    return str(path)


def header(count: int, magic: int = 20240520, version: int = 1) -> bytes:
    fields = np.zeros(256, "<i4")
    fields[:3] = magic, version, count
    return fields.tobytes()


@pytest.fixture
def symbols():
    return np.random.default_rng(0).integers(0, 65_536, 4000)


@pytest.fixture(params=[True, False], ids=["core", "no_core"])
def either_core(request, monkeypatch):
    """With the compiled module, and as on a machine without a compiler."""
    if not request.param:
        monkeypatch.setattr(backends, "_load_core", lambda: (None, "no compiler here"))


@pytest.mark.usefixtures("either_core")
@pytest.mark.parametrize("io", MODES)
def test_slices_like_python(tmp_path, symbols, io):
    path = write(tmp_path / "s.u16", symbols)
    with opened(path, io) as stream:
        assert len(stream) == 4000
        for window in (slice(None), slice(0, 1), slice(3999, None), slice(-5, None),
                       slice(10, 10), slice(20, 10), slice(0, 99999)):  # fmt: skip
            got = stream[window]
            assert got.dtype == torch.uint16
            assert got.tolist() == symbols[window].tolist()
        got[:] = 0  # a copy: the stream does not change
        assert stream[0:3].tolist() == symbols[0:3].tolist()


@pytest.mark.usefixtures("either_core")
@pytest.mark.parametrize("io", MODES)
def test_shards_are_one_stream(tmp_path, symbols, io):
    for name, (a, b) in {"a": (0, 1), "b": (1, 1500), "c": (1500, 4000)}.items():
        write(tmp_path / f"{name}.u16", symbols[a:b])
    for given in (str(tmp_path / "*.u16"), sorted(tmp_path.iterdir())):
        with opened(given, io) as stream:
            assert stream[:].tolist() == symbols.tolist()
            assert stream[1490:1510].tolist() == symbols[1490:1510].tolist()


@pytest.mark.parametrize("io", MODES)
def test_header_of_llm_c_is_skipped(tmp_path, symbols, io):
    path = tmp_path / "h.bin"
    path.write_bytes(header(4000) + symbols.astype("<u2").tobytes())
    with opened(path, io) as stream:
        assert stream[:].tolist() == symbols.tolist()


def test_a_name_with_brackets_is_a_name_first(tmp_path, symbols):
    path = write(tmp_path / "run[1].u16", symbols)
    assert len(U16Stream(path)) == 4000


def test_fingerprint_is_of_the_content(tmp_path, symbols):
    path = write(tmp_path / "a.u16", symbols)
    prints = {opened(path, io).fingerprint for io in MODES}
    prints.add(U16Stream(shutil.copy(path, tmp_path / "other name")).fingerprint)
    assert len(prints) == 1
    changed = symbols.copy()
    changed[2000] ^= 1
    assert U16Stream(write(tmp_path / "b.u16", changed)).fingerprint not in prints
    assert U16Stream(write(tmp_path / "c.u16", symbols[:-1])).fingerprint not in prints


def fingerprint_of(folder, *shards) -> str:
    folder.mkdir()
    paths = [write(folder / str(i), shard) for i, shard in enumerate(shards)]
    with U16Stream(paths) as stream:
        return stream.fingerprint


def test_fingerprint_does_not_see_shards(tmp_path):
    symbols = np.random.default_rng(1).integers(0, 65_536, 300_000)
    whole = fingerprint_of(tmp_path / "one", symbols)
    assert fingerprint_of(tmp_path / "three", *np.split(symbols, [1, 150_001])) == whole
    assert fingerprint_of(tmp_path / "many", *np.split(symbols, range(999, 300_000, 999))) == whole


# Blocks of 2048 symbols lie 4729 apart; the middle places are in those from 146,611 and 151,340.
@pytest.mark.parametrize("place", [0, 2047, 147_000, 152_000, 299_999])
def test_fingerprint_sees_sampled_blocks_in_any_shard(tmp_path, place):
    symbols = np.random.default_rng(1).integers(0, 65_536, 300_000)
    whole = fingerprint_of(tmp_path / "one", symbols)
    symbols[place] ^= 1
    assert fingerprint_of(tmp_path / "three", *np.split(symbols, [1, 150_001])) != whole


def test_fingerprint_of_a_range_is_that_of_its_symbols(tmp_path):
    symbols = np.random.default_rng(1).integers(0, 65_536, 30_000)
    paths = [write(tmp_path / str(i), part) for i, part in enumerate(np.split(symbols, [9000]))]
    with U16Stream(paths) as stream:
        assert stream.range_fingerprint(0, 30_000) == stream.fingerprint
        for start, stop in ((0, 1), (5, 1005), (8000, 29_000)):
            alone = fingerprint_of(tmp_path / f"{start} to {stop}", symbols[start:stop])
            assert stream.range_fingerprint(start, stop) == alone


def test_fingerprint_sees_how_many_symbols_there_are(tmp_path):
    lengths = (1, 2, 2047, 2048, 2049, 5000)
    zeros = {fingerprint_of(tmp_path / str(n), np.zeros(n)) for n in lengths}
    assert len(zeros) == len(lengths)


@pytest.mark.parametrize("io", MODES)
def test_the_environment_can_keep_native_code_out(tmp_path, symbols, io, monkeypatch):
    monkeypatch.setenv("PYSEQ_BACKEND", "reference")
    monkeypatch.setattr(backends, "core", lambda: pytest.fail("native code served"))
    with opened(write(tmp_path / "s.u16", symbols), io) as stream:
        assert stream[5:15].tolist() == symbols[5:15].tolist()
        windows = gather_windows(stream, torch.tensor([5]), 10)
        assert windows.tolist() == [symbols[5:15].tolist()]
        for batch in WindowLoader(stream, 10, 100, stride=10):
            assert batch["window"][0].tolist() == symbols[batch["offset"][0] :][:10].tolist()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, "cannot be read: No such file"),
        (lambda p: p.mkdir(), "is a directory"),
        (lambda p: p.write_bytes(b""), "is empty"),
        (lambda p: p.write_bytes(b"abc"), "has 3 bytes, an odd number"),
        (lambda p: p.write_bytes(header(5) + b"ab"), "counts 5 symbols, which makes 1034 bytes"),
        (lambda p: p.write_bytes(header(0)), "a header and no symbols"),
        (lambda p: p.write_bytes(header(2, 20240801, 7) + b"abcd"), "32-bit tokens"),
        (lambda p: os.mkfifo(p), "is not a regular file"),
        (lambda p: p.symlink_to("/nowhere"), "cannot be read"),
    ],
)
def test_bad_files_get_one_sentence(tmp_path, make, words):
    path = tmp_path / "bad.u16"
    make(path)
    with pytest.raises(UserError, match=words) as caught:
        U16Stream(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unreadable_shard_is_named(tmp_path, symbols, monkeypatch):
    write(tmp_path / "a.u16", symbols)
    write(tmp_path / "b.u16", symbols)
    real = os.open

    def refuse(path, *args, **kwargs):  # root may read anything, so the refusal is made
        if str(path).endswith("b.u16"):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match=r"b\.u16 cannot be read: Permission denied"):
        U16Stream(str(tmp_path / "*.u16"))


@pytest.mark.parametrize(("given", "words"), [("no/*.u16", "matches no file"), ([], "empty list")])
def test_nothing_to_open(given, words):
    with pytest.raises(UserError, match=words):
        U16Stream(given)


def test_unknown_io_mode(tmp_path, symbols):
    with pytest.raises(UserError, match="io is 'gzip'; mmap, pread, ram, gpu fit"):
        U16Stream(write(tmp_path / "s.u16", symbols), io="gzip")


def test_big_endian_files_are_suspected(tmp_path):
    speech = (np.random.default_rng(0).normal(0, 300, 70_000) + 32768).astype("<u2")
    with pytest.warns(UserWarning, match="big-endian"):
        U16Stream(write(tmp_path / "be.u16", speech.byteswap()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        U16Stream(write(tmp_path / "le.u16", speech))
        U16Stream(write(tmp_path / "bytes.u16", speech >> 8))
        uniform = np.random.default_rng(0).integers(0, 65_536, 70_000)
        U16Stream(write(tmp_path / "uniform.u16", uniform))


@pytest.mark.usefixtures("either_core")
@pytest.mark.parametrize("io", ["mmap", "pread"])
@pytest.mark.parametrize("left", [0, 4000, 100_002])
def test_truncation_is_an_error_not_a_signal(tmp_path, io, left):
    path = write(tmp_path / "s.u16", np.arange(200_000) % 65_536)
    with U16Stream(path, io=io) as stream:
        os.truncate(path, left)
        for first in (0, 100_000, 199_000):
            with pytest.raises(UserError, match="was truncated while it was open"):
                stream[first : first + 1000]
            with pytest.raises(UserError, match="was truncated while it was open"):
                gather_windows(stream, torch.tensor([first, 5]), 1000)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_truncation_is_an_error_in_any_number_of_workers(tmp_path, io):
    path = write(tmp_path / "s.u16", np.arange(400_000) % 65_536)
    everywhere = torch.arange(512) * 700  # of 1024 symbols: each worker has windows that are gone
    with U16Stream(path, io=io) as stream:
        os.truncate(path, 100_000)
        for _ in range(20):
            with pytest.raises(UserError, match="was truncated while it was open"):
                gather_windows(stream, everywhere.flip(0), 1024)
            with pytest.raises(UserError, match="was truncated while it was open"):
                gather_windows(stream, torch.full((512,), 390_000), 1024)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("io", ["mmap", "pread"])
@pytest.mark.parametrize("worker", range(4))
def test_the_error_of_one_worker_is_not_lost(tmp_path, io, worker):
    path = write(tmp_path / "s.u16", np.arange(400_000) % 65_536)
    offsets, out = np.zeros(512, np.int64), np.empty((512, 1024), np.int64)
    with U16Stream(path, io=io) as stream:
        source = stream.symbol_source()
        backends.core().gather_windows(source, offsets, out, 4)
        os.truncate(path, 100_000)
        offsets[128 * worker + 50] = 390_000
        for _ in range(20):
            with pytest.raises(RuntimeError, match="the file is shorter than when it was"):
                backends.core().gather_windows(source, offsets, out, 4)
        os.truncate(path, 800_000)
        offsets[:] = 40
        backends.core().gather_windows(source, offsets, out, 4)  # what it has again can be read
        assert (out == np.arange(40, 1064)).all()


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_replaced_and_removed_files_are_told(tmp_path, symbols, io):
    path = write(tmp_path / "s.u16", symbols)
    with U16Stream(path, io=io) as stream:
        os.replace(write(tmp_path / "new", symbols + 1), path)
        with pytest.raises(UserError, match="was replaced while it was open"):
            stream[0:10]
        os.remove(path)
        with pytest.raises(UserError, match="is gone"):
            stream[0:10]


@pytest.mark.parametrize("io", MODES)
def test_a_growing_file_keeps_its_length(tmp_path, symbols, io):
    path = write(tmp_path / "s.u16", symbols)
    with opened(path, io) as stream:
        with open(path, "ab") as file:
            file.write(b"1234")
        assert stream[:].tolist() == symbols.tolist()


def test_the_handler_of_bus_errors_is_given_back(tmp_path):
    """A SIGBUS that is not ours still reaches whoever was there before: here faulthandler."""
    code = f"""
import faulthandler, mmap, os, sys
import numpy as np
from pyseq.data import U16Stream
faulthandler.enable()
np.zeros(100_000, "<u2").tofile({str(tmp_path / "a")!r})
stream = U16Stream({str(tmp_path / "a")!r})
stream[0:10]
file = open({str(tmp_path / "a")!r}, "rb")
mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
os.truncate({str(tmp_path / "a")!r}, 0)
mapping[50_000]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -7
    assert "Bus error" in done.stderr


@pytest.mark.usefixtures("either_core")
@pytest.mark.parametrize("io", ["mmap", "pread"])
@pytest.mark.parametrize("first", [2**30 - 3, 2**31 - 3, 2**32 + 5])
def test_offsets_past_2_to_the_31_and_32_bytes(tmp_path, io, first):
    path = tmp_path / "sparse.u16"
    with path.open("wb") as file:
        file.truncate(2 * (2**32 + 100))
        file.seek(2 * first)
        file.write(np.arange(1, 7).astype("<u2").tobytes())
    with U16Stream(path, io=io) as stream:
        assert len(stream) == 2**32 + 100
        assert stream[first - 1 : first + 7].tolist() == [0, 1, 2, 3, 4, 5, 6, 0]
        windows = gather_windows(stream, torch.tensor([first, 0, len(stream) - 4]), 4)
        assert windows.tolist() == [[1, 2, 3, 4], [0] * 4, [0] * 4]


def test_mapped_memory_is_let_go(tmp_path, monkeypatch):
    """After RESIDENT_BYTES are resident the pages no longer count as ours."""
    path, mib = write(tmp_path / "s.u16", np.zeros(32_000_000)), 2**19

    def resident_mib() -> float:
        with open("/proc/self/smaps") as file:
            text = file.read()
        start = text.index(path)
        return int(text[text.index("Rss:", start) :].split()[1]) / 1024

    def most_resident(stream) -> float:
        most = 0.0
        for first in range(0, 60 * mib, mib // 4):
            gather_windows(stream, torch.tensor([first]), mib // 4)
            most = max(most, resident_mib())
        return most

    with U16Stream(path) as stream:
        assert most_resident(stream) >= 60
    monkeypatch.setattr(u16_stream, "RESIDENT_BYTES", 8 << 20)
    with U16Stream(path) as stream:
        assert most_resident(stream) < 8 + 4 + 4  # when it is asked about, and a fault's 2 MiB
        assert stream[:3].tolist() == [0, 0, 0]


def test_memory_is_counted_once_however_often_it_is_read(tmp_path, monkeypatch):
    path = write(tmp_path / "s.u16", np.zeros(8_000_000))
    monkeypatch.setattr(u16_stream, "RESIDENT_BYTES", 8 << 20)

    def faults() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    with U16Stream(path) as stream:
        offsets, out = torch.arange(0, 400_000, 1000), torch.empty(400, 500, dtype=torch.uint16)
        gather_windows(stream, offsets, 500, dtype=torch.uint16, out=out)
        before = faults()
        for _ in range(20):
            gather_windows(stream, offsets, 500, dtype=torch.uint16, out=out)
        assert faults() - before < 20  # the 0.8 MB stay mapped, though 20 times as much was read


@pytest.mark.parametrize("io", MODES)
def test_closed_streams_say_so(tmp_path, symbols, io):
    stream = opened(write(tmp_path / "s.u16", symbols), io)
    gather_windows(stream, torch.tensor([0]), 5)
    stream.close()
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        stream[0:1]
    with pytest.raises(ValueError, match="closed"):
        gather_windows(stream, torch.tensor([0]), 5)


def test_pickles_reopen(tmp_path, symbols):
    stream = U16Stream(write(tmp_path / "s.u16", symbols), io="pread")
    again = pickle.loads(pickle.dumps(stream))
    assert again.io == "pread"
    assert again[:].tolist() == symbols.tolist()


@pytest.mark.parametrize("wrong", [3, slice(0, 10, 2), "x"])
def test_only_plain_slices(tmp_path, symbols, wrong):
    with U16Stream(write(tmp_path / "s.u16", symbols)) as stream, pytest.raises(TypeError):
        stream[wrong]


@pytest.mark.parametrize("io", ["ram", "gpu"])
def test_what_was_loaded_does_not_depend_on_the_file(tmp_path, symbols, io):
    path = write(tmp_path / "s.u16", symbols)
    with opened(path, io) as stream:
        os.truncate(path, 10)
        assert stream[:].tolist() == symbols.tolist()
        os.remove(path)
        stream.verify()
        windows = gather_windows(stream, torch.tensor([3990, 0]), 10)
        assert windows.tolist() == [symbols[3990:].tolist(), symbols[:10].tolist()]
        assert len(stream.fingerprint) == 32


@pytest.mark.parametrize("part", [1, 999, 1000, 3999, 4000, 4001])
def test_uploads_in_parts_of_any_size(tmp_path, symbols, part, monkeypatch):
    monkeypatch.setattr(upload, "PART_SYMBOLS", part)
    write(tmp_path / "a.u16", symbols[:1500])
    write(tmp_path / "b.u16", symbols[1500:])
    with opened(str(tmp_path / "*.u16"), "gpu") as stream:
        assert stream[:].tolist() == symbols.tolist()
        resident = stream.resident()
        assert resident.device == stream.device
        assert resident.tolist() == symbols.tolist()


def test_only_what_is_kept_on_a_device_has_one(tmp_path, symbols):
    path = write(tmp_path / "s.u16", symbols)
    with U16Stream(path, io="gpu", device="cpu") as stream:
        assert stream.device == torch.device("cpu")
        with pytest.raises(ValueError, match="native code cannot read a stream kept on cpu"):
            stream.symbol_source()
    with U16Stream(path, io="ram") as stream:
        assert stream.device is None
        assert stream.resident() is None
    with pytest.raises(ValueError, match="device is cuda; io='gpu', not 'mmap', has a device"):
        U16Stream(path, device="cuda")


def test_without_a_gpu_one_sentence_says_what_fits(tmp_path, symbols, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = write(tmp_path / "s.u16", symbols)
    for device in (None, "cuda", "cuda:1"):
        with pytest.raises(UserError) as caught:
            U16Stream(path, io="gpu", device=device)
        sentence = "io is 'gpu'; no GPU that torch can use; 'mmap', 'pread' or 'ram' fit"
        assert str(caught.value) == sentence


def test_a_gpu_that_is_not_there_is_told(tmp_path, symbols, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="io is 'gpu' on cuda:2; torch sees 2 CUDA devices"):
        U16Stream(write(tmp_path / "s.u16", symbols), io="gpu", device="cuda:2")


@pytest.mark.parametrize("free", [7999, 1 << 20])
def test_a_stream_that_does_not_fit_is_told_with_the_sizes(tmp_path, symbols, monkeypatch, free):
    """Known before, or when another process has just taken what was free."""

    def full(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(upload, "_free_bytes", lambda device: free)
    monkeypatch.setattr(torch, "empty", full)
    path = write(tmp_path / "s.u16", symbols)
    with pytest.raises(UserError) as caught:
        U16Stream([path, path], io="gpu", device="cpu")
    assert str(caught.value) == (
        f"{path} and 1 more: io is 'gpu', and 8,000 symbols take 0.00 GiB, where cpu has 0.00 GiB"
        " free; 'mmap', 'pread' or 'ram' fit"
    )


def test_pickles_upload_again(tmp_path, symbols):
    stream = opened(write(tmp_path / "s.u16", symbols), "gpu")
    again = pickle.loads(pickle.dumps(stream))
    assert (again.io, again.device) == ("gpu", stream.device)
    assert again[:].tolist() == symbols.tolist()


@pytest.mark.gpu
def test_memory_of_the_gpu_is_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr(upload, "PART_SYMBOLS", 1 << 18)
    symbols = np.arange(5_000_000) % 65_521
    before = torch.cuda.memory_allocated()
    stream = U16Stream(write(tmp_path / "s.u16", symbols), io="gpu")
    assert stream.device == torch.device("cuda", torch.cuda.current_device())
    assert torch.cuda.memory_allocated() >= before + 10_000_000
    assert (stream[:].numpy() == symbols).all()
    stream.close()
    assert torch.cuda.memory_allocated() == before


@pytest.mark.gpu
def test_a_stream_larger_than_the_gpu_is_told(tmp_path):
    path = tmp_path / "sparse.u16"
    with path.open("wb") as file:
        file.truncate(2 * torch.cuda.get_device_properties(0).total_memory)
    with pytest.raises(UserError, match=r"GiB, where cuda:0 has .* GiB free"):
        U16Stream(path, io="gpu")
