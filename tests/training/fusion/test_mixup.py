"""Mixup: one permutation and one weight for all modalities, and what a pair lacks."""

import pytest
import torch

from pyseq.training.fusion.losses import soft_targets
from pyseq.training.fusion.mixup import Mixup, Pairing


def batch(count: int = 16, classes: int = 16) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Tokens of three modalities that all say which object they are of, and targets likewise."""
    number = torch.eye(count)
    tokens = [number[:, None], 2 * number[:, None].repeat(1, 3, 1), -number[:, None]]
    return tokens, soft_targets(torch.arange(count) % classes, classes, 0.0)


def test_all_modalities_and_the_label_are_mixed_by_the_same_pairs_and_weight():
    tokens, targets = batch()
    mixed, present, soft = Mixup((0.5, 1.0), 3)(
        tokens, torch.ones(16, 3, dtype=torch.bool), targets
    )
    assert present.all()
    # Of objects numbered by unit vectors, a mixture shows whom it is of, and in which shares.
    assert not torch.equal(mixed[0], tokens[0])
    torch.testing.assert_close(mixed[1], 2 * mixed[0].repeat(1, 3, 1))
    torch.testing.assert_close(mixed[2], -mixed[0])
    torch.testing.assert_close(soft, mixed[0][:, 0])
    torch.testing.assert_close(soft.sum(1), torch.ones(16))


def test_modalities_that_are_permuted_apart_are_seen():
    tokens, _ = batch()
    mixup = Mixup((0.5, 1.0), 3)
    apart = [mixup.draw(16).mix(values) for values in tokens]  # what must not be done
    assert not torch.allclose(apart[1], 2 * apart[0].repeat(1, 3, 1))


def test_a_batch_has_one_weight_and_batches_have_different_ones():
    mixup = Mixup((0.1, 2.0), 0)
    drawn = [mixup.draw(8) for _ in range(20)]
    assert all(len(set(pairing.weight.tolist())) == 1 for pairing in drawn)
    assert len({float(pairing.weight[0]) for pairing in drawn}) == 20
    assert all(sorted(pairing.partner.tolist()) == list(range(8)) for pairing in drawn)


@pytest.mark.parametrize(("alpha", "deviation"), [((0.1, 0.1), 0.4564), ((5.0, 5.0), 0.1508)])
def test_weights_scatter_as_beta_says(alpha, deviation):
    # Var Beta(a, a) = 1 / (4 (2 a + 1))
    mixup = Mixup(alpha, 1)
    weights = torch.tensor([float(mixup.draw(1).weight) for _ in range(3000)])
    assert float(weights.std()) == pytest.approx(deviation, rel=0.05)
    assert float(weights.mean()) == pytest.approx(0.5, abs=0.03)


def test_alpha_varies_over_its_range():
    # A mixture of alphas scatters as neither end of the range does.
    mixup = Mixup((0.1, 5.0), 1)
    weights = torch.tensor([float(mixup.draw(1).weight) for _ in range(3000)])
    assert 0.17 < float(weights.std()) < 0.43


def test_the_same_seed_draws_the_same():
    first, second = Mixup((0.2, 0.4), 7), Mixup((0.2, 0.4), 7)
    for _ in range(3):
        one, other = first.draw(5), second.draw(5)
        assert torch.equal(one.partner, other.partner)
        assert torch.equal(one.weight, other.weight)


def test_a_mixture_has_the_modalities_that_both_have_and_lonely_pairs_stay(monkeypatch):
    tokens = [torch.tensor([[[1.0]], [[2.0]], [[4.0]]]) for _ in range(2)]
    targets = torch.eye(3)
    present = torch.tensor([[True, True], [True, False], [False, True]])
    mixup = Mixup((1.0, 1.0), 0)
    pairing = Pairing(torch.tensor([1, 2, 0]), torch.full((3,), 0.75))
    monkeypatch.setattr(mixup, "draw", lambda _: pairing)
    mixed, both, soft = mixup(tokens, present, targets)
    # 0 with 1: only the first; 1 with 2: nothing in common, left alone; 2 with 0: only the second.
    assert both.tolist() == [[True, False], [True, False], [False, True]]
    assert soft.tolist() == [[0.75, 0.25, 0], [0, 1, 0], [0.25, 0, 0.75]]
    assert mixed[0][:, 0, 0].tolist() == [1.25, 2.0, 3.25]


@pytest.mark.parametrize("alpha", [(0.0, 1.0), (2.0, 1.0), (1.0, float("inf"))])
def test_a_range_that_makes_no_sense_is_refused(alpha):
    with pytest.raises(ValueError, match=r"Mixup: alpha .* a rising range above 0 fits"):
        Mixup(alpha, 0)
