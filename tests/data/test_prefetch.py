"""Batches gathered ahead: the same ones, in any process, and nothing left behind or lost."""

import ctypes
import gc
import json
import mmap
import multiprocessing
import os
import pickle
import signal
import threading
import time
from itertools import chain, islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyseq.data import U16Stream, WindowLoader, prefetch
from pyseq.errors import UserError
from pyseq.ops import backends

pytestmark = pytest.mark.skipif(backends.refuse_native() is not None, reason="no pyseq._core")

IO_MODES = ("mmap", "pread", "ram")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "s.u16"
    np.arange(3000).astype("<u2").tofile(path)  # symbol i is i: a window tells its offset
    return path


@pytest.fixture(scope="module")
def stream(path):
    with U16Stream(path) as opened:
        yield opened


def offsets_of(batches) -> list[list[int]]:
    """Of batches whose windows are checked."""
    found = []
    for batch in batches:
        offset, window = batch["offset"], batch["window"]
        assert torch.equal(window.long(), offset[:, None] + torch.arange(window.shape[1]))
        found.append(offset.tolist())
    return found


def windows_of(batches) -> list[int]:
    return list(chain(*offsets_of(batches)))


def threads_of_this_process(expected: int | None = None) -> int:
    """How many there are; after a while if they are not yet as many as expected."""
    until = time.monotonic() + 10
    while True:  # a thread that was waited for may be listed for a moment more
        found = len(os.listdir("/proc/self/task"))
        if expected in (None, found) or time.monotonic() > until:
            return found
        time.sleep(0.01)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_batches_are_those_that_are_gathered_when_asked_for(path, data):
    io = data.draw(st.sampled_from(IO_MODES))
    length = data.draw(st.integers(1, 400))
    world_size = data.draw(st.sampled_from([1, 2, 3, 8]))
    arguments = {
        "length": length,
        "batch_size": world_size * data.draw(st.integers(1, 6)),
        "stride": data.draw(st.integers(1, 40)),
        "world_size": world_size,
        "rank": data.draw(st.integers(0, world_size - 1)),
        "seed": data.draw(st.integers(0, 99)),
        "start": data.draw(st.integers(0, 300)),
        "dtype": data.draw(
            st.sampled_from([torch.uint16, torch.int32, torch.int64, torch.float32])
        ),
    }
    with U16Stream(path, io=io) as stream:
        plain = WindowLoader(stream, **arguments, prefetch=0)
        ahead = WindowLoader(
            stream, **arguments, prefetch=data.draw(st.integers(1, 9)),
            threads=data.draw(st.integers(1, 4)),
        )  # fmt: skip
        for epoch in range(2):
            assert offsets_of(plain) == offsets_of(ahead), epoch


@settings(deadline=None, max_examples=30)
@given(
    consumed=st.integers(0, 10), depth=st.integers(0, 6), again=st.integers(0, 6),
    ranks=st.sampled_from([1, 2, 4]),
)  # fmt: skip
def test_resume_anywhere_with_another_depth_and_world_size(stream, consumed, depth, again, ranks):
    whole = windows_of(WindowLoader(stream, 300, 64, seed=3, stride=4))
    loader = WindowLoader(stream, 300, 64, seed=3, stride=4, prefetch=depth)
    batches = iter(loader)
    consumed = min(consumed, len(loader))
    for _ in range(consumed):
        next(batches)
    state = json.loads(json.dumps(loader.state_dict()))
    assert state["position"] == (64 * consumed if consumed < len(loader) else 0)
    parts = []
    for rank in range(ranks):
        fresh = WindowLoader(stream, 300, 64, stride=4, rank=rank, world_size=ranks, prefetch=again)
        fresh.load_state_dict(state)
        parts.append(offsets_of(fresh))
    rest = list(chain(*chain(*zip(*parts, strict=True))))
    loader.set_epoch(1)
    assert rest == (whole[64 * consumed :] if whole[64 * consumed :] else windows_of(loader))


def test_large_batches_are_cut_into_parts_for_several_threads(tmp_path):
    symbols = np.random.default_rng(0).integers(0, 65_536, 1 << 18).astype("<u2")
    symbols.tofile(tmp_path / "s.u16")
    with U16Stream(tmp_path / "s.u16") as stream:
        for batch in WindowLoader(stream, 1024, 250, stride=50, threads=4):
            for window, offset in zip(batch["window"], batch["offset"].tolist(), strict=True):
                assert np.array_equal(window.numpy(), symbols[offset : offset + 1024])


def test_windows_that_cross_shards(tmp_path, path):
    symbols = np.arange(3000).astype("<u2")
    cuts = [0, 7, 8, 500, 501, 2999, 3000]
    paths = [tmp_path / f"{i}.u16" for i in range(len(cuts) - 1)]
    for i, shard in enumerate(paths):
        symbols[cuts[i] : cuts[i + 1]].tofile(shard)
    for io in IO_MODES:
        with U16Stream(paths, io=io) as stream:
            found = offsets_of(WindowLoader(stream, 37, 10))
            assert found == offsets_of(WindowLoader(U16Stream(path), 37, 10))


def test_a_batch_stays_what_it_is(stream):
    """Its memory is used again only when nobody can see it any more."""
    loader = WindowLoader(stream, 300, 8, prefetch=2)
    kept, views = [], []
    for i, batch in enumerate(loader):
        if i % 3 == 0:
            kept.append(batch)
        elif i % 3 == 1:
            views.append((batch["offset"], batch["window"][2:, 5:9]))
    offsets_of(kept)
    for offset, view in views:
        assert torch.equal(view, offset[2:, None] + torch.arange(5, 9))
    del loader, batch
    gc.collect()
    offsets_of(kept)


def test_memory_of_dropped_batches_is_used_again(stream):
    loader = WindowLoader(stream, 300, 64, prefetch=2, stride=4)
    places = {batch["window"].data_ptr() for batch in loader}
    assert len(loader) > 8
    assert len(places) <= 6


def test_batches_may_be_written_to(stream):
    for batch in WindowLoader(stream, 10, 50):
        batch["window"] += batch["offset"][:, None]
        assert batch["window"].is_contiguous()


def test_threads_end_with_the_iterator_the_epoch_and_the_stream(path):
    before = threads_of_this_process()
    with U16Stream(path) as stream:
        loader = WindowLoader(stream, 10, 50, threads=3)
        batches = iter(loader)
        next(batches)
        assert threads_of_this_process(before + 3) == before + 3
        del batches
        gc.collect()
        assert threads_of_this_process(before) == before
        offsets_of(loader)
        assert threads_of_this_process(before) == before
        batches = iter(loader)
        next(batches)
    assert threads_of_this_process(before) == before
    with pytest.raises(ValueError, match="the stream is closed"):
        next(batches)


@pytest.mark.parametrize("io", IO_MODES)
def test_closing_while_batches_are_made_never_hangs(path, io):
    """A thousand times, after a random number of batches, by each way to end."""
    rng = np.random.default_rng(5)
    for repeat in range(1000):
        stream = U16Stream(path, io=io)
        batches = iter(
            WindowLoader(stream, 300, 16, threads=1 + repeat % 4, prefetch=1 + repeat % 5)
        )
        for _ in range(rng.integers(1, 4)):
            next(batches)
        match repeat % 3:
            case 0:
                stream.close()
            case 1:
                batches.close()
                stream.close()
            case 2:
                del batches
                stream.close()


@pytest.mark.parametrize("io", IO_MODES)
def test_closing_from_another_thread(path, io):
    for _ in range(50):
        stream = U16Stream(path, io=io)
        loader = WindowLoader(stream, 300, 16, prefetch=3)
        started = threading.Event()
        errors = []

        def use(loader=loader, started=started, errors=errors):
            try:
                for _ in range(100):
                    for _ in loader:
                        started.set()
            except Exception as caught:
                errors.append(caught)

        thread = threading.Thread(target=use)
        thread.start()
        started.wait()
        stream.close()
        thread.join(20)
        assert not thread.is_alive()
        [error] = errors
        assert isinstance(error, ValueError)
        assert "the stream is closed" in str(error)


def test_a_truncated_file_is_told_after_what_was_gathered_before(tmp_path):
    for io in ("mmap", "pread"):
        path = tmp_path / f"{io}.u16"
        np.arange(60_000).astype("<u2").tofile(path)
        with U16Stream(path, io=io) as stream:
            loader = WindowLoader(stream, 100, 3, stride=100, prefetch=2)
            batches = iter(loader)
            next(batches)
            loader.state_dict()  # reads what tells the data from other data, once
            os.truncate(path, 20_000)
            found = []
            with pytest.raises(UserError, match="was truncated while it was open"):
                found.extend(map(offsets_of, ([batch] for batch in batches)))
            assert len(found) <= 5
            assert loader.state_dict()["position"] == 3 * (1 + len(found))


def test_what_a_file_lost_of_its_last_page_is_not_taken_for_zeros(tmp_path):
    """Within a page a mapping goes on after the end of its file."""
    path = tmp_path / "s.u16"
    np.full(2000, 7, "<u2").tofile(path)
    with U16Stream(path) as stream:
        loader = WindowLoader(stream, 100, 1, stride=100, prefetch=1)
        batches = iter(loader)
        next(batches)
        os.truncate(path, 3000)
        found = []
        with pytest.raises(UserError, match="was truncated"):
            found.extend(batch["window"] for batch in batches)
        assert all((window == 7).all() for window in found)


def test_a_replaced_and_a_removed_file_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(prefetch, "VERIFIED_EVERY", 0.0)
    path = tmp_path / "s.u16"
    for end, words in (("replaced", "was replaced while it was open"), ("removed", "is gone")):
        np.arange(3000).astype("<u2").tofile(path)
        with U16Stream(path) as stream:
            batches = iter(WindowLoader(stream, 100, 3))
            next(batches)
            if end == "replaced":
                np.arange(3000).astype("<u2").tofile(tmp_path / "new")
                os.replace(tmp_path / "new", path)
            else:
                os.remove(path)
            with pytest.raises(UserError, match=words):
                next(batches)


def test_an_error_is_not_the_end(tmp_path):
    """What comes after is what would have come, once the file is whole again."""
    path = tmp_path / "s.u16"
    symbols = np.arange(60_000).astype("<u2")
    symbols.tofile(path)
    with U16Stream(path) as stream:
        expected = offsets_of(WindowLoader(stream, 100, 3, stride=100))
        loader = WindowLoader(stream, 100, 3, stride=100, prefetch=1)
        loader.state_dict()
        found = []
        os.truncate(path, 20_000)
        with pytest.raises(UserError):
            found.extend(offsets_of([batch])[0] for batch in loader)
        with path.open("r+b") as file:
            file.write(symbols.tobytes())
        fresh = WindowLoader(stream, 100, 3, stride=100)
        fresh.load_state_dict(loader.state_dict())
        assert found + offsets_of(fresh) == expected


def _first_batches(loader, queue, count=5):
    queue.put(offsets_of(islice(loader, count)))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_loader_goes_on_in_another_process(path, method):
    """Also while its iterator here has threads, which a forked child has not."""
    with U16Stream(path) as stream:
        expected = offsets_of(islice(WindowLoader(stream, 300, 64, stride=4), 5))
        loader = WindowLoader(stream, 300, 64, stride=4)
        batches = iter(loader)
        first = offsets_of([next(batches)])
        loader.load_state_dict({**loader.state_dict(), "position": 0})
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        child = context.Process(target=_first_batches, args=(loader, queue))
        child.start()
        assert queue.get(timeout=60) == expected
        child.join(30)
        assert child.exitcode == 0
        assert first == expected[:1]
        assert offsets_of(islice(batches, 5)) == expected


def test_an_iterator_goes_on_in_a_forked_child(path):
    """And here, each by itself; the child ends without waiting for threads that it has not."""
    with U16Stream(path) as stream:
        expected = offsets_of(WindowLoader(stream, 300, 64, stride=4))
        batches = iter(WindowLoader(stream, 300, 64, stride=4))
        found = offsets_of(islice(batches, 2))
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(30)
                os.write(write, json.dumps(offsets_of(batches)).encode())
                del batches
                gc.collect()
                code = 0
            finally:
                os._exit(code)
        os.close(write)
        with os.fdopen(read) as pipe:
            assert found + json.loads(pipe.read()) == expected
        assert os.waitpid(child, 0)[1] == 0
        assert found + offsets_of(batches) == expected


def test_pickles_are_at_the_same_place(stream):
    loader = WindowLoader(stream, 300, 64, stride=4)
    batches = iter(loader)
    next(batches)
    again = pickle.loads(pickle.dumps(loader))
    assert again.state_dict() == loader.state_dict()
    again.load_state_dict(loader.state_dict())
    assert offsets_of(again) == offsets_of(batches)


def test_how_much_is_gathered_ahead():
    assert prefetch.default_ahead(256, 1024, torch.int64) == 4
    assert prefetch.default_ahead(4096, 4096, torch.int64) == prefetch.FEWEST
    assert prefetch.default_ahead(1, 1, torch.uint16) == prefetch.MOST


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_batches_are_there_before_they_are_asked_for(tmp_path, depth):
    """They hold what the file held then, and after each one at least half as many are ready."""
    path = tmp_path / "s.u16"
    np.zeros(40_000, "<u2").tofile(path)
    with U16Stream(path, io="pread") as stream:
        loader = WindowLoader(stream, 100, 4, stride=100, prefetch=depth)
        batches = iter(loader)
        for _ in range(3):
            next(batches)
        time.sleep(2)
        with path.open("r+b") as file:
            file.write(b"\1" * 80_000)
        ready = sum(int((batch["window"] == 0).all()) for batch in batches)
        assert (depth + 1) // 2 <= ready <= depth


def cached_pages(path) -> np.ndarray:
    """Whether each page of a file is in the system's cache, bool, by a call that loads nothing."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        place = np.frombuffer(mapping, np.uint8)
        cached = np.zeros(-(-len(place) // mmap.PAGESIZE), np.uint8)
        arguments = (place.ctypes.data, len(place), cached.ctypes.data)
        assert ctypes.CDLL(None).mincore(*map(ctypes.c_size_t, arguments)) == 0
        del place
    return (cached & 1).astype(bool)


def test_windows_that_are_not_cached_are_asked_for(tmp_path):
    """Those of the batches that come next, and few others."""
    path = tmp_path / "s.u16"
    np.random.default_rng(0).integers(0, 65_536, 1 << 25).astype("<u2").tofile(path)
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    for _ in range(100):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        if not cached_pages(path).any():
            break
        time.sleep(0.1)
    else:
        pytest.skip("this file system keeps the file in its cache")
    os.close(handle)
    with U16Stream(path) as stream:
        loader = WindowLoader(stream, 64, 8, prefetch=1, threads=1)
        coming = loader._order(0, 8 * 40)  # 40 of the 64 batches that are asked for at once
        batches = iter(loader)
        next(batches)
        until = time.monotonic() + 20
        while (
            time.monotonic() < until and not cached_pages(path)[coming * 2 // mmap.PAGESIZE].all()
        ):
            time.sleep(0.05)
        cached = cached_pages(path)
        assert cached[coming * 2 // mmap.PAGESIZE].all()
        assert cached.mean() < 0.5


def test_a_loader_whose_stream_became_shorter_is_refused(tmp_path):
    path = tmp_path / "s.u16"
    np.arange(3000).astype("<u2").tofile(path)
    with U16Stream(path) as stream:
        pickled = pickle.dumps(WindowLoader(stream, 300, 8))
    np.arange(1000).astype("<u2").tofile(path)
    with pytest.raises(ValueError, match="symbols 0 to 3000 leave the stream of 1000"):
        next(iter(pickle.loads(pickled)))


def test_a_kept_batch_keeps_no_others(path):
    """What is kept for the next batches is given up when there are none."""
    kept = []

    def resident_kib() -> int:
        with open("/proc/self/status") as status:
            [line] = [line for line in status if line.startswith("VmRSS")]
        return int(line.split()[1])

    with U16Stream(path, io="ram") as stream:
        before = resident_kib()
        for _ in range(30):
            loader = WindowLoader(stream, 1000, 500, dtype=torch.int64, prefetch=3)
            kept.append(next(iter(loader))["window"])  # 4 MB, and three more were made
        assert resident_kib() - before < 30 * 4_000 * 2


def test_memory_is_pinned_where_cuda_may_be_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for forked in (False, True):  # from a process that has used CUDA
        monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda forked=forked: forked)
        assert prefetch.can_pin() is not forked
