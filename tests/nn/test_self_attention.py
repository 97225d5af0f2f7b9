"""What CosineAttention, HardAttention and AdaptiveAttention share: sizes, cache, compilation."""

from functools import partial

import pytest
import torch

from pyseq.nn import AdaptiveAttention, CosineAttention, HardAttention, RotaryEmbedding
from pyseq.nn.self_attention import SelfAttention
from tests.correctness import undocumented_parameters

LAYERS = {
    "cosine": CosineAttention,
    "cosine_rms": partial(CosineAttention, norm="rms", scale_init=0.3),
    "hard": HardAttention,
    "straight_through": partial(HardAttention, train="straight_through"),
    "adaptive": partial(AdaptiveAttention, train="adaptive"),
    "served_adaptive": partial(HardAttention, serve="adaptive"),
    "served_soft": partial(HardAttention, serve="soft"),
}
EVERY = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)


def make(layer, **options):
    torch.manual_seed(0)
    return layer(32, 4, 2, **options)


@EVERY
@pytest.mark.parametrize("rope", [None, RotaryEmbedding(8)], ids=["plain", "rope"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("steps", [(9, 1, 1, 3), (1,) * 6, (0, 2, 0, 4), (20,)])
def test_pieces_give_what_the_whole_gives(layer, rope, training, steps):
    attention = make(layer, rope=rope).train(training)
    x = torch.randn(2, sum(steps), 32)
    cache = attention.new_cache()
    with torch.no_grad():
        pieces = [attention(piece, cache=cache) for piece in x.split(steps, dim=1)]
        assert torch.allclose(torch.cat(pieces, 1), attention(x), atol=1e-5)
    assert cache.length == sum(steps)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("norm", ["l2", "rms", "layer", None])
def test_pieces_of_cosine_attention(norm, prefix, window):
    attention = make(
        CosineAttention, norm=norm, window=window, prefix=prefix, rope=RotaryEmbedding(8)
    )
    x = torch.randn(1, 14, 32)
    cache = attention.new_cache()
    with torch.no_grad():
        pieces = [attention(piece, cache=cache) for piece in x.split((4, 1, 7, 2), dim=1)]
        assert torch.allclose(torch.cat(pieces, 1), attention(x), atol=1e-5)


def test_the_first_piece_holds_the_prefix():
    attention = make(CosineAttention, prefix=3)
    with pytest.raises(ValueError, match="first piece has 2 positions; at least the prefix, 3"):
        attention(torch.zeros(1, 2, 32), cache=attention.new_cache())


@EVERY
def test_without_causality_there_is_no_cache(layer):
    attention = make(layer, causal=False)
    with pytest.raises(ValueError, match="which later positions would change; causal=True fits"):
        attention.new_cache()
    with pytest.raises(ValueError, match="causal=True fits"):
        attention(torch.zeros(1, 2, 32), cache=make(layer).new_cache())


@EVERY
def test_what_is_held_has_no_graph(layer):
    attention = make(layer)
    cache = attention.new_cache()
    attention(torch.randn(1, 3, 32), cache=cache)
    out = attention(torch.randn(1, 2, 32), cache=cache)
    out.square().sum().backward()
    assert attention.out.weight.grad.abs().max() > 0


@EVERY
def test_every_sequence_of_a_batch_stands_alone(layer):
    attention = make(layer).eval()
    x = torch.randn(3, 12, 32)
    together = attention(x)
    for b in range(3):
        assert torch.allclose(together[b : b + 1], attention(x[b : b + 1]), atol=1e-6)


@EVERY
@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (0, 0)])
def test_empty(layer, shape):
    assert make(layer)(torch.zeros(*shape, 32)).shape == (*shape, 32)


@EVERY
def test_compiles_whole(layer):
    attention = make(layer, rope=RotaryEmbedding(8))
    torch._dynamo.reset()
    compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 7, 32)
    expected = attention(x)
    found = compiled(x)
    assert torch.allclose(found, expected, atol=1e-6)
    found.sum().backward()
    assert all(p.grad.abs().max() > 0 for p in attention.parameters())


@EVERY
def test_under_autocast(layer):
    attention = make(layer, rope=RotaryEmbedding(8))
    x = torch.randn(2, 9, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attention(x)
        cache = attention.new_cache()
        pieces = [attention(piece, cache=cache) for piece in x.split((6, 3), dim=1)]
    assert out.dtype == torch.bfloat16
    assert [piece.shape[1] for piece in pieces] == [6, 3]


@EVERY
@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ((30, 4, 2), {}, "4 heads cannot share a width of 30; width must be a multiple of heads"),
        ((32, 4, 3), {}, "4 heads cannot share 3 key heads; heads must be a multiple"),
        ((32, 4, 0), {}, "4 heads cannot share 0 key heads"),
        ((32, 0, 1), {}, "0 heads cannot share a width of 32"),
        ((32, 4, 2), {"rope": RotaryEmbedding(16)}, "rope turns heads of width 16; .* 8, fits"),
    ],
)
def test_errors(layer, sizes, options, message):
    with pytest.raises(ValueError, match=f"Attention: {message}"):
        layer(*sizes, **options)


def test_docstrings_name_every_parameter():
    assert undocumented_parameters(SelfAttention) == []
    assert undocumented_parameters(SelfAttention.forward) == []
    assert undocumented_parameters(SelfAttention.weights) == []


@EVERY
@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ((32.0, 4, 2), {}, "width is a float; a int fits"),
        ((32, "4", 2), {}, "heads is a str; a int fits"),
        ((32, 4, 2), {"causal": "no"}, "causal is a str; a bool fits"),
        ((32, 4, 2), {"backend": None}, "backend is a NoneType; a str fits"),
        ((32, 4, 2), {"rope": (1, 2)}, "rope is a tuple; a RotaryEmbedding fits"),
    ],
)
def test_wrong_kinds(layer, sizes, options, message):
    with pytest.raises(TypeError, match=f"Attention: {message}"):
        layer(*sizes, **options)


@EVERY
def test_wrong_input(layer):
    attention = make(layer)
    with pytest.raises(TypeError, match="Attention: x is a list; a tensor fits"):
        attention([1.0])
    for shape in ((5, 32), (2, 5, 31)):
        with pytest.raises(ValueError, match=r"Attention: x has shape .*; \(B, T, 32\) fits"):
            attention(torch.zeros(*shape))
    with pytest.raises(TypeError, match="cache is a dict; a KeyValueCache from new_cache"):
        attention(torch.zeros(2, 5, 32), cache={})


@EVERY
def test_finite_but_huge_future_does_not_matter(layer):
    """Hidden scores may overflow to NaN; they are hidden all the same."""
    attention = make(layer).eval()
    x = torch.randn(1, 6, 32)
    changed = x.clone()
    changed[:, 4:] = 3e38 * torch.sign(torch.randn(1, 2, 32))
    with torch.no_grad():
        assert torch.equal(attention(x)[:, :4], attention(changed)[:, :4])


def test_print_tells_the_settings():
    assert "norm='l2', scale_max=50.0, window=3, prefix=0" in repr(make(CosineAttention, window=3))
    assert "heads=4, key_heads=2, causal=True, train='soft', serve='hard'" in repr(
        make(HardAttention)
    )
    assert "causal=False, train='soft'" in repr(make(AdaptiveAttention, causal=False))


def test_as_many_key_heads_as_heads():
    assert CosineAttention(60, 6, None).key_heads == HardAttention(60, 6).key_heads == 6


def rotated(x):
    """Rotary positions as complex numbers: x (B, H, T, 8) turned by position * 10000^(-i/4)."""
    speed = 10000.0 ** (-torch.arange(4, dtype=torch.float64) / 4)
    turn = torch.polar(torch.ones(1, 1).double(), torch.arange(x.shape[2])[:, None] * speed)
    turned = torch.complex(x[..., :4].double(), x[..., 4:].double()) * turn
    return torch.cat((turned.real, turned.imag), -1).float()


def direct_weights(attention, x, *, norm, scale, rope, window=None, prefix=0, rule="soft"):
    """The weights as one would write them down, of a layer of 4 query and 2 key heads."""
    joint = attention.query_key_value(x).unflatten(-1, (8, 8)).transpose(1, 2)
    query, key = joint[:, :4], joint[:, 4:6].repeat_interleave(2, 1)
    if norm == "l2":
        query, key = (y / y.norm(dim=-1, keepdim=True) for y in (query, key))
    elif norm == "rms":
        query, key = (y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt() for y in (query, key))
    if rope is not None:
        query, key = rotated(query), rotated(key)
    logits = scale * query @ key.mT
    T = x.shape[1]
    ahead = torch.arange(T)[:, None] - torch.arange(T)
    hidden = (ahead < 0) if window is None else (ahead < 0) | (ahead >= window)
    hidden[:, :prefix] = False
    logits = logits.masked_fill(hidden, -torch.inf)
    if rule == "hard":
        return torch.nn.functional.one_hot(logits.argmax(-1), T).float()
    weights = torch.softmax(logits, -1)
    if rule == "adaptive":
        H = torch.special.entr(weights).sum(-1, keepdim=True)
        beta = -0.037 * H**4 + 0.481 * H**3 - 2.3 * H**2 + 4.917 * H - 1.791
        beta = torch.where((H > 0.5) & (beta > 1), beta, 1)
        weights = torch.softmax(beta * logits, -1)
    return weights


COSINE = {"norm": "l2", "scale": 10.0}
DOT = {"norm": None, "scale": 8**-0.5}


@pytest.mark.parametrize("rope", [None, RotaryEmbedding(8)], ids=["plain", "rope"])
@pytest.mark.parametrize(
    ("layer", "training", "direct"),
    [
        (CosineAttention, False, COSINE),
        (partial(CosineAttention, window=3), False, COSINE | {"window": 3}),
        (partial(CosineAttention, window=3, prefix=2), False, COSINE | {"window": 3, "prefix": 2}),
        (
            partial(CosineAttention, norm="rms", scale_init=0.3),
            False,
            {"norm": "rms", "scale": 0.3},
        ),
        (HardAttention, False, DOT | {"rule": "hard"}),
        (HardAttention, True, DOT),
        (partial(HardAttention, train="straight_through"), True, DOT | {"rule": "hard"}),
        (partial(HardAttention, serve="soft"), False, DOT),
        (partial(HardAttention, serve="adaptive"), False, DOT | {"rule": "adaptive"}),
        (AdaptiveAttention, True, DOT),
        (AdaptiveAttention, False, DOT | {"rule": "adaptive"}),
    ],
)
def test_weights_are_those_of_the_formula(layer, training, direct, rope):
    attention = make(layer, rope=rope).train(training)
    x = 3 * torch.randn(2, 19, 32)  # three pieces of head_dim keys, the last one smaller
    weights = attention.weights(x)
    assert weights.shape == (2, 4, 19, 19)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 4, 19), atol=1e-5)
    assert torch.allclose(weights, direct_weights(attention, x, rope=rope, **direct), atol=1e-5)


@EVERY
@pytest.mark.parametrize(("T", "first", "stop"), [(11, 3, 10), (11, 0, 1), (11, 5, 5), (0, 0, 0)])
def test_weights_of_some_keys(layer, T, first, stop):
    attention = make(layer)
    x = torch.randn(2, T, 32)
    some = attention.weights(x, first=first, stop=stop)
    assert some.shape == (2, 4, T, stop - first)
    assert torch.equal(some, attention.weights(x)[..., first:stop])


def test_what_sees_all_has_weights_on_all():
    weights = make(CosineAttention, causal=False).weights(torch.randn(1, 6, 32))
    assert weights.min() > 0
    assert torch.allclose(weights.sum(-1), torch.ones(1, 4, 6))


@pytest.mark.parametrize("keys", [{"first": -1}, {"stop": 12}, {"first": 5, "stop": 4}])
def test_weights_of_keys_that_are_not_there(keys):
    with pytest.raises(ValueError, match=r"CosineAttention: keys .* <= 11 fits"):
        make(CosineAttention).weights(torch.zeros(1, 11, 32), **keys)
    with pytest.raises(ValueError, match=r"x has shape \(11, 32\)"):
        make(CosineAttention).weights(torch.zeros(11, 32))
