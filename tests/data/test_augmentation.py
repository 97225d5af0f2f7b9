"""Augmentation: how much it changes, into what, and that it draws where a checkpoint can see."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch._subclasses.fake_tensor import FakeTensorMode

from pyseq.data.augmentation import Augmentation
from pyseq.data.binning import Binning
from pyseq.errors import UserError

FREQUENCIES = np.array([500, 0, 300, 1, 199, 0])
TOKENS = Binning(6)
SETTINGS = [
    ("values", Binning.uniform(1000, 64), np.ones(1000, np.int64), {"noise": 3.0}),
    ("tokens", TOKENS, FREQUENCIES, {"replace": 0.3}),
    ("tokens", TOKENS, FREQUENCIES, {"mask": 0.3}),
    ("tokens", Binning.uniform(6, 3), FREQUENCIES, {"replace": 0.2, "mask": 0.3}),
]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("sd", [0.4, 1.0, 3.0, 50.0])
def test_noise_has_the_deviation_asked_for(sd):
    values = torch.full((200, 1000), 5000)
    noisy = Augmentation("values", Binning(10_001), np.ones(10_001), noise=sd)(values)
    moved = (noisy - values).double()
    assert moved.mean().abs() < 5 * (sd + 0.3) / len(moved.flatten()) ** 0.5
    steps = np.arange(-2000, 2001)  # of a rounded normal variable
    share = np.diff(stats.norm.cdf(np.append(steps, steps[-1] + 1) - 0.5, scale=sd))
    assert moved.std() == pytest.approx(np.sqrt((share * steps**2).sum()), rel=0.02)


@pytest.mark.parametrize(("alphabet", "sd"), [(10, 1.0), (10, 9.0), (2, 2.0), (1, 0.5)])
def test_noise_stays_in_the_alphabet_and_leaves_a_flat_histogram_flat(alphabet, sd):
    """Clamping would make the ends of the alphabet more frequent."""
    values = torch.arange(alphabet).repeat(20_000)[None]
    noisy = Augmentation("values", Binning(alphabet), np.ones(alphabet), noise=sd)(values)
    assert 0 <= noisy.min() <= noisy.max() < alphabet
    counts = torch.bincount(noisy.flatten(), minlength=alphabet).numpy()
    if alphabet > 1:
        assert stats.chisquare(counts).pvalue > 1e-4


def test_noise_comes_before_the_bins():
    """A value at an edge changes its class half of the time, one inside a wide bin never."""
    noisy = Augmentation("values", Binning.uniform(1000, 10), np.ones(1000), noise=5.0)
    assert (noisy(torch.full((1, 10_000), 150)) == 1).all()
    share = (noisy(torch.full((1, 10_000), 199)) == 1).float().mean()
    assert share == pytest.approx(stats.norm.cdf(0.5 / 5), abs=0.02)


def test_replaced_tokens_follow_the_training_frequencies():
    tokens = torch.full((200, 2000), 5)  # itself never drawn
    shown = Augmentation("tokens", TOKENS, FREQUENCIES, replace=0.25)(tokens).flatten()
    kept = (shown == 5).float().mean()
    assert kept == pytest.approx(0.75, abs=0.005)
    counts = torch.bincount(shown[shown != 5], minlength=6).numpy()
    assert counts[[1, 5]].tolist() == [0, 0]
    expected = counts.sum() * FREQUENCIES / FREQUENCIES.sum()
    seen = FREQUENCIES > 0
    assert stats.chisquare(counts[seen], expected[seen]).pvalue > 1e-4


def test_rare_symbols_of_a_long_stream_are_told_apart():
    """In single precision the first two of these are one."""
    frequencies = np.array([2**32, 1, 2**32])
    augmentation = Augmentation("tokens", Binning(3), frequencies, replace=0.5)
    assert augmentation.cumulated.diff().tolist() == [1.0, 2.0**32]


def test_the_lowest_draw_is_the_first_symbol_that_occurs(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **more: torch.zeros(shape, **more))
    augmentation = Augmentation("tokens", Binning(4), np.array([0, 0, 5, 5]), replace=0.5)
    assert augmentation(torch.tensor([[3, 3]])).tolist() == [[2, 2]]


def test_masks_are_a_class_of_their_own():
    tokens = torch.randint(6, (100, 1000))
    binning = Binning.uniform(6, 3)
    shown = Augmentation("tokens", binning, FREQUENCIES, mask=0.2)(tokens)
    masked = shown == 3
    assert masked.float().mean() == pytest.approx(0.2, abs=0.005)
    assert torch.equal(shown[~masked], binning.apply(tokens)[~masked])


def test_both_shares_hold_together():
    tokens = torch.full((200, 2000), 5)
    shown = Augmentation("tokens", TOKENS, FREQUENCIES, replace=0.5, mask=0.4)(tokens)
    assert (shown == 6).float().mean() == pytest.approx(0.4, abs=0.005)
    assert (shown == 5).float().mean() == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize("case", SETTINGS)
def test_the_window_itself_is_left_alone_and_the_seed_decides(case):
    kind, binning, frequencies, shares = case
    augmentation = Augmentation(kind, binning, frequencies, **shares)
    symbols = torch.randint(binning.alphabet, (8, 50))
    before = symbols.clone()
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(augmentation(symbols))
    assert torch.equal(symbols, before)
    assert draws[0].dtype == torch.int64
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    torch.manual_seed(1)
    assert torch.equal(augmentation(symbols.to(torch.uint16)), draws[0])
    assert list(augmentation.state_dict()) == []  # nothing for a checkpoint


@pytest.mark.parametrize("case", SETTINGS)
def test_it_can_be_captured_whole(case):
    """By torch.compile, and by tensors that have no values to wait for."""
    kind, binning, frequencies, shares = case
    augmentation = Augmentation(kind, binning, frequencies, **shares)
    symbols = torch.randint(binning.alphabet, (8, 50))
    compiled = torch.compile(augmentation, fullgraph=True, backend="eager")
    torch.manual_seed(3)
    expected = augmentation(symbols)
    torch.manual_seed(3)
    assert torch.equal(compiled(symbols), expected)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        assert augmentation(fake.from_tensor(symbols)).shape == symbols.shape


@pytest.mark.gpu
@pytest.mark.parametrize("case", SETTINGS)
def test_nothing_waits_for_the_gpu(case):
    kind, binning, frequencies, shares = case
    augmentation = Augmentation(kind, binning, frequencies, **shares).cuda()
    symbols = torch.randint(binning.alphabet, (8, 50)).cuda()
    augmentation(symbols)  # the first call copies the table of classes
    torch.cuda.set_sync_debug_mode("error")
    try:
        shown = augmentation(symbols)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert 0 <= shown.min() <= shown.max() <= binning.classes


@pytest.mark.parametrize(
    ("kind", "shares", "words"),
    [
        ("tokens", {"noise": 0.5}, "--augment_noise 0.5 needs values, and this stream holds token"),
        ("values", {"replace": 0.1}, "--augment_replace 0.1 needs tokens, .* holds values"),
        ("values", {"mask": 0.1}, "--augment_mask 0.1 needs tokens, .* holds values"),
        ("values", {"noise": 1.0, "mask": 0.1}, "--augment_mask 0.1 needs tokens"),
        ("values", {"noise": 7.0}, "--augment_noise 7 drowns an alphabet of 6 symbols"),
    ],
)
def test_the_kind_decides_what_fits(kind, shares, words):
    with pytest.raises(UserError, match=words):
        Augmentation(kind, TOKENS, FREQUENCIES, **shares)
