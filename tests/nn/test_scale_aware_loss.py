"""ScaleAwareLoss: what it hands to the op, its scales from numbers of bins, and that it trains."""

import pytest
import torch
from torch import nn

from pyseq.nn.scale_aware_head import ScaleAwareHead
from pyseq.nn.scale_aware_loss import ScaleAwareLoss
from pyseq.ops.scale_cross_entropy import scale_cross_entropy
from tests.correctness import undocumented_parameters


def rows(alphabet=13):
    torch.manual_seed(0)
    return torch.randn(2, 5, 8), torch.randint(0, alphabet, (2, 5))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("make", [ScaleAwareHead, nn.Linear])
def test_it_is_the_ops(make, bias):
    hidden, targets = rows()
    head = make(8, 13, bias=bias)
    if bias:
        nn.init.normal_(head.bias)
    options = {"scale_weights": (1.0, 0.5), "ignore_index": 3, "reduction": "none"}
    options["backend"] = "reference"
    found = ScaleAwareLoss((1, 4), **options)(hidden, head, targets)
    expected = scale_cross_entropy(
        hidden, head.weight, targets, scales=(1, 4), bias=head.bias, **options
    )
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_it_is_the_negative_log_probability_that_the_head_says():
    hidden, targets = rows()
    head = ScaleAwareHead(8, 13, scales=(1, 4), bias=True)
    nn.init.normal_(head.weight)
    _, per_scale = ScaleAwareLoss(head.scales, reduction="none")(hidden, head, targets)
    for scale, loss in zip(head.scales, per_scale, strict=True):
        log_p = head.log_probabilities(hidden, scale)
        expected = -log_p.gather(-1, (targets // scale)[..., None])[..., 0]
        assert torch.allclose(loss, expected, atol=1e-5)


def test_backend_is_handed_on():
    hidden, targets = rows()
    with pytest.raises(ValueError, match="backend is 'cuda'"):
        ScaleAwareLoss(backend="cuda")(hidden, nn.Linear(8, 13), targets)


@pytest.mark.parametrize(
    ("alphabet", "bins", "scales"),
    [
        (65536, (256, 1024, 4096), (1, 256, 64, 16)),
        (10001, (256, 1024, 4096), (1, 40, 10, 3)),
        (1024, (256, 1024, 4096), (1, 4)),
        (1000, (600, 500, 2), (1, 2, 500)),
        (5, (1,), (1, 5)),
        (5, (), (1,)),
    ],
)
def test_scales_from_bins(alphabet, bins, scales):
    loss = ScaleAwareLoss.from_bins(alphabet, bins)
    assert loss.scales == scales
    for width in scales[1:]:
        assert -(-alphabet // width) <= max(bins)


def test_options_beside_bins():
    weights = (1.0, 0.3)
    loss = ScaleAwareLoss.from_bins(1000, [10], scale_weights=weights, ignore_index=7)
    assert (loss.scales, loss.scale_weights, loss.ignore_index) == ((1, 100), weights, 7)
    with pytest.raises(ValueError, match="ScaleAwareLoss: 2 scale_weights for 1 scales"):
        ScaleAwareLoss.from_bins(1000, [2000], scale_weights=weights)


def test_it_learns_the_probabilities_of_symbols_and_bins():
    """From targets alone, 60 % symbol 0 and 40 % symbol 5: bins of 4 tell them apart as well."""
    torch.manual_seed(0)
    head, loss = ScaleAwareHead(1, 7, scales=(4,)), ScaleAwareLoss((1, 4))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.3)
    hidden = torch.ones(10, 1)
    targets = torch.tensor([0] * 6 + [5] * 4, dtype=torch.uint16)
    for _ in range(100):
        total, _ = loss(hidden, head, targets)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    p = head.log_probabilities(hidden[0]).exp()
    assert torch.allclose(p[[0, 5]], torch.tensor([0.6, 0.4]), atol=0.01)
    assert torch.allclose(head.log_probabilities(hidden[0], 4).exp(), p[[0, 5]], atol=0.01)


def test_compiles_whole():
    hidden, targets = rows()
    head, loss = ScaleAwareHead(8, 13), ScaleAwareLoss((1, 4))
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found, _ = compiled(hidden, head, targets)
    expected, _ = loss(hidden, head, targets)
    assert torch.allclose(found, expected)
    [grad] = torch.autograd.grad(found, head.weight)
    assert torch.allclose(grad, torch.autograd.grad(expected, head.weight)[0])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (((),), {}, ValueError, "no scales; at least one fits"),
        ((3,), {}, TypeError, "scales is a int; a tuple of ints fits"),
        (((1, 2),), {"scale_weights": (1.0,)}, ValueError, "1 scale_weights for 2 scales"),
        (((1,),), {"reduction": "avg"}, ValueError, "reduction is 'avg'"),
        (((1,),), {"ignore_index": "x"}, TypeError, "ignore_index is a str"),
    ],
)
def test_errors(arguments, options, error, message):
    with pytest.raises(error, match=f"^ScaleAwareLoss: {message}"):
        ScaleAwareLoss(*arguments, **options)


@pytest.mark.parametrize(("alphabet", "bins"), [(0, (4,)), (10, (4, 0)), (10, (-1,))])
def test_errors_of_bins(alphabet, bins):
    with pytest.raises(ValueError, match=r"^ScaleAwareLoss: alphabet .* bins; positive numbers"):
        ScaleAwareLoss.from_bins(alphabet, bins)


def test_head_is_a_linear_layer():
    hidden, targets = rows()
    with pytest.raises(TypeError, match=r"^ScaleAwareLoss: head is a Tensor; a Linear fits"):
        ScaleAwareLoss()(hidden, torch.randn(13, 8), targets)


def test_docstring_names_every_parameter():
    for public in (ScaleAwareLoss, ScaleAwareLoss.forward, ScaleAwareLoss.from_bins):
        assert undocumented_parameters(public) == []
