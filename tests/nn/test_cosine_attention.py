"""CosineAttention: its formula, its temperature, and that it cannot see the future."""

import pytest
import torch

from pyseq.nn import CosineAttention, RotaryEmbedding
from tests.correctness import undocumented_parameters


def layer(**options):
    torch.manual_seed(0)
    return CosineAttention(32, 4, 2, **options)


def test_formula():
    """Against projections by hand and PyTorch's own attention of normalised heads."""
    attention = layer(rope=None, scale_init=7.0)
    x = torch.randn(2, 9, 32)
    joint = attention.query_key_value(x)
    heads = [y.unflatten(-1, (-1, 8)).transpose(1, 2) for y in joint.split((32, 16, 16), -1)]
    query, key = (torch.nn.functional.normalize(y, dim=-1) for y in heads[:2])
    mixed = torch.nn.functional.scaled_dot_product_attention(
        query, key, heads[2], is_causal=True, scale=7.0, enable_gqa=True
    )
    expected = attention.out(mixed.transpose(1, 2).flatten(2))
    assert torch.allclose(attention(x), expected, atol=1e-5)


@pytest.mark.parametrize("rope", [None, RotaryEmbedding(8)])
@pytest.mark.parametrize("window", [None, 4])
def test_the_future_does_not_matter(window, rope):
    attention = layer(rope=rope, window=window)
    x = torch.randn(2, 140, 32)
    before = attention(x)
    for t in (0, 63, 64, 127, 138):
        changed = x.clone()
        changed[:, t + 1] += 1.0
        after = attention(changed)
        assert torch.equal(before[:, : t + 1], after[:, : t + 1])
        assert not torch.equal(before[:, t + 1], after[:, t + 1])


def test_the_past_beyond_the_window_does_not_matter():
    attention = layer(window=4, prefix=1)
    x = torch.randn(1, 12, 32)
    changed = x.clone()
    changed[:, 5] += 1.0
    differs = (attention(x) != attention(changed)).any(-1)[0]
    assert differs.nonzero().flatten().tolist() == [5, 6, 7, 8]
    changed = x.clone()
    changed[:, 0] += 1.0
    assert (attention(x) != attention(changed)).any(-1).all()


def test_positions_matter_only_with_rope():
    x = torch.randn(1, 6, 32)
    swapped = x[:, [1, 0, 2, 3, 4, 5]]
    plain, rotated = layer(causal=False), layer(causal=False, rope=RotaryEmbedding(8))
    assert torch.allclose(plain(x)[:, 2:], plain(swapped)[:, 2:], atol=1e-6)
    assert not torch.allclose(rotated(x)[:, 2:], rotated(swapped)[:, 2:], atol=1e-3)


def test_temperature_starts_where_told_and_stays_within_its_bound():
    attention = layer(scale_init=10.0, scale_max=50.0)
    assert torch.allclose(attention.scale(), torch.full((4,), 10.0))
    with torch.no_grad():
        attention.temperature.copy_(torch.tensor([-50.0, 0.0, 3.0, 1e30]))
    scale = attention.scale()
    assert (scale > 0).all()
    assert (scale <= 50.0).all()
    assert attention.bfloat16().scale().dtype == torch.float32


def test_temperature_comes_back_from_near_its_bound():
    attention = layer(scale_max=50.0)
    with torch.no_grad():
        attention.temperature.fill_(8.0)
    assert (attention.scale() > 49.9).all()
    attention(torch.randn(2, 5, 32)).square().sum().backward()
    assert (attention.temperature.grad != 0).all()


def test_every_parameter_learns():
    attention = layer(rope=RotaryEmbedding(8))
    attention(torch.randn(2, 5, 32)).square().sum().backward()
    gradients = {name: p.grad for name, p in attention.named_parameters()}
    assert set(gradients) == {"query_key_value.weight", "out.weight", "temperature"}
    assert all(grad.abs().max() > 0 for grad in gradients.values())


def test_heads_are_not_copied(monkeypatch):
    """The op is handed views of one projection, and its output is read in place."""
    seen = {}

    def op(query, key, value, **options):
        seen.update(
            options, same=len({x.untyped_storage().data_ptr() for x in (query, key, value)})
        )
        return torch.empty_like(query).copy_(query)

    monkeypatch.setattr("pyseq.nn.cosine_attention.cosine_attention", op)
    attention = layer()
    x = torch.randn(2, 5, 32)
    out = attention(x)
    assert seen["same"] == 1
    assert seen["scale_bound"] == 50.0
    expected = attention.out(attention.query_key_value(x)[..., :32])
    assert torch.allclose(out, expected, atol=1e-6)


def test_dropout_only_in_training():
    attention = layer(dropout=0.5)
    x = torch.randn(1, 50, 32)
    assert 0.3 < (attention(x) == 0).float().mean() < 0.7
    assert (attention.eval()(x) != 0).all()


def test_compiles_whole():
    attention = layer(rope=RotaryEmbedding(8))
    torch._dynamo.reset()
    compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 7, 32)
    expected = attention(x)
    attention.zero_grad()
    found = compiled(x)
    assert torch.allclose(found, expected, atol=1e-6)
    found.sum().backward()
    assert attention.temperature.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((30, 4), {}, "4 heads cannot share a width of 30; width must be a multiple of heads"),
        ((32, 4, 3), {}, "4 heads cannot share 3 key heads; heads must be a multiple"),
        ((32, 4, 0), {}, "4 heads cannot share 0 key heads"),
        ((32, 4), {"scale_init": 50.0}, "scale_init is 50.0, scale_max 50.0; 0 < scale_init"),
        ((32, 4), {"scale_init": 0.0}, "scale_init is 0.0"),
        ((32, 4), {"rope": RotaryEmbedding(16)}, "rope turns heads of width 16; .* 8, fits"),
    ],
)
def test_errors(arguments, options, message):
    with pytest.raises(ValueError, match=f"^CosineAttention: {message}"):
        CosineAttention(*arguments, **options)


def test_docstring_names_every_parameter():
    assert undocumented_parameters(CosineAttention) == []
    assert undocumented_parameters(CosineAttention.forward) == []


def test_after_the_prefix_the_future_does_not_matter():
    attention = layer(prefix=3)
    x = torch.randn(2, 20, 32)
    before = attention(x)
    for t in range(2, 19):
        changed = x.clone()
        changed[:, t + 1 :] += 1.0
        assert torch.equal(before[:, : t + 1], attention(changed)[:, : t + 1])
    changed = x.clone()
    changed[:, 2] += 1.0
    assert not torch.equal(before[:, 0], attention(changed)[:, 0])  # the prefix sees itself
