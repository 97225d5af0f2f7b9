"""Smoothed targets and the focal weight against plain loops and torch's own loss."""

import math

import pytest
import torch

from pyseq.training.fusion.losses import soft_cross_entropy, soft_targets


def test_smoothed_cross_entropy_is_torchs():
    torch.manual_seed(0)
    logits, label = torch.randn(9, 5), torch.randint(5, (9,))
    ours = soft_cross_entropy(logits, soft_targets(label, 5, 0.2))
    theirs = torch.nn.functional.cross_entropy(logits, label, label_smoothing=0.2)
    torch.testing.assert_close(ours, theirs)


def test_the_focal_weight_is_that_of_the_paper():
    logits, label = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.5, 0.0]]), torch.tensor([0, 2])
    total = 0.0
    for row, y in zip(logits.tolist(), label.tolist(), strict=True):
        p = math.exp(row[y]) / sum(math.exp(value) for value in row)
        total += -((1 - p) ** 1.5) * math.log(p)
    found = soft_cross_entropy(logits, soft_targets(label, 3, 0.0), 1.5)
    assert float(found) == pytest.approx(total / 2, rel=1e-6)


def test_certainty_gives_no_nan():
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    loss = soft_cross_entropy(logits, soft_targets(torch.tensor([0]), 2, 0.0), 0.5)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert torch.isfinite(logits.grad).all()
