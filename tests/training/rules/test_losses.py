"""Losses of a stack against their definitions, written out."""

import math

import pytest
import torch
from torch.nn import functional

from pyseq.training.rules.losses import counting_loss, counting_targets, masked_mean, word_loss
from pyseq.training.rules.schedules import rule_rate_factor


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 6, 5, generator=generator)
    targets = torch.randint(0, 5, (2, 3, 6), generator=generator)
    return logits, targets


def test_each_seed_has_the_loss_that_it_has_alone(case):
    logits, targets = case
    alone = [
        functional.cross_entropy(x.flatten(0, 1), y.flatten()) for x, y in zip(*case, strict=True)
    ]
    torch.testing.assert_close(word_loss(logits, targets), torch.stack(alone))


def test_pad_is_left_out_where_that_is_asked_for(case):
    logits, targets = case
    alone = [
        functional.cross_entropy(x.flatten(0, 1), y.flatten(), ignore_index=2)
        for x, y in zip(*case, strict=True)
    ]
    assert (targets == 2).any()
    torch.testing.assert_close(word_loss(logits, targets, ignore_pad=True), torch.stack(alone))


def test_label_smoothing_spreads_a_share_of_the_target(case):
    logits, targets = case
    share = 0.2
    wanted = (1 - share) * functional.one_hot(targets, 5).float() + share / 5
    expected = -(wanted * logits.log_softmax(-1)).sum(-1).mean((1, 2))
    torch.testing.assert_close(word_loss(logits, targets, label_smoothing=share), expected)


def test_focal_loss_weighs_by_what_is_missing_to_certainty(case):
    logits, targets = case
    p = logits.softmax(-1).gather(-1, targets[..., None])[..., 0]
    expected = (-((1 - p) ** 2) * p.log()).mean((1, 2))
    torch.testing.assert_close(word_loss(logits, targets, focal_gamma=2.0), expected)


def test_a_masked_mean_counts_what_it_is_told():
    values = torch.tensor([[[1.0, 2.0, 4.0]], [[3.0, float("nan"), 5.0]]])
    counted = torch.tensor([[[True, True, False]], [[True, False, True]]])
    assert masked_mean(values, counted).tolist() == [1.5, 4.0]


def test_counting_targets_by_hand():
    # SOS a a b ( is a word of three symbols: a 3, b 4, c 5.
    tokens = torch.tensor([[[0, 3, 3, 4, 5]]])
    #         a even b even c even  a=b   a=c   b=c
    expected = [
        [1, 1, 1, 1, 1, 1],
        [0, 1, 1, 0, 0, 1],
        [1, 1, 1, 0, 0, 1],
        [1, 0, 1, 0, 0, 0],
        [1, 0, 0, 0, 0, 1],
    ]
    assert counting_targets(tokens, 3, 6)[0, 0].tolist() == expected


def test_the_counting_loss_leaves_pad_out():
    tokens = torch.tensor([[[0, 3, 4, 1, 2, 2]]])
    targets = counting_targets(tokens, 3, 5)
    right = (2 * targets - 1) * 20
    wrong_at_pad = right.clone()
    wrong_at_pad[..., 4:, :] *= -1
    assert counting_loss(right, targets, tokens).item() < 1e-6
    assert counting_loss(wrong_at_pad, targets, tokens).item() < 1e-6
    assert counting_loss(-right, targets, tokens).item() == pytest.approx(20, rel=1e-4)


def test_schedules():
    rise = [rule_rate_factor("inverse_sqrt", unit, 4, 0.0) for unit in range(5)]
    assert rise == [0, 0.25, 0.5, 0.75, 1]
    assert rule_rate_factor("inverse_sqrt", 400, 100, 0.5) == 0.5
    assert rule_rate_factor("constant", 400, 100, 0.5) == 1
    assert rule_rate_factor("cosine", 400, 100, 0.5) == pytest.approx(0.5)
    assert rule_rate_factor("cosine", 400, 100, 1.0) == pytest.approx(0.0)
    assert rule_rate_factor("cosine", 50, 100, 0.1) == 0.5
    with pytest.raises(ValueError, match="linear"):
        rule_rate_factor("linear", 400, 100, 0.5)
    assert math.isclose(rule_rate_factor("inverse_sqrt", 300, 100, 0), math.sqrt(1 / 3))
