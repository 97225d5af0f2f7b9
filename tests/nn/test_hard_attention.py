"""HardAttention: what each mode computes, and that it cannot see the future."""

import pytest
import torch

from pyseq.nn import HardAttention, RotaryEmbedding
from pyseq.ops import adaptive_attention
from tests.correctness import undocumented_parameters


def layer(**options):
    torch.manual_seed(0)
    return HardAttention(32, 4, 2, **options)


def heads_of(attention, x):
    joint = attention.query_key_value(x)
    return [y.unflatten(-1, (-1, 8)).transpose(1, 2) for y in joint.split((32, 16, 16), -1)]


def soft(query, key, value, scale):
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scale, enable_gqa=True
    )


def hard(query, key, value):
    key, value = (y.repeat_interleave(2, 1) for y in (key, value))
    hidden = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).triu(1)
    best = (query @ key.mT).masked_fill(hidden, -torch.inf).argmax(-1)
    return torch.gather(value, 2, best[..., None].expand(*best.shape, 8))


@pytest.mark.parametrize(
    ("options", "training", "formula"),
    [
        ({}, True, "soft"),
        ({}, False, "hard"),
        ({"train": "straight_through"}, True, "hard"),
        ({"serve": "soft"}, False, "soft"),
        ({"serve": "adaptive"}, False, "adaptive"),
    ],
)
@pytest.mark.parametrize("scale", [None, 2.0])
def test_modes(options, training, formula, scale):
    attention = layer(scale=scale, **options).train(training)
    x = torch.randn(2, 9, 32)
    query, key, value = heads_of(attention, x)
    scale = 8**-0.5 if scale is None else scale
    mixed = {
        "soft": lambda: soft(query, key, value, scale),
        "hard": lambda: hard(query, key, value),
        "adaptive": lambda: adaptive_attention(query, key, value, scale=scale, causal=True),
    }[formula]()
    expected = attention.out(mixed.transpose(1, 2).flatten(2))
    assert torch.allclose(attention(x), expected, atol=1e-5)


@pytest.mark.parametrize("train", ["soft", "straight_through"])
def test_every_parameter_learns(train):
    attention = layer(train=train, rope=RotaryEmbedding(8))
    attention(torch.randn(2, 6, 32)).square().sum().backward()
    joint = attention.query_key_value.weight.grad.split((32, 16, 16))
    assert all(grad.abs().max() > 0 for grad in (*joint, attention.out.weight.grad))


def test_the_scale_does_not_change_the_choice():
    x = torch.randn(2, 9, 32)
    assert torch.equal(layer(scale=0.1).eval()(x), layer(scale=9.0).eval()(x))
    assert not torch.allclose(layer(scale=0.1)(x), layer(scale=9.0)(x), atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": "hard"}, "train is 'hard'; one of .'soft', 'straight_through'. fits"),
        ({"serve": "straight_through"}, "serve is 'straight_through'; one of"),
        ({"scale": 0.0}, "scale is 0.0; a positive finite number"),
        ({"scale": float("nan")}, "scale is nan"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=f"^HardAttention: {message}"):
        layer(**options)


def test_docstring_names_every_parameter():
    assert undocumented_parameters(HardAttention) == []
