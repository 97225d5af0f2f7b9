"""WindowLoader: exact epochs, one global order for any ranks, and resume anywhere."""

import json
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyseq.data import U16Stream, WindowLoader


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "s.u16"
    (np.arange(3000) % 65_536).astype("<u2").tofile(
        path
    )  # symbol i is i: a window tells its offset
    with U16Stream(path) as opened:
        yield opened


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
