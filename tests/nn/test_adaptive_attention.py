"""AdaptiveAttention: softmax attention in training, sharpened when it serves."""

import pytest
import torch

from pyseq.nn import AdaptiveAttention, RotaryEmbedding
from pyseq.ops import adaptive_attention
from tests.correctness import undocumented_parameters


def layer(**options):
    torch.manual_seed(0)
    return AdaptiveAttention(32, 4, 2, **options)


@pytest.mark.parametrize(
    ("options", "training", "sharp"),
    [({}, True, False), ({}, False, True), ({"train": "adaptive"}, True, True)],
)
@pytest.mark.parametrize("coefficients", [None, (0.5, 1.0)])
def test_modes(options, training, sharp, coefficients):
    attention = layer(coefficients=coefficients, scale=0.4, **options).train(training)
    x = torch.randn(2, 30, 32)
    joint = attention.query_key_value(x)
    query, key, value = (
        y.unflatten(-1, (-1, 8)).transpose(1, 2) for y in joint.split((32, 16, 16), -1)
    )
    plain = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=0.4, enable_gqa=True
    )
    sharpened = adaptive_attention(
        query, key, value, scale=0.4, causal=True, coefficients=coefficients
    )
    assert not torch.allclose(plain, sharpened, atol=1e-3)
    expected = attention.out((sharpened if sharp else plain).transpose(1, 2).flatten(2))
    assert torch.allclose(attention(x), expected, atol=1e-5)


@pytest.mark.parametrize("train", ["soft", "adaptive"])
def test_every_parameter_learns(train):
    attention = layer(train=train, rope=RotaryEmbedding(8))
    attention(torch.randn(2, 6, 32)).square().sum().backward()
    joint = attention.query_key_value.weight.grad.split((32, 16, 16))
    assert all(grad.abs().max() > 0 for grad in (*joint, attention.out.weight.grad))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": "hard"}, "train is 'hard'; one of .'soft', 'adaptive'. fits"),
        ({"scale": -1.0}, "scale is -1.0; a positive finite number"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=f"^AdaptiveAttention: {message}"):
        layer(**options)


def test_docstring_names_every_parameter():
    assert undocumented_parameters(AdaptiveAttention) == []
