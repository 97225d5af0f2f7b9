"""PatchEmbedding: its formula, its normalisation and back, and what it knows of the future."""

import math

import pytest
import torch

from pyseq.nn.patch_embedding import PatchEmbedding, Patches
from pyseq.ops import BackendUnavailable
from tests.correctness import undocumented_parameters

DOUBLE = torch.float64


def layer(patch=8, width=5, **options):
    torch.manual_seed(0)
    return PatchEmbedding(patch, width, **options)


def words(B=3, T=61, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 65536, (B, T), generator=generator).to(torch.uint16)


def moments(samples):
    """Mean and root of variance + 1e-5, in float64."""
    x = samples.double()
    mean = x.sum(1) / x.shape[1]
    variance = ((x - mean[:, None]) ** 2).sum(1) / x.shape[1]
    return mean, torch.sqrt(variance + 1e-5)


@pytest.mark.parametrize("pad_end", [False, True])
@pytest.mark.parametrize("stride", [None, 8, 3])
def test_formula_with_constants(stride, pad_end):
    embed = layer(stride=stride, center=32768.0, spread=10000.0, pad_end=pad_end)
    samples = words()
    x = (samples.float() - 32768) / 10000
    if pad_end:
        x = torch.nn.functional.pad(x[:, None], (0, stride or 8), mode="replicate")[:, 0]
    patches = embed(samples)
    expected = embed.projection(x.unfold(1, 8, stride or 8))
    assert torch.allclose(patches.embeddings, expected, atol=1e-5)
    assert patches.center.tolist() == [32768.0] * 3
    assert patches.spread.tolist() == [10000.0] * 3
    assert patches.center.dtype == patches.spread.dtype == torch.float32


@pytest.mark.parametrize("kind", [torch.uint16, torch.int16, torch.float32, torch.float16])
@pytest.mark.parametrize("weight", [torch.float32, torch.bfloat16, torch.float16])
def test_formula_with_its_own_moments(weight, kind):
    samples = words(T=500) if kind == torch.uint16 else (words(T=500).int() - 32768).to(kind)
    embed = layer(normalise=True).to(weight)
    patches = embed(samples)
    mean, deviation = moments(samples)
    assert patches.center.dtype == patches.spread.dtype == torch.float32
    assert torch.allclose(patches.center.double(), mean, rtol=1e-6, atol=5e-3)
    assert torch.allclose(patches.spread.double(), deviation, rtol=1e-6)
    x = (samples.double() - mean[:, None]) / deviation[:, None]
    expected = embed.double().projection(x.unfold(1, 8, 8))
    assert patches.embeddings.dtype == weight
    allowed = 4 * torch.finfo(weight).eps + 1e-6
    assert torch.allclose(patches.embeddings.double(), expected, rtol=allowed, atol=allowed)


def test_squares_beyond_float16():
    """Deviations of 30,000 are in float16's range, their squares are not."""
    samples = torch.tensor([[-30000.0, 30000.0] * 8]).half()
    patches = layer(normalise=True)(samples)
    assert patches.center.tolist() == [0.0]
    assert torch.allclose(patches.spread, torch.tensor([30000.0]), rtol=1e-6)


def test_float64_stays_float64():
    """A level that float32 rounds by up to 32 beside deviations of 1."""
    samples = 1e9 + torch.randn(2, 64, dtype=DOUBLE)
    patches = layer(normalise=True)(samples)
    assert patches.center.dtype == DOUBLE
    mean, deviation = moments(samples)
    assert torch.allclose(patches.center, mean, rtol=0, atol=1e-5)
    assert torch.allclose(patches.spread, deviation, rtol=1e-5)
    assert patches.embeddings.dtype == torch.float32
    normalised = (samples - mean[:, None]) / deviation[:, None]
    assert torch.allclose(PatchEmbedding.undo(normalised, patches), samples, rtol=0, atol=1e-4)


# A mean that is a sum divided by T misses some of these by more than sqrt(eps).
@pytest.mark.parametrize("T", [8, 1000, 65537])
@pytest.mark.parametrize("value", [0.0, 0.1, 40001.7, -33333.3, 65535.0, 3e7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.uint16])
def test_a_constant_row_gives_the_bias(dtype, value, T):
    if dtype == torch.uint16 and not 0 <= value < 65536:
        value = 40001.0
    if dtype == torch.float16:
        value = math.copysign(min(abs(value), 65504.0), value)
    samples = torch.full((2, T), value).to(dtype)
    embed = layer(normalise=True)
    patches = embed(samples)
    assert torch.equal(patches.embeddings, embed.projection.bias.expand(2, T // 8, 5))
    assert torch.equal(patches.center, samples[:, 0].float())
    assert torch.equal(patches.spread, torch.full((2,), 1e-5).sqrt())


def test_level_and_unit_of_a_series_do_not_matter():
    samples = torch.randn(4, 64)
    embed = layer(normalise=True, stride=4)
    moved = embed(samples * 700.0 - 3000.0)
    assert torch.allclose(embed(samples).embeddings, moved.embeddings, atol=1e-3)


def test_eps_keeps_a_small_series_small():
    samples = torch.tensor([[-1e-3, 1e-3] * 4])
    assert torch.allclose(layer(normalise=True, eps=1.0)(samples).spread, torch.ones(1))
    assert torch.allclose(
        layer(normalise=True, eps=1e-12)(samples).spread, torch.tensor(1e-3), rtol=1e-3
    )


@pytest.mark.parametrize(
    "options", [{"normalise": True}, {"center": 32768.0, "spread": 9000.0}, {}]
)
def test_undo_is_the_inverse(options):
    samples = words()
    patches = layer(**options)(samples)
    center, spread = patches.center[:, None], patches.spread[:, None]
    normalised = (samples.float() - center) / spread
    found = PatchEmbedding.undo(normalised, patches)
    assert torch.equal(found.round(), samples.float())


@pytest.mark.parametrize("shape", [(3,), (3, 7), (3, 7, 2), (3, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_undo_of_any_shape(dtype, shape):
    patches = Patches(torch.zeros(3, 1, 1), torch.tensor([40001.0, 65535.0, 0.0]), torch.ones(3))
    found = layer().undo(torch.zeros(shape, dtype=dtype), patches)
    assert found.shape == shape
    assert found.dtype == torch.float32
    expected = patches.center.view(3, *[1] * (len(shape) - 1)).expand(shape)
    assert torch.equal(found, expected)


def test_undo_passes_gradients():
    patches = Patches(torch.zeros(2, 1, 1), torch.zeros(2), torch.tensor([2.0, 3.0]))
    x = torch.randn(2, 4, requires_grad=True)
    PatchEmbedding.undo(x, patches).sum().backward()
    assert torch.equal(x.grad, torch.tensor([[2.0] * 4, [3.0] * 4]))


def changed_patches(embed, samples, t):
    """Which patches' embeddings are not bit-equal after one sample has changed."""
    moved = samples.clone()
    moved[:, t] += 1.0
    return (embed(samples).embeddings != embed(moved).embeddings).any(-1).any(0)


@pytest.mark.parametrize("pad_end", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"causal": True},
        {"causal": True, "center": 0.3, "spread": 2.0},
        {"stride": 8},
        {"stride": 5},
        {"stride": 1},
    ],
)
def test_a_patch_knows_no_later_sample(options, pad_end):
    embed = layer(pad_end=pad_end, **options)
    samples = torch.randn(2, 61)
    stride = embed.stride
    for t in range(61):
        changed = changed_patches(embed, samples, t)
        ends = torch.arange(embed.count(61)) * stride + 7
        assert not changed[ends < t].any()
        holds = (ends >= t) & (ends - 7 <= t)
        assert changed[holds].all()
        assert t == 60 or torch.equal(changed, holds)  # the last sample has copies


def test_a_causal_patch_knows_nothing_of_the_next():
    embed = layer(causal=True, pad_end=True)
    samples = torch.randn(2, 61)
    for t in range(61):
        assert not changed_patches(embed, samples, t)[: t // 8].any()


@pytest.mark.parametrize("stride", [8, 3])
def test_a_normalised_patch_does_know_later_samples(stride):
    """The property above is not vacuous, and the refusal below not idle."""
    embed = layer(normalise=True, stride=stride)
    assert changed_patches(embed, torch.randn(2, 61), 60).all()


def test_an_overlapping_patch_holds_samples_of_the_next():
    embed = layer(stride=7)
    assert changed_patches(embed, torch.randn(2, 61), 7)[:2].all()  # patch 1 starts at sample 7


@pytest.mark.parametrize("pad_end", [False, True])
def test_samples_left_over(pad_end):
    changed = changed_patches(layer(pad_end=pad_end), torch.randn(2, 61), 59)
    assert changed.tolist() == [False] * 7 + [True] * pad_end


@pytest.mark.parametrize(
    ("T", "patch", "stride", "pad_end", "N"),
    [(336, 16, 8, True, 42), (512, 16, 8, True, 64), (61, 8, None, False, 7), (8, 8, 3, False, 1)],
)
def test_count(T, patch, stride, pad_end, N):
    embed = layer(patch, stride=stride, pad_end=pad_end)
    assert embed.count(T) == N
    assert embed(torch.zeros(1, T)).embeddings.shape == (1, N, 5)


def test_starts_as_a_linear_layer():
    torch.manual_seed(3)
    linear = torch.nn.Linear(16, 32)
    torch.manual_seed(3)
    parameters = dict(PatchEmbedding(16, 32).named_parameters())
    assert set(parameters) == {"projection.weight", "projection.bias"}
    assert torch.equal(parameters["projection.weight"], linear.weight)
    assert torch.equal(parameters["projection.bias"], linear.bias)


def test_without_bias():
    embed = layer(bias=False, normalise=True)
    assert [name for name, _ in embed.named_parameters()] == ["projection.weight"]
    assert not embed(torch.full((2, 16), 7.0)).embeddings.any()


@pytest.mark.parametrize("normalise", [False, True])
def test_every_parameter_learns(normalise):
    embed = layer(normalise=normalise, spread=1.0 if normalise else 1e4, stride=3)
    embed(words()).embeddings.square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.all() for p in embed.parameters())


def test_moments_are_constants_in_the_gradient():
    """d embeddings / d samples is weight / spread, where each sample is in one patch."""
    embed = layer(normalise=True)
    samples = torch.randn(2, 16, requires_grad=True)
    patches = embed(samples)
    assert not patches.center.requires_grad
    assert not patches.spread.requires_grad
    (grad,) = torch.autograd.grad(patches.embeddings.sum(), samples)
    expected = embed.projection.weight.sum(0).repeat(2) / patches.spread[:, None]
    assert torch.allclose(grad, expected, atol=1e-6)


@pytest.mark.parametrize("normalise", [False, True])
def test_nan_stays_in_its_series(normalise):
    embed = layer(normalise=normalise)
    samples = torch.randn(3, 24)
    samples[1, 10] = math.nan
    bad = embed(samples).embeddings.isnan().all(-1)
    expected = torch.zeros(3, 3, dtype=torch.bool)
    expected[1, slice(None) if normalise else 1] = True
    assert torch.equal(bad, expected)


@pytest.mark.parametrize("normalise", [False, True])
def test_empty_batch(normalise):
    patches = layer(normalise=normalise, stride=4)(torch.zeros(0, 24))
    assert [x.shape for x in patches] == [(0, 5, 5), (0,), (0,)]
    assert PatchEmbedding.undo(torch.zeros(0, 9), patches).shape == (0, 9)


def test_autocast_does_not_reach_the_moments():
    embed = layer(normalise=True)
    samples = words()
    expected = embed(samples)
    with torch.autocast("cpu", torch.bfloat16):
        found = embed(samples)
    assert all(map(torch.equal, expected, found))


@pytest.mark.parametrize("normalise", [False, True])
def test_compiles_whole(normalise):
    embed = layer(normalise=normalise, stride=4, pad_end=True)
    torch._dynamo.reset()
    compiled = torch.compile(embed, fullgraph=True, backend="aot_eager")
    for T in (61, 64, 67):  # from the second length on, lengths are symbols
        found, expected = compiled(words(T=T)), embed(words(T=T))
        assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(found, expected, strict=True))
    found.embeddings.sum().backward()
    assert embed.projection.weight.grad.abs().max() > 0


def test_backend_is_passed_on():
    with pytest.raises(BackendUnavailable, match="'native' cannot serve this call: float64"):
        layer(backend="native")(torch.zeros(1, 8, dtype=torch.float64))


def test_print_shows_the_options():
    assert "8, 5, stride=4, normalise=True, eps=1e-05" in repr(layer(stride=4, normalise=True))
    assert "center=2.0, spread=3.0" in repr(layer(center=2.0, spread=3.0, causal=True))
    assert "pad_end=False, causal=True" in repr(layer(causal=True))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"patch": 0}, ValueError, "patch 0 and width 5; positive sizes fit"),
        ({"width": 0}, ValueError, "patch 8 and width 0; positive sizes fit"),
        ({"stride": 9}, ValueError, "stride is 9; at most the length of a patch, 8, fits"),
        ({"stride": 0}, ValueError, "stride is 0; at least 1 fits"),
        ({"stride": 2.0}, TypeError, "stride is a float; an int fits"),
        ({"eps": 0.0}, ValueError, "eps is 0.0; a positive .*, 1.18e-38 to"),
        ({"center": math.inf}, ValueError, "center is inf; a finite number of float32 fits"),
        ({"center": "0"}, TypeError, "center is a str; a float fits"),
        ({"spread": 0.0}, ValueError, "spread is 0.0; a positive .*, 1.18e-38 to"),
        (
            {"normalise": True, "center": 1.0},
            ValueError,
            "center 1.0 and spread 1.0 with normalise=True, which measures both; one or",
        ),
        ({"normalise": True, "spread": 2.0}, ValueError, "center 0.0 and spread 2.0 with norm"),
        (
            {"causal": True, "normalise": True},
            ValueError,
            "causal=True with normalise=True; the mean over a window knows its end",
        ),
        (
            {"causal": True, "stride": 4},
            ValueError,
            "causal=True with stride 4 and patch 8; patch n would hold the first samples of"
            r" patch n \+ 1, which it is to predict; stride == patch fits",
        ),
    ],
)
def test_errors_of_the_constructor(options, error, message):
    with pytest.raises(error, match=f"^PatchEmbedding: {message}"):
        layer(**options)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        ([[1.0]], TypeError, "samples is a list; a tensor fits"),
        (torch.zeros(2, 8).long(), TypeError, "samples is torch.int64; uint16, int16, float32"),
        (torch.zeros(8), ValueError, r"samples have 1 dimensions; \(B, T\) fits"),
        (torch.zeros(2, 7), ValueError, "7 samples make no patch of 8; at least 8 samples fit"),
        (torch.zeros(2, 0), ValueError, "0 samples make no patch of 8"),
    ],
)
def test_errors_of_the_samples(samples, error, message, normalise):
    with pytest.raises(error, match=f"^PatchEmbedding: {message}"):
        layer(normalise=normalise)(samples)


def test_errors_of_count_and_undo():
    with pytest.raises(ValueError, match=r"^PatchEmbedding: 7 samples make no patch of 8"):
        layer(pad_end=True).count(7)
    patches = layer()(torch.zeros(2, 8))
    for shape in ((), (3,), (1, 2)):
        with pytest.raises(ValueError, match=r"^PatchEmbedding: x has shape .*; \(2, \.\.\.\), as"):
            PatchEmbedding.undo(torch.zeros(shape), patches)


def test_docstrings_name_every_parameter():
    for public in (
        Patches,
        PatchEmbedding,
        PatchEmbedding.forward,
        PatchEmbedding.count,
        PatchEmbedding.undo,
    ):
        assert undocumented_parameters(public) == []
