"""ScaleAwareHead: a linear layer, and the probabilities of bins against loops."""

import math

import pytest
import torch
from torch import nn

from pyseq.nn.scale_aware_head import ScaleAwareHead
from tests.correctness import undocumented_parameters


def head(alphabet=13, **options):
    torch.manual_seed(0)
    made = ScaleAwareHead(8, alphabet, **options)
    with torch.no_grad():
        made.weight.mul_(50)  # far from uniform
    return made


@pytest.mark.parametrize("bias", [False, True])
def test_logits_are_a_linear_layers(bias):
    made = head(bias=bias).double()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    if bias:
        nn.init.normal_(made.bias)
    expected = x @ made.weight.T + (made.bias if bias else 0)
    assert torch.allclose(made(x), expected, rtol=1e-12)


def test_parameters_are_those_of_a_linear_layer():
    for bias in (False, True):
        plain = nn.Linear(8, 13, bias=bias)
        plain.load_state_dict(ScaleAwareHead(8, 13, bias=bias).state_dict(), strict=True)
    assert ScaleAwareHead(8, 13).bias is None


def test_start():
    torch.manual_seed(0)
    made = ScaleAwareHead(64, 500, bias=True)
    assert abs(float(made.weight.detach().mean())) < 1e-3
    assert float(made.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert not made.bias.any()


@pytest.mark.parametrize("scale", [1, 2, 5, 13, 20])
@pytest.mark.parametrize("alphabet", [1, 12, 13])
def test_log_probabilities_of_bins(alphabet, scale):
    made = head(alphabet, scales=(2, 5, 13, 20), bias=True)
    x = torch.randn(3, 4, 8)
    found = made.log_probabilities(x, scale)
    assert found.shape == (3, 4, math.ceil(alphabet / scale))
    assert found.dtype == torch.float32
    p = torch.softmax(made(x).double(), -1)
    for b in range(found.shape[-1]):
        mass = sum(p[..., i] for i in range(alphabet) if i // scale == b)
        assert torch.allclose(found[..., b].double(), mass.log(), atol=1e-5)
    assert torch.allclose(found.exp().sum(-1), torch.ones(3, 4), atol=1e-5)


def test_log_probabilities_far_below_the_largest():
    """A bin whose probability is 0 in float32 keeps its logarithm."""
    made = head(6, scales=(2,))
    with torch.no_grad():
        made.weight.zero_()[:, 0] = torch.tensor([1e4, 0, -1e4, -1e4, 0, 0])
    found = made.log_probabilities(torch.eye(8)[0], 2)
    expected = torch.tensor([0, math.log(2) - 2e4, math.log(2) - 1e4])
    assert torch.allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "wide"), [(torch.bfloat16, torch.float32), (torch.float64,) * 2])
def test_dtypes(dtype, wide):
    made = head(scales=(1, 4)).to(dtype)
    x = torch.randn(3, 8, dtype=dtype)
    assert made(x).dtype == dtype
    assert made.log_probabilities(x, 4).dtype == wide
    with torch.autocast("cpu", torch.bfloat16):
        assert head().log_probabilities(x.float()).dtype == torch.float32


def test_log_probabilities_have_gradients():
    made = head(scales=(4,), bias=True).double()
    x = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: made.log_probabilities(x, 4), x)


def test_only_its_scales():
    made = head(scales=(4, 6))
    x = torch.randn(2, 8)
    assert made.scales == (4, 6)
    assert made.log_probabilities(x).shape == (2, 13)
    with pytest.raises(ValueError, match=r"^ScaleAwareHead: scale is 3; 1 or one of \(4, 6\) fits"):
        made.log_probabilities(x, 3)


def test_compiles_whole():
    made = head(scales=(4,))
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: made.log_probabilities(x, 4), fullgraph=True, backend="aot_eager"
    )
    x = torch.randn(3, 8)
    assert torch.allclose(compiled(x), made.log_probabilities(x, 4))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((0, 4), {}, ValueError, "width 0 and alphabet 4; positive sizes fit"),
        ((4, 0), {}, ValueError, "width 4 and alphabet 0; positive sizes fit"),
        ((4, 4), {"scales": ()}, ValueError, "no scales; at least one fits"),
        ((4, 4), {"scales": (0,)}, ValueError, "a scale is 0; at least 1 fits"),
        ((4, 4), {"scales": 2}, TypeError, "scales is a int; a tuple of ints fits"),
    ],
)
def test_errors(arguments, options, error, message):
    with pytest.raises(error, match=f"^ScaleAwareHead: {message}"):
        ScaleAwareHead(*arguments, **options)


def test_docstring_names_every_parameter():
    for public in (ScaleAwareHead, ScaleAwareHead.forward, ScaleAwareHead.log_probabilities):
        assert undocumented_parameters(public) == []
