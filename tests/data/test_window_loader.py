"""WindowLoader: exact epochs, one global order for any ranks, and resume anywhere."""

import copy
import json
import os
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyseq.data import U16Stream, WindowLoader, window_loader
from pyseq.errors import UserError


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "s.u16"
    np.arange(3000).astype("<u2").tofile(path)  # symbol i is i: a window tells its offset
    with U16Stream(path) as opened:
        yield opened


# How batches are made: ahead or when they are asked for, left in memory or sent to a device, or
# gathered there.
WAYS = ("ahead", "gathered", "sent ahead", "sent", "uploaded")
PLACE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


@pytest.fixture(params=WAYS)
def loader_of(request, stream):
    """Loaders of 64 of 300 symbols at stride 4, in each way."""
    paths = [shard.path for shard in stream.shards]
    if request.param == "uploaded":
        stream = U16Stream(paths, io="gpu", device=PLACE)
    settings = {"length": 300, "batch_size": 64, "stride": 4}
    settings["device"] = PLACE if request.param.startswith("sent") else None
    settings["prefetch"] = None if request.param.endswith("ahead") else 0

    def make(**arguments):
        return WindowLoader(stream, **(settings | arguments))

    return make


def offsets_of(loader) -> list[list[int]]:
    return [batch["offset"].tolist() for batch in loader]


def test_batches_hold_what_lies_at_their_offsets(stream):
    for batch in WindowLoader(stream, 17, 8, stride=5):
        assert batch["window"].shape == (8, 17)
        assert batch["window"].dtype == batch["offset"].dtype == torch.int64
        assert torch.equal(batch["window"], batch["offset"][:, None] + torch.arange(17))
        assert (batch["offset"] % 5 == 0).all()


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_an_epoch_visits_every_window_once(stream, data):
    length = data.draw(st.integers(1, 200))
    stride = data.draw(st.integers(1, 300))
    start = data.draw(st.integers(0, 1000))
    stop = data.draw(st.integers(start + length, 3000))
    windows = (stop - start - length) // stride + 1
    batch = data.draw(st.integers(1, min(windows, 50)))
    loader = WindowLoader(
        stream, length, batch, seed=data.draw(st.integers(0, 99)), stride=stride, start=start,
        stop=stop,
    )  # fmt: skip
    assert loader.windows == windows
    batches = offsets_of(loader)
    seen = [offset for one in batches for offset in one]
    assert len(batches) == len(loader) == windows // batch
    assert len(set(seen)) == len(seen) == len(loader) * batch
    assert set(seen) <= {start + i * stride for i in range(windows)}
    assert max(seen) + length <= stop


@settings(deadline=None, max_examples=30)
@given(ranks=st.sampled_from([1, 2, 3, 8]), seed=st.integers(0, 9), epoch=st.integers(0, 3))
def test_any_number_of_ranks_sees_the_same_order(stream, ranks, seed, epoch):
    def order(world_size):
        loaders = [
            WindowLoader(stream, 10, 24, seed=seed, rank=r, world_size=world_size)
            for r in range(world_size)
        ]
        for loader in loaders:
            loader.set_epoch(epoch)
        return [list(chain(*parts)) for parts in zip(*map(offsets_of, loaders), strict=True)]

    assert order(ranks) == order(1)


def test_epochs_follow_one_another_and_differ(stream):
    loader = WindowLoader(stream, 10, 100)
    first, second = offsets_of(loader), offsets_of(loader)
    assert first != second
    assert loader.epoch == 1
    loader.set_epoch(0)
    assert offsets_of(loader) == first
    assert offsets_of(WindowLoader(stream, 10, 100, seed=1)) != first


def test_an_abandoned_pass_is_not_repeated(stream):
    loader = WindowLoader(stream, 10, 100)
    first = next(iter(loader))["offset"]
    again = next(iter(loader))["offset"]
    assert loader.epoch == 1
    assert not torch.equal(first, again)


@pytest.mark.parametrize(("batch", "ranks"), [(64, 1), (64, 4), (16, 1), (96, 3)])
def test_resume_at_every_position(stream, batch, ranks):
    """The samples after the state are those that were missing, whatever the batch and the ranks."""
    whole = WindowLoader(stream, 300, 64, seed=3, stride=4)
    expected = list(chain(*offsets_of(whole)))
    for consumed in range(len(whole) + 1):
        loader = WindowLoader(stream, 300, 64, seed=3, stride=4)
        batches = iter(loader)
        for _ in range(consumed):
            next(batches)
        state = json.loads(json.dumps(loader.state_dict()))
        parts = []
        for rank in range(ranks):
            fresh = WindowLoader(stream, 300, batch, seed=99, rank=rank, world_size=ranks, stride=4)
            fresh.load_state_dict(state)
            parts.append(offsets_of(fresh))
        rest = [offset for row in zip(*parts, strict=True) for part in row for offset in part]
        if consumed == len(whole):
            assert state["epoch"] == 1
            assert state["position"] == 0
        else:
            missing = expected[consumed * 64 :]
            assert rest[: len(missing)] == missing[: len(rest)]
            assert len(rest) > len(missing) - batch


def test_after_a_resumed_epoch_the_next_one_follows(stream):
    loader = WindowLoader(stream, 300, 64, stride=4)
    next(iter(loader))
    fresh = WindowLoader(stream, 300, 64, stride=4)
    fresh.load_state_dict(loader.state_dict())
    assert len(offsets_of(fresh)) == len(fresh) - 1
    assert fresh.epoch == 0
    assert len(offsets_of(fresh)) == len(fresh)
    assert fresh.epoch == 1


def test_without_shuffling_windows_come_in_order(stream):
    assert offsets_of(WindowLoader(stream, 10, 3, shuffle=False, stride=10))[:2] == [
        [0, 10, 20],
        [30, 40, 50],
    ]


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int32, torch.float32])
def test_dtypes(stream, dtype):
    batch = next(iter(WindowLoader(stream, 10, 3, dtype=dtype)))
    assert batch["window"].dtype == dtype


def test_another_dtype_is_refused(stream):
    with pytest.raises(TypeError, match=r"dtype is torch.float64; uint16, int32, int64 or float32"):
        WindowLoader(stream, 10, 3, dtype=torch.float64)


def test_a_state_of_other_data_or_windows_is_refused(stream, tmp_path):
    state = WindowLoader(stream, 10, 4).state_dict()
    (np.arange(3000)[::-1]).astype("<u2").tofile(tmp_path / "other.u16")
    with U16Stream(tmp_path / "other.u16") as other:
        loader = WindowLoader(other, 10, 4)
        with pytest.raises(ValueError, match="taken on other data"):
            loader.load_state_dict(state)
        loader.load_state_dict(state, ignore_fingerprint=True)
    with pytest.raises(ValueError, match="length 10, this loader 11"):
        WindowLoader(stream, 11, 4).load_state_dict(state)
    with pytest.raises(ValueError, match="stride 1, this loader 2"):
        WindowLoader(stream, 10, 4, stride=2).load_state_dict(state)
    with pytest.raises(ValueError, match="version 0; 1 fits"):
        WindowLoader(stream, 10, 4).load_state_dict({**state, "version": 0})
    with pytest.raises(ValueError, match="position -4 of epoch 0; neither can be negative"):
        WindowLoader(stream, 10, 4).load_state_dict({**state, "position": -4})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch_size": 10, "world_size": 3}, "must be a multiple of world_size 3"),
        ({"rank": 2, "world_size": 2}, "rank 2; 0 to 1 fits"),
        ({"length": 3001}, "shorter than one window of 3001"),
        ({"length": 0}, "must be at least 1"),
        ({"stride": 0}, "must be at least 1"),
        ({"threads": 0}, "threads is 0; at least 1 fits"),
        ({"threads": -2}, "threads is -2; at least 1 fits"),
        ({"prefetch": -1}, "prefetch is -1; 0 or more fits"),
        ({"start": 5, "stop": 4}, r"range \[5, 4\)"),
        ({"stop": 3001}, r"leaves the stream of 3000"),
        ({"length": 2999, "batch_size": 4}, "hold 2 windows of 2999 .* less than one batch of 4"),
    ],
)
def test_what_does_not_fit_is_told(stream, arguments, words):
    with pytest.raises(ValueError, match=words):
        WindowLoader(stream, **({"length": 10, "batch_size": 4} | arguments))


def test_more_windows_than_2_to_the_32(tmp_path):
    path = tmp_path / "sparse.u16"
    with path.open("wb") as file:
        file.truncate(2 * (2**32 + 1000))
    with U16Stream(path) as huge:
        loader = WindowLoader(huge, 10, 512)
        assert loader.windows == 2**32 + 991
        offsets = next(iter(loader))["offset"]
        assert offsets.max() > 2**31
        assert len(set(offsets.tolist())) == 512


def windows_of(batches) -> list[list[int]]:
    """First symbols of the windows, which are their offsets; checks the rest of each window."""
    for batch in batches:
        window, offset = batch["window"].cpu().long(), batch["offset"]
        assert torch.equal(window, offset[:, None] + torch.arange(window.shape[1]))
        assert not offset.is_cuda
        yield offset.tolist()


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int32, torch.int64, torch.float32])
def test_every_way_gives_the_same_batches(stream, loader_of, dtype):
    plain = WindowLoader(stream, 300, 64, stride=4)
    loader = loader_of(dtype=dtype)
    for _ in range(3):
        assert list(windows_of(loader)) == offsets_of(plain)
    batch = next(iter(loader))
    assert batch["window"].dtype == dtype
    assert batch["window"].shape == (64, 300)


def test_ranks_share_a_batch_in_every_way(stream, loader_of):
    whole = offsets_of(WindowLoader(stream, 300, 64, stride=4))
    parts = [list(windows_of(loader_of(rank=rank, world_size=2))) for rank in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole


def test_the_state_counts_batches_that_were_handed_out(loader_of):
    """Not those that are on their way already."""
    whole = list(windows_of(loader_of()))
    for consumed in range(len(whole) + 1):
        loader = loader_of()
        batches = iter(loader)
        for _ in range(consumed):
            next(batches)
        state = loader.state_dict()
        assert state["position"] == (64 * consumed if consumed < len(whole) else 0)
        fresh = loader_of(seed=5)
        fresh.load_state_dict(state)
        rest = list(windows_of(fresh))
        assert rest == whole[consumed:] if consumed < len(whole) else fresh.epoch == 1


def test_a_loader_that_is_set_elsewhere_hands_out_nothing_stale(loader_of):
    first, *_, last = windows_of(loader_of())
    state = loader_of().state_dict()
    loader = loader_of()
    batches = iter(loader)
    given = windows_of(batches)
    assert next(given) == first
    loader.load_state_dict(state)
    assert next(given) == first  # the second batch was on its way
    loader.load_state_dict({**state, "position": 64 * (len(loader) - 1)})
    assert next(given) == last
    with pytest.raises(StopIteration):
        next(given)


def test_an_abandoned_pass_leaves_nothing_behind(loader_of):
    loader, other = loader_of(), loader_of()
    next(iter(loader))
    list(other)
    assert list(windows_of(loader)) == list(windows_of(other))


def test_a_copy_goes_its_own_way(loader_of):
    """The search for a rate reads ahead on a copy."""
    loader = loader_of()
    twin = copy.copy(loader)
    first, second = windows_of(loader), windows_of(twin)
    for _ in range(4):
        assert next(first) == next(second)
    assert loader.state_dict() == twin.state_dict()


@pytest.mark.parametrize("loader_of", WAYS[1::2], indirect=True)
def test_no_batch_is_gathered_twice_or_in_vain(loader_of, monkeypatch):
    gathered = []
    real = window_loader.gather_windows

    def counted(stream, offsets, *arguments, **named):
        gathered.append(offsets.tolist())
        return real(stream, offsets, *arguments, **named)

    monkeypatch.setattr(window_loader, "gather_windows", counted)
    seen = list(windows_of(loader_of()))
    assert gathered == seen


def test_a_batch_that_cannot_be_made_ahead_is_told_before_anything_is_counted(tmp_path):
    path = tmp_path / "s.u16"
    np.arange(3000).astype("<u2").tofile(path)
    with U16Stream(path) as stream:
        loader = WindowLoader(stream, 100, 3, shuffle=False, stride=300, device="cpu", prefetch=0)
        batches = iter(loader)
        next(batches)
        assert loader.state_dict()["position"] == 3
        os.truncate(path, 2000)
        with pytest.raises(UserError, match="was truncated"):
            next(batches)
        assert loader.state_dict()["position"] == 3


def test_only_two_bytes_of_a_symbol_are_sent(stream, monkeypatch):
    sent = []
    real = window_loader.Transfer.send

    def seen(self, symbols):
        sent.append(symbols)
        real(self, symbols)

    monkeypatch.setattr(window_loader.Transfer, "send", seen)
    list(WindowLoader(stream, 300, 64, stride=4, device=PLACE))
    assert {symbols.dtype for symbols in sent} == {torch.uint16}
    assert all(symbols.is_pinned() for symbols in sent) or not torch.cuda.is_available()


def test_a_stream_that_a_device_keeps_stays_there(stream, monkeypatch):
    with U16Stream([shard.path for shard in stream.shards], io="gpu", device="cpu") as kept:
        assert next(iter(WindowLoader(kept, 10, 4, device="cpu")))["window"].shape == (4, 10)
        monkeypatch.setattr(window_loader, "usable_device", lambda *_: torch.device("meta"))
        with pytest.raises(ValueError, match="device is meta; the stream is kept on cpu, which"):
            WindowLoader(kept, 10, 4, device="elsewhere")


@pytest.mark.gpu
@pytest.mark.parametrize("way", ["sent", "uploaded"])
def test_batches_reach_the_gpu_without_waiting(tmp_path, way):
    """And are right while the GPU is busy, in whichever stream they are used."""
    symbols = np.random.default_rng(0).integers(0, 65_536, 1 << 20).astype("<u2")
    symbols.tofile(tmp_path / "s.u16")
    plain = U16Stream(tmp_path / "s.u16")
    expected = [batch["window"] for batch in WindowLoader(plain, 1024, 128, stride=512)]
    stream = plain if way == "sent" else U16Stream(tmp_path / "s.u16", io="gpu")
    loader = WindowLoader(stream, 1024, 128, stride=512, device="cuda")
    next(iter(loader))  # compiles
    loader.set_epoch(0)
    busy = torch.randn(4096, 4096, device="cuda")
    used = torch.cuda.Stream()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.cuda.stream(used):
            found = []
            for batch in loader:
                busy = busy @ busy / 64
                assert batch["window"].is_cuda
                found.append(batch["window"] + 0)
                del batch
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    assert len(found) == len(expected) == len(loader)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine.cpu(), theirs)


@pytest.mark.gpu
def test_batches_are_pinned_where_a_gpu_is(stream):
    batch = next(iter(WindowLoader(stream, 10, 4)))
    assert batch["window"].is_pinned()


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("nonsense", "'nonsense' is no device; cpu, cuda or cuda:N fits"),
        ("meta", "device is meta; cpu, cuda or cuda:N fits"),
    ],
)
def test_devices_that_are_none(device, message, tmp_path):
    path = tmp_path / "s.u16"
    np.arange(50, dtype="<u2").tofile(path)
    with pytest.raises(UserError, match=f"^WindowLoader.*{message}"):
        WindowLoader(U16Stream(path), 5, 2, device=device)
    with pytest.raises(UserError, match=f"^io is 'gpu': {message}"):
        U16Stream(path, io="gpu", device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_no_gpu_is_said(tmp_path):
    path = tmp_path / "s.u16"
    np.arange(50, dtype="<u2").tofile(path)
    with pytest.raises(UserError, match="no GPU that torch can use; 'cpu' or None fits"):
        WindowLoader(U16Stream(path), 5, 2, device="cuda")
