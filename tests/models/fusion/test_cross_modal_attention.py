"""Attention among modalities: order, masks, its formula, and what it refuses."""

import doctest

import pytest
import torch
import torch.nn.functional as F

from pyseq.models.fusion import CrossModalAttention
from pyseq.ops import cosine_attention
from tests.correctness import random, undocumented_parameters

COUNTS, C, B = (1, 4, 2, 1), 16, 5
ORDER = [2, 0, 3, 1]
kinds = pytest.mark.parametrize("kind", ["softmax", "cosine"])


def layer(kind="softmax"):
    torch.manual_seed(0)
    made = CrossModalAttention(C, 2, kind=kind).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return made.double()


def tokens(seed=0):
    return [random(B, T, C, seed=seed + i) for i, T in enumerate(COUNTS)]


def mask():
    present = torch.ones(B, len(COUNTS), dtype=torch.bool)
    present[1, 1] = present[2, 0] = present[3, :3] = False
    return present


def order_matters(update, present):
    """How far `update` is from giving a permuted list the permuted result."""
    plain = update(tokens(), present)
    turned = update([tokens()[m] for m in ORDER], present[:, ORDER])
    return max((turned[i] - plain[m]).abs().max().item() for i, m in enumerate(ORDER))


@kinds
@torch.no_grad()
def test_modalities_in_another_order_come_out_in_that_order(kind):
    attention = layer(kind)

    def in_place(old, present):
        """The tempting loop: each update is written back before the next is computed."""
        new = list(old)
        for m in range(len(new)):
            new[m] = attention(new, present)[m]
        return new

    assert order_matters(attention, mask()) < 1e-12
    assert order_matters(in_place, mask()) > 1e-2


@torch.no_grad()
def test_what_came_in_is_left_as_it_was():
    given = tokens()
    layer()(given, mask())
    assert all(torch.equal(x, y) for x, y in zip(given, tokens(), strict=True))


@kinds
@pytest.mark.parametrize("value", [100.0, float("nan"), float("inf")])
@torch.no_grad()
def test_a_missing_modality_is_read_by_none(kind, value):
    attention, present = layer(kind), mask()
    changed = [x.masked_fill(~present[:, m, None, None], value) for m, x in enumerate(tokens())]
    before, after = attention(tokens(), present), attention(changed, present)
    for m in range(len(COUNTS)):
        there = present[:, m]
        assert torch.equal(before[m][there], after[m][there])
    # while one that is there is read
    unmasked = attention(tokens(), torch.ones_like(present))
    assert (unmasked[3] - before[3])[1:4].abs().amax((1, 2)).min() > 1e-4


@kinds
@torch.no_grad()
def test_it_is_its_formula(kind):
    attention, present = layer(kind), mask()
    x = torch.cat(tokens(), 1)
    seen = torch.repeat_interleave(present, torch.tensor(COUNTS), dim=1)
    h = attention.norm(x)
    key, value = attention.key_value(h).chunk(2, -1)
    q, k, v = (
        t.unflatten(-1, (2, C // 2)).transpose(1, 2) for t in (attention.query(h), key, value)
    )
    scale = (C // 2) ** -0.5
    if kind == "cosine":
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        start = torch.tensor(10 / 40).log()
        scale = 50 * torch.sigmoid(attention.temperature + start)[:, None, None]
    logits = (q @ k.mT * scale).masked_fill(~seen[:, None, None], -torch.inf)
    mixed = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
    x = x + attention.out(mixed)
    expected = attention.residual(x).split(COUNTS, 1)
    for ours, theirs in zip(attention(tokens(), present), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_the_cosine_kind_is_the_op_where_all_are_there():
    attention = layer("cosine")
    x = torch.cat(tokens(), 1)
    h = attention.norm(x)
    key, value = attention.key_value(h).chunk(2, -1)
    q, k, v = (
        t.unflatten(-1, (2, C // 2)).transpose(1, 2) for t in (attention.query(h), key, value)
    )
    scale = 50 * torch.sigmoid(attention.temperature + torch.tensor(10 / 40).log())
    mixed = cosine_attention(q, k, v, scale=scale).transpose(1, 2).flatten(2)
    expected = attention.residual(x + attention.out(mixed))
    found = torch.cat(attention(tokens(), torch.ones(B, 4, dtype=torch.bool)), 1)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_nothing_to_read_adds_a_constant():
    attention = layer()
    nothing = torch.zeros(B, 4, dtype=torch.bool)
    for x, out in zip(tokens(), attention(tokens(), nothing), strict=True):
        torch.testing.assert_close(out, attention.residual(x + attention.out.bias))


def test_one_token_alone_is_refused():
    there = torch.ones(B, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="CrossModalAttention: one token of one modality"):
        layer()([tokens()[0]], there)
    assert layer()([tokens()[1]], there)[0].shape == (B, 4, C)  # four tokens of one are fine


@pytest.mark.parametrize(
    ("given", "present", "error", "words"),
    [
        ([], mask(), ValueError, "no modality"),
        (tokens()[:3], mask(), ValueError, r"present has shape \(5, 4\); \(5, 3\) fits"),
        ([x[..., :8] for x in tokens()], mask(), ValueError, r"\(B, T, 16\)"),
        ([x[:, 0] for x in tokens()], mask(), ValueError, r"\(B, T, 16\)"),
        ([x[:, :0] for x in tokens()], mask(), ValueError, "at least 1"),
        ([tokens()[0], tokens()[1][:3]], mask()[:, :2], ValueError, r"\(3, 4, 16\)"),
        (tokens(), mask().float(), TypeError, "present is torch.float32"),
        (tokens(), [True], TypeError, "present is list"),
    ],
)
def test_what_does_not_fit_is_refused(given, present, error, words):
    with pytest.raises(error, match=f"^CrossModalAttention: .*{words}"):
        layer()(given, present)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 heads and a width of 16"):
        CrossModalAttention(16, 3)
    with pytest.raises(ValueError, match="kind is 'hard'"):
        CrossModalAttention(16, 2, kind="hard")


def test_its_docstring_names_its_arguments_and_runs():
    assert undocumented_parameters(CrossModalAttention) == []
    example = doctest.DocTestFinder().find(CrossModalAttention, globs={})[0]
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0
