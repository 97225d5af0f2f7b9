"""FourierAttention: its convolution, its state, and that no rounding of the future reaches back."""

import math

import pytest
import torch
from torch import nn

from pyseq.nn.fourier_attention import FourierAttention, FourierState, mix
from tests.correctness import nan_filled_memory, undocumented_parameters

LENGTHS = [1, 63, 64, 65, 131]
DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def _poisoned_memory():
    with nan_filled_memory():
        yield


def layer(width=6, modes=5, longest=100.0, **options):
    torch.manual_seed(0)
    return FourierAttention(width, modes=modes, longest=longest, **options)


def parts(attention):
    """decay, omega and amplitude of a layer, in float64, as in its docstring."""
    decay = torch.log1p(torch.exp(attention.decay_root.double())) + 2.0**-20
    return decay, attention.omega.double(), attention.amplitude.double()


# Two oracles of the convolution, which share no code with pyseq.


def kernel(decay, omega, amplitude, T):
    """k[j] of every channel, (C, T)."""
    j = torch.arange(T, dtype=DOUBLE)
    wave = amplitude[0, ..., None] * torch.cos(omega[..., None] * j)
    wave = wave + amplitude[1, ..., None] * torch.sin(omega[..., None] * j)
    return (torch.exp(-decay[..., None] * j) * wave).sum(1)


def by_sums(values, decay, omega, amplitude):
    k = kernel(decay, omega, amplitude, values.shape[1])
    rows = []
    for t in range(values.shape[1]):
        rows.append(sum(k[:, t - s] * values[:, s] for s in range(t + 1)))
    return torch.stack(rows, 1)


def by_fft(values, decay, omega, amplitude):
    T = values.shape[1]
    k = kernel(decay, omega, amplitude, T).T
    spectrum = torch.fft.rfft(values, n=2 * T, dim=1) * torch.fft.rfft(k, n=2 * T, dim=0)
    return torch.fft.irfft(spectrum, n=2 * T, dim=1)[:, :T]


def by_formula(attention, x, oracle=by_fft):
    values, gate = (x.double() @ attention.value_and_gate.weight.double().T).chunk(2, -1)
    mixed = oracle(values, *parts(attention))
    return (gate * torch.sigmoid(gate) * mixed) @ attention.out.weight.double().T


@pytest.mark.parametrize("oracle", [by_sums, by_fft])
@pytest.mark.parametrize("T", [*LENGTHS, 200])
def test_mixing_is_the_convolution(T, oracle):
    """Output and all gradients in float64, on both sides of the blocks' borders."""
    attention = layer()
    leaves = [y.detach().requires_grad_() for y in parts(attention)]
    values = torch.randn(2, T, 6, dtype=DOUBLE, requires_grad=True)
    ours, _ = mix(values, *leaves, None)
    theirs = oracle(values, *leaves)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-11)
    grad = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, [values, *leaves], grad),
        torch.autograd.grad(theirs, [values, *leaves], grad),
        strict=True,
    ):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("T", [1, 65, 131])
def test_gradcheck_of_the_mixing(T):
    decay, omega, amplitude = (y.detach()[..., :2, :2] for y in parts(layer()))
    state = torch.randn(1, 2, 2, 2, dtype=DOUBLE)
    values = torch.randn(1, T, 2, dtype=DOUBLE)
    leaves = [y.clone().requires_grad_() for y in (values, decay, omega, amplitude, state)]
    assert torch.autograd.gradcheck(mix, leaves)


@pytest.mark.parametrize("T", [1, 65, 300])
def test_state_is_the_sum_of_damped_turns(T):
    attention = layer()
    decay, omega, amplitude = parts(attention)
    values = torch.randn(2, T, 6, dtype=DOUBLE)
    _, state = mix(values, decay, omega, amplitude, None)
    age = torch.arange(T - 1, -1, -1, dtype=DOUBLE)
    turns = torch.exp(torch.complex(-decay, omega)[..., None] * age)  # (C, M, T)
    expected = torch.einsum("btc,cmt->bcm", values.to(turns.dtype), turns)
    assert state.shape == (2, 6, 5, 2)
    assert torch.allclose(torch.view_as_complex(state.contiguous()), expected, atol=1e-11)


@pytest.mark.parametrize("T", LENGTHS)
def test_formula(T):
    attention = layer()
    x = torch.randn(2, T, 6)
    assert torch.allclose(attention(x).double(), by_formula(attention, x), atol=1e-5)


def test_the_far_past_is_not_lost_to_rounding():
    """Sinusoids that hardly decay, after 50 blocks."""
    attention = layer()
    with torch.no_grad():
        attention.decay_root.fill_(-12.0)
    x = torch.randn(1, 3200, 6)
    exact = by_formula(attention, x)
    assert (attention(x).double() - exact).abs().max() < 1e-4 * exact.abs().max()


def perturbed(attention, x, run):
    before = run(attention, x)
    for t in (0, 61, 62, 63, 64, 126, 127, 128, 129):
        changed = x.clone()
        changed[:, t + 1] += 10.0
        after = run(attention, changed)
        assert torch.equal(before[:, : t + 1], after[:, : t + 1])
        assert not torch.equal(before[:, t + 1], after[:, t + 1])
        assert not torch.equal(before[:, -1], after[:, -1])


def plainly(attention, x):
    return attention(x)


def under_autocast(attention, x):
    with torch.autocast("cpu", torch.bfloat16):
        return attention(x)


@pytest.mark.parametrize("run", [plainly, under_autocast])
@pytest.mark.parametrize("width", [6, 48])
def test_the_future_does_not_matter(width, run):
    perturbed(layer(width), torch.randn(2, 131, width), run)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_future_does_not_matter_to_a_narrow_layer(dtype):
    perturbed(layer().to(dtype), torch.randn(2, 131, 6).to(dtype), plainly)


# Within a block a position meets every later one in a product, with weight 0.
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize("t", [0, 5, 63, 64, 130])
def test_a_bad_position_leaves_the_past_alone(t, bad):
    attention = layer()
    clean = torch.randn(2, 131, 6)
    dirty = clean.clone()
    dirty[1, t, 0] = bad
    before, after = attention(clean), attention(dirty)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1, :t], after[1, :t])
    if abs(bad) != 3e38:
        assert after[1, t:].isnan().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_value_ruins_its_own_channel_from_then_on(bad):
    values = torch.randn(2, 131, 6)
    values[1, 70, 4] = bad
    mixed, state = mix(values, *(y.float() for y in parts(layer())), None)
    ruined = torch.zeros(2, 131, 6, dtype=torch.bool)
    ruined[1, 70:, 4] = True
    assert torch.equal(mixed.isnan(), ruined)
    assert torch.equal(state.isnan().any(-1).any(-1), ruined[:, -1])


def test_a_loss_on_the_past_of_a_bad_value_has_finite_gradients():
    leaves = [y.float().requires_grad_() for y in parts(layer())]
    values = torch.randn(2, 131, 6)
    values[1, 70, 4] = math.nan
    values.requires_grad_()
    mixed, _ = mix(values, *leaves, None)
    for grad in torch.autograd.grad(mixed[:, :70].square().sum(), [values, *leaves]):
        assert grad.isfinite().all()
        assert grad.any()


PIECES = [[1, 5, 64, 0, 1, 61, 8], [140], [65, 75], [1] * 140]


@pytest.mark.parametrize("pieces", PIECES, ids=lambda pieces: f"{len(pieces)} pieces")
def test_pieces_equal_the_whole(pieces):
    attention = layer()
    x = torch.randn(3, 140, 6)
    cache = attention.new_cache()
    found = [attention(piece, cache=cache) for piece in x.split(pieces, 1)]
    assert torch.allclose(torch.cat(found, 1), attention(x), atol=1e-5)
    assert cache.modes.shape == (3, 6, 5, 2)


def test_a_narrow_layer_keeps_its_state_wide():
    attention = layer().bfloat16()
    x = torch.randn(2, 140, 6).bfloat16()
    whole = attention(x)
    cache = attention.new_cache()
    found = torch.cat([attention(piece, cache=cache) for piece in x.split(1, 1)], 1)
    assert found.dtype == torch.bfloat16
    assert cache.modes.dtype == torch.float32
    spacing = torch.finfo(torch.bfloat16).eps * float(whole.detach().abs().max())
    assert (found.float() - whole.float()).abs().max() <= 2 * spacing


def test_a_bad_value_stays_in_the_cache():
    attention = layer()
    cache = attention.new_cache()
    x = torch.randn(2, 3, 6)
    x[1, 2] = math.nan
    attention(x, cache=cache)
    later = attention(torch.randn(2, 70, 6), cache=cache)
    assert later[0].isfinite().all()
    assert later[1].isnan().all()


def test_cache_is_detached_and_its_own():
    attention = layer()
    cache = attention.new_cache()
    assert cache == FourierState()
    x = torch.randn(2, 4, 6, requires_grad=True)
    attention(x, cache=cache)
    assert not cache.modes.requires_grad
    kept = cache.modes.clone()
    attention(x[:, :0], cache=cache)
    attention(x)
    assert torch.equal(cache.modes, kept)
    assert torch.autograd.grad(attention(x, cache=cache).sum(), x)[0].any()


@pytest.mark.parametrize("shape", [(0, 70, 6), (2, 0, 6), (0, 0, 6)])
def test_empty(shape):
    attention = layer()
    x = torch.zeros(shape, requires_grad=True)
    out = attention(x)
    assert out.shape == shape
    assert torch.autograd.grad(out.sum(), x)[0].shape == shape
    cache = attention.new_cache()
    attention(x, cache=cache)
    assert cache.modes.shape == (shape[0], 6, 5, 2)
    assert not cache.modes.any()


def test_start():
    """Fourier frequencies from pi down to 2 pi / longest, and white noise that stays as loud."""
    attention = layer(width=400, modes=11, longest=1024)
    assert attention.omega[0, 0].item() == pytest.approx(math.pi)
    assert attention.omega[7, -1].item() == pytest.approx(2 * math.pi / 1024)
    ratios = attention.omega[:, 1:] / attention.omega[:, :-1]
    assert torch.allclose(ratios, torch.full_like(ratios, 512**-0.1))
    turned = attention.omega / (2 * math.pi)
    assert torch.allclose(attention.decay(), turned, rtol=2e-3)
    mixed, _ = mix(torch.randn(1, 3000, 400), *(y.float() for y in parts(attention)), None)
    assert mixed[:, 2000:].var().item() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_decay_stays_positive(dtype):
    attention = layer().to(dtype)
    with torch.no_grad():
        attention.decay_root[:, 0] = -1e30
        attention.decay_root[:, 1] = 1e30
    assert (attention.decay() > 0).all()
    assert attention.decay().dtype == torch.float32
    assert attention(torch.randn(2, 70, 6).to(dtype)).isfinite().all()


def test_every_parameter_learns():
    attention = layer()
    attention(torch.randn(2, 70, 6)).square().sum().backward()
    gradients = {name: p.grad for name, p in attention.named_parameters()}
    projections = {"value_and_gate.weight", "out.weight"}
    assert set(gradients) == projections | {"omega", "decay_root", "amplitude"}
    assert all((grad != 0).any() for grad in gradients.values())


def test_dropout_only_in_training():
    attention = layer(dropout=0.5)
    x = torch.randn(1, 50, 6)
    assert 0.3 < (attention(x) == 0).float().mean() < 0.7
    assert (attention.eval()(x) != 0).all()


def test_autocast_mixes_in_float32():
    attention = layer()
    nn.init.constant_(attention.out.weight, 1.0)
    x = torch.randn(1, 131, 6)
    with torch.autocast("cpu", torch.bfloat16):
        values, gate = attention.value_and_gate(x).chunk(2, -1)
        mixed = by_fft(values.double(), *parts(attention))
        expected = attention.out(nn.functional.silu(gate) * mixed.bfloat16())
        found = attention(x)
    assert found.dtype == torch.bfloat16
    # Products of rounded numbers agree to a rounding here and there; mixing in bfloat16 would not.
    assert (found != expected).float().mean() < 0.02


def test_compiles_whole():
    attention = layer()
    torch._dynamo.reset()
    compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
    for T in (131, 7):
        attention.zero_grad()
        x = torch.randn(2, T, 6)
        found = compiled(x)
        assert torch.allclose(found, attention(x), atol=1e-6)
        found.sum().backward()
        assert attention.omega.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width 0 and 16 modes; positive numbers fit"),
        ({"width": 4, "modes": 0}, "width 4 and 0 modes"),
        ({"width": 4, "longest": 1.5}, "longest is 1.5; at least 2 steps fit"),
        ({"width": 4, "longest": math.inf}, "longest is inf"),
        ({"width": 4, "longest": math.nan}, "longest is nan"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=f"^FourierAttention: {message}"):
        FourierAttention(**arguments)


def test_a_cache_serves_one_batch():
    attention = layer()
    cache = attention.new_cache()
    attention(torch.zeros(2, 3, 6), cache=cache)
    with pytest.raises(ValueError, match="1 sequences, and a cache of 2; a new cache"):
        attention(torch.zeros(1, 3, 6), cache=cache)


def test_docstring_names_every_parameter():
    assert undocumented_parameters(FourierAttention) == []
    assert undocumented_parameters(FourierAttention.forward) == []
    assert undocumented_parameters(FourierState) == []


def test_a_cache_begun_in_inference_mode_goes_on_outside():
    layer, x = FourierAttention(16), torch.randn(2, 6, 16)
    cache = layer.new_cache()
    with torch.inference_mode():
        first = layer(x[:, :4], cache=cache)
    second = layer(x[:, 4:], cache=cache)
    assert torch.allclose(torch.cat((first, second), 1), layer(x), atol=1e-5)


def test_wrong_input():
    layer = FourierAttention(16)
    with pytest.raises(TypeError, match="x is a list; a tensor fits"):
        layer([1.0])
    with pytest.raises(ValueError, match=r"x has shape \(5, 16\); \(B, T, 16\) fits"):
        layer(torch.zeros(5, 16))
    with pytest.raises(TypeError, match=r"cache is a str; a .*State from new_cache.. fits"):
        layer(torch.zeros(2, 5, 16), cache="no")


def test_a_cache_of_another_dtype_is_refused():
    layer = FourierAttention(16)
    cache = layer.new_cache()
    layer(torch.randn(2, 3, 16), cache=cache)
    with pytest.raises(ValueError, match=r"the cache holds torch.float32, this computes in .*64"):
        layer.double()(torch.randn(2, 3, 16, dtype=torch.float64), cache=cache)


def test_one_graph_serves_many_lengths():
    torch._dynamo.reset()
    compiled = torch.compile(FourierAttention(16), fullgraph=True, backend="eager")
    for T in range(64, 64 * 14, 64):
        assert compiled(torch.zeros(1, T, 16)).shape == (1, T, 16)


def test_shapes_on_the_meta_device():
    layer = FourierAttention(16).to("meta")
    assert layer(torch.empty(2, 70, 16, device="meta")).shape == (2, 70, 16)
