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


def test_epochs_follow_one_another_whatever_the_workers(loader):
    """Also after passes that were abandoned, which count."""
    expected = epochs_of(loader, 8)
    dataset = WindowDataset(loader)

    def batches(workers: int):
        return DataLoader(dataset, batch_size=None, num_workers=workers)

    assert offsets_of(islice(batches(0), 1)) == expected[0][:1]
    assert offsets_of(batches(3)) == expected[1]
    assert offsets_of(islice(batches(2), 1)) == expected[2][:1]
    assert offsets_of(batches(4)) == expected[3]
    stays = DataLoader(dataset, batch_size=None, num_workers=2, persistent_workers=True)
    assert offsets_of(islice(stays, 3)) == expected[4][:3]
    assert offsets_of(stays) == expected[5]
    assert offsets_of(batches(1)) == expected[6]
    assert offsets_of(stays) == expected[7]


def test_it_begins_with_the_epoch_that_the_loader_would_go_on_with(loader):
    expected = epochs_of(loader, 3)
    offsets_of(loader)
    assert offsets_of(WindowDataset(loader)) == expected[1]
    loader.set_epoch(2)
    state = loader.state_dict()
    loader.load_state_dict({**state, "position": 128})
    assert offsets_of(WindowDataset(loader)) == expected[2]
