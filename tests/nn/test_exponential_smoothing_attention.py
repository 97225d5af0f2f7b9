"""ExponentialSmoothingAttention: its formulas, Holt's included, its cache, and no future."""

import pytest
import torch
from torch import nn

from pyseq.nn import exponential_smoothing_attention as module
from pyseq.nn.exponential_smoothing_attention import ExponentialSmoothingAttention, SmoothingState
from pyseq.ops import BackendUnavailable
from tests.correctness import nan_filled_memory, undocumented_parameters


@pytest.fixture(autouse=True)
def _poisoned_memory():
    with nan_filled_memory():
        yield


def layer(width=12, heads=3, **options):
    """With learned starts that are not zero."""
    torch.manual_seed(0)
    attention = ExponentialSmoothingAttention(width, heads, **options)
    with torch.no_grad():
        for name in ("level", "value_before", "growth"):
            if hasattr(attention, name):
                nn.init.normal_(getattr(attention, name))
    return attention


def set_shares(attention, **shares):
    """Give every head the alpha, beta or phi named."""
    logits = {"alpha": "level_logit", "beta": "growth_logit", "phi": "damping_logit"}
    with torch.no_grad():
        for name, share in shares.items():
            getattr(attention, logits[name]).fill_(torch.tensor(share, dtype=torch.float64).logit())


def holt(values, alpha, beta, phi, level, value_before, growth):
    """The formulas, one step after the other: values (B, T, H, D), the rest (H, 1) or (H, D)."""
    forecasts = []
    for t in range(values.shape[1]):
        value = values[:, t]
        level = alpha * value + (1 - alpha) * (level + phi * growth)
        growth = beta * (value - value_before) + (1 - beta) * growth
        value_before = value
        forecasts.append(level + phi * growth)
    return torch.stack(forecasts, 1)


def smoothing(values, alpha, level):
    found = []
    for value in values.unbind(1):
        level = alpha * value + (1 - alpha) * level
        found.append(level)
    return torch.stack(found, 1)


def by_loops(attention, x):
    """The layer in float64, without the op."""
    weights = {name: p.double() for name, p in attention.named_parameters()}
    values = (x.double() @ weights["value.weight"].T).unflatten(-1, (attention.heads, -1))
    margin = 2.0**-20
    shares = {
        name: margin + (1 - 2 * margin) * torch.sigmoid(y)[:, None]
        for name, y in weights.items()
        if name.endswith("_logit")
    }
    if attention.trend:
        mixed = holt(
            values,
            shares["level_logit"],
            shares["growth_logit"],
            shares["damping_logit"],
            weights["level"],
            weights["value_before"],
            weights["growth"],
        )
    else:
        mixed = smoothing(values, shares["level_logit"], weights["level"])
    return mixed.flatten(2) @ weights["out.weight"].T


@pytest.mark.parametrize("trend", [False, True])
@pytest.mark.parametrize("T", [1, 2, 3, 131])
def test_formula_and_gradients(T, trend):
    attention = layer(trend=trend).double()
    x = torch.randn(2, T, 12, dtype=torch.float64, requires_grad=True)
    leaves = [x, *attention.parameters()]
    ours, theirs = attention(x), by_loops(attention, x)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-11)
    grad = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, leaves, grad),
        torch.autograd.grad(theirs, leaves, grad),
        strict=True,
    ):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("beta", [0.9, 0.1, 1e-3])
@pytest.mark.parametrize("alpha", [0.1, 1e-3])
def test_the_trend_is_sound_where_alpha_is_small(alpha, beta):
    """In float32, output and gradients are off by roundings, not by 1 / alpha of them."""
    attention = layer(trend=True)
    with torch.no_grad():
        attention.growth.mul_(0.01)  # of the size of a difference that lasts
    set_shares(attention, alpha=alpha, beta=beta, phi=0.98)
    nn.init.eye_(attention.value.weight)
    nn.init.eye_(attention.out.weight)
    x = torch.randn(1, 2000, 12)
    leaves = list(attention.parameters())
    ours, exact = attention(x), by_loops(attention, x)
    grad = torch.randn_like(x)
    found = torch.autograd.grad(ours, leaves, grad)
    truths = torch.autograd.grad(exact, leaves, grad.double())
    for y, truth in zip((ours, *found), (exact, *truths), strict=True):
        assert (y - truth).abs().max() < 5e-5 * truth.abs().max()


def test_a_line_is_forecast_by_its_next_value():
    """What Holt's method is for: without damping a steady growth is continued."""
    attention = layer(width=2, heads=1, trend=True)
    set_shares(attention, alpha=0.3, beta=0.2, phi=1 - 1e-7)
    nn.init.eye_(attention.value.weight)
    nn.init.eye_(attention.out.weight)
    line = 3 + 0.25 * torch.arange(301.0)
    found = attention(line[:300, None].expand(1, 300, 2))
    assert torch.allclose(found[0, 200:, 0], line[201:], atol=1e-2)


@pytest.mark.parametrize("trend", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_future_does_not_matter(dtype, trend):
    attention = layer(trend=trend).to(dtype)
    x = torch.randn(2, 140, 12).to(dtype)
    before = attention(x)
    for t in (0, 63, 64, 127, 138):
        changed = x.clone()
        changed[:, t + 1] += 10.0
        after = attention(changed)
        assert torch.equal(before[:, : t + 1], after[:, : t + 1])
        assert not torch.equal(before[:, t + 1], after[:, t + 1])


@pytest.mark.parametrize("trend", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_position_leaves_the_past_alone(bad, trend):
    attention = layer(trend=trend)
    x = torch.randn(2, 70, 12)
    before = attention(x)
    x[1, 65, 0] = bad
    after = attention(x)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1, :65], after[1, :65])
    assert not after[1, 65:].isfinite().any()


PIECES = [[1, 5, 64, 0, 1, 61, 8], [140], [139, 1], [1] * 140]


@pytest.mark.parametrize("trend", [False, True])
@pytest.mark.parametrize("pieces", PIECES, ids=lambda pieces: f"{len(pieces)} pieces")
def test_pieces_equal_the_whole(pieces, trend):
    attention = layer(trend=trend)
    x = torch.randn(3, 140, 12)
    cache = attention.new_cache()
    found = [attention(piece, cache=cache) for piece in x.split(pieces, 1)]
    assert torch.allclose(torch.cat(found, 1), attention(x), atol=2e-6)


@pytest.mark.parametrize("trend", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrow_layer_keeps_its_state_wide(dtype, trend):
    """With alpha 1e-3 a state rounded at every step would stand still."""
    attention = layer(trend=trend).to(dtype)
    set_shares(attention, alpha=1e-3)
    x = torch.randn(2, 300, 12).to(dtype) + 2
    whole = attention(x)
    cache = attention.new_cache()
    found = torch.cat([attention(piece, cache=cache) for piece in x.split(1, 1)], 1)
    assert found.dtype == dtype
    assert cache.newest.dtype == torch.float32
    spacing = torch.finfo(dtype).eps * float(whole.detach().abs().max())
    assert (found.float() - whole.float()).abs().max() <= 2 * spacing


@pytest.mark.parametrize("trend", [False, True])
def test_cache_is_detached_and_its_own(trend):
    attention = layer(trend=trend)
    cache = attention.new_cache()
    assert cache == SmoothingState()
    x = torch.randn(2, 4, 12, requires_grad=True)
    attention(x, cache=cache)
    assert cache.newest.shape == (2, 3 if trend else 1, 3, 4)
    assert not cache.newest.requires_grad
    assert cache.newest.untyped_storage().nbytes() == cache.newest.nbytes
    kept = cache.newest.clone()
    attention(x[:, :0], cache=cache)
    attention(x)
    assert torch.equal(cache.newest, kept)
    second = attention(x, cache=cache)
    assert torch.autograd.grad(second.sum(), x)[0].any()


def test_an_empty_piece_may_come_first():
    attention = layer(trend=True)
    cache = attention.new_cache()
    assert attention(torch.zeros(2, 0, 12), cache=cache).shape == (2, 0, 12)
    x = torch.randn(2, 5, 12)
    assert torch.allclose(attention(x, cache=cache), attention(x), atol=1e-6)


@pytest.mark.parametrize("trend", [False, True])
@pytest.mark.parametrize("shape", [(0, 5, 12), (2, 0, 12)])
def test_empty(shape, trend):
    attention = layer(trend=trend)
    x = torch.zeros(shape, requires_grad=True)
    out = attention(x)
    assert out.shape == shape
    assert torch.autograd.grad(out.sum(), x)[0].shape == shape


def test_half_lives_start_spread():
    attention = layer(width=32, heads=4, trend=True)
    for share in (attention.alpha(), attention.beta()):
        half_life = torch.log(torch.tensor(0.5)) / torch.log1p(-share.double())
        expected = torch.tensor([512 ** (i / 8) for i in (1, 3, 5, 7)])
        assert torch.allclose(half_life.float(), expected, rtol=2e-3)
    assert torch.allclose(attention.phi(), torch.full((4,), 0.9))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_shares_stay_within_their_bounds(dtype):
    attention = layer(heads=3, trend=True).to(dtype)
    for parameter in (attention.level_logit, attention.growth_logit, attention.damping_logit):
        with torch.no_grad():
            parameter.copy_(torch.tensor([-6e4, 0.0, 6e4]))
    for share in (attention.alpha(), attention.beta(), attention.phi()):
        assert share.dtype == torch.float32
        assert ((share > 0) & (share < 1)).all()
    assert attention(torch.randn(2, 50, 12).to(dtype)).isfinite().all()


@pytest.mark.parametrize("trend", [False, True])
def test_every_parameter_learns(trend):
    attention = layer(trend=trend)
    attention(torch.randn(2, 5, 12)).square().sum().backward()
    gradients = {name: p.grad for name, p in attention.named_parameters()}
    expected = {"value.weight", "out.weight", "level", "level_logit"}
    if trend:
        expected |= {"value_before", "growth", "growth_logit", "damping_logit"}
    assert set(gradients) == expected
    assert all((grad != 0).any() for grad in gradients.values())


def test_backend_and_views_reach_the_op(monkeypatch):
    """Without a cache nothing is copied: the op is handed a view of the projection."""
    attention = layer(backend="native").double()
    x = torch.zeros(2, 5, 12, dtype=torch.float64)
    with pytest.raises(BackendUnavailable, match=r"'native' .* float64 is not served"):
        attention(x)
    seen = []
    monkeypatch.setattr(
        module, "exponential_smoothing", lambda values, *_, **__: seen.append(values) or values
    )
    attention(x)
    assert seen[0].shape == (2, 5, 3, 4)
    assert seen[0]._base is not None


def test_dropout_only_in_training():
    attention = layer(dropout=0.5)
    x = torch.randn(1, 50, 12)
    assert 0.3 < (attention(x) == 0).float().mean() < 0.7
    assert (attention.eval()(x) != 0).all()


@pytest.mark.parametrize("trend", [False, True])
def test_autocast_keeps_the_dtype_of_the_projection(trend):
    attention = layer(trend=trend)
    x = torch.randn(2, 20, 12)
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(x)
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), attention(x), atol=0.05)


@pytest.mark.parametrize("trend", [False, True])
def test_compiles_whole(trend):
    attention = layer(trend=trend)
    x = torch.randn(2, 7, 12)
    torch._dynamo.reset()
    compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
    found = compiled(x)
    assert torch.allclose(found, attention(x), atol=1e-6)
    found.sum().backward()
    assert attention.level_logit.grad.abs().max() > 0


@pytest.mark.parametrize("sizes", [(30, 4), (32, 0), (0, 1), (8, 16)])
def test_errors(sizes):
    with pytest.raises(ValueError, match=r"^ExponentialSmoothingAttention: .* multiple of heads"):
        ExponentialSmoothingAttention(*sizes)


@pytest.mark.parametrize("trend", [False, True])
def test_a_cache_serves_one_batch(trend):
    attention = layer(trend=trend)
    cache = attention.new_cache()
    attention(torch.zeros(2, 3, 12), cache=cache)
    with pytest.raises(ValueError, match="1 sequences, and a cache of 2; a new cache"):
        attention(torch.zeros(1, 3, 12), cache=cache)


def test_docstring_names_every_parameter():
    assert undocumented_parameters(ExponentialSmoothingAttention) == []
    assert undocumented_parameters(ExponentialSmoothingAttention.forward) == []
    assert undocumented_parameters(SmoothingState) == []


def test_a_cache_begun_in_inference_mode_goes_on_outside():
    layer, x = ExponentialSmoothingAttention(16, 4), torch.randn(2, 6, 16)
    cache = layer.new_cache()
    with torch.inference_mode():
        first = layer(x[:, :4], cache=cache)
    second = layer(x[:, 4:], cache=cache)
    assert torch.allclose(torch.cat((first, second), 1), layer(x), atol=1e-5)


def test_wrong_input():
    layer = ExponentialSmoothingAttention(16, 4)
    with pytest.raises(TypeError, match="x is a list; a tensor fits"):
        layer([1.0])
    with pytest.raises(ValueError, match=r"x has shape \(5, 16\); \(B, T, 16\) fits"):
        layer(torch.zeros(5, 16))
    with pytest.raises(TypeError, match=r"cache is a str; a .*State from new_cache.. fits"):
        layer(torch.zeros(2, 5, 16), cache="no")


def test_a_cache_of_another_dtype_is_refused():
    layer = ExponentialSmoothingAttention(16, 4)
    cache = layer.new_cache()
    layer(torch.randn(2, 3, 16), cache=cache)
    with pytest.raises(ValueError, match=r"the cache holds torch.float32, this computes in .*64"):
        layer.double()(torch.randn(2, 3, 16, dtype=torch.float64), cache=cache)
