"""WindowDataset: the loader's order through PyTorch's DataLoader, with any workers."""

from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pyseq.data import U16Stream, WindowDataset, WindowLoader


@pytest.fixture(scope="module")
def loader(tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "s.u16"
    np.arange(3000).astype("<u2").tofile(path)
    return WindowLoader(U16Stream(path), 300, 64, stride=4)


def offsets_of(batches) -> list[list[int]]:
    found = []
    for batch in batches:
        offset, window = batch["offset"], batch["window"]
        assert torch.equal(window, offset[:, None] + torch.arange(300))
        found.append(offset.tolist())
    return found


def epochs_of(loader: WindowLoader, count: int) -> list[list[list[int]]]:
    loader.set_epoch(0)
    epochs = [offsets_of(loader) for _ in range(count)]
    loader.set_epoch(0)
    return epochs


@pytest.mark.parametrize(("workers", "method"), [(0, None), (1, "fork"), (3, "fork"), (2, "spawn")])
@pytest.mark.parametrize("stays", [False, True])
def test_any_workers_give_the_same_epochs(loader, workers, method, stays):
    expected = epochs_of(loader, 3)
    batches = DataLoader(
        WindowDataset(loader), batch_size=None, num_workers=workers,
        multiprocessing_context=method, persistent_workers=stays and workers > 0,
    )  # fmt: skip
    assert len(batches) == len(loader)
    assert [offsets_of(batches) for _ in range(3)] == expected


def test_an_epoch_can_be_chosen(loader):
    expected = epochs_of(loader, 3)
    dataset = WindowDataset(loader)
    batches = DataLoader(dataset, batch_size=None, num_workers=2)
    dataset.set_epoch(2)
    assert offsets_of(batches) == expected[2]
    dataset.set_epoch(0)
    assert offsets_of(batches) == expected[0]
    assert offsets_of(batches) == expected[1]


def test_the_loader_stays_where_it_is(loader):
    expected = epochs_of(loader, 1)
    dataset = WindowDataset(loader)
    offsets_of(dataset)
    assert offsets_of(loader) == expected[0]


@pytest.mark.parametrize("turns", [1, 2, 3, 5])
def test_each_worker_can_be_resumed_anywhere(loader, turns):
    """As torchdata does it: the state of every worker's copy, given back to its successor."""
    [first, second] = epochs_of(loader, 2)
    for turn in range(turns):
        part = loader.part(turn, turns)
        mine = first[turn::turns]
        for consumed in range(len(mine) + 1):
            batches = iter(part)
            part.set_epoch(0)
            assert offsets_of(islice(batches, consumed)) == mine[:consumed]
            fresh = loader.part(turn, turns)
            fresh.load_state_dict(part.state_dict())
            rest = offsets_of(fresh)
            assert rest == (mine[consumed:] if consumed < len(mine) else second[turn::turns])


def test_a_dataset_can_be_resumed(loader):
    [first, second] = epochs_of(loader, 2)
    dataset = WindowDataset(loader)
    assert offsets_of(islice(dataset, 2)) == first[:2]
    state = dataset.state_dict()
    fresh = WindowDataset(loader)
    fresh.load_state_dict(state)
    assert offsets_of(fresh) == first[2:]
    assert offsets_of(fresh) == second
