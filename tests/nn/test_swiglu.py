"""SwiGLU against its formula."""

import pytest
import torch

from pyseq.nn import SwiGLU
from tests.correctness import undocumented_parameters


def test_formula_and_gradients():
    layer = SwiGLU(6, 10).double()
    x = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    gate, value = layer.gate_and_value.weight.split(10)
    gated = x @ gate.T
    expected = (gated * torch.sigmoid(gated) * (x @ value.T)) @ layer.out.weight.T
    assert torch.allclose(layer(x), expected)
    assert torch.autograd.gradcheck(layer, x)


def test_the_gate_closes():
    """With the gate at zero nothing passes, whatever the value is: it multiplies."""
    layer = SwiGLU(6, 10)
    with torch.no_grad():
        layer.gate_and_value.weight[:10] = 0
    assert not layer(torch.randn(2, 6)).any()


def test_no_biases():
    shapes = {name: tuple(p.shape) for name, p in SwiGLU(6, 10).named_parameters()}
    assert shapes == {"gate_and_value.weight": (20, 6), "out.weight": (6, 10)}


@pytest.mark.parametrize("sizes", [(0, 4), (4, 0)])
def test_errors(sizes):
    with pytest.raises(ValueError, match=r"^SwiGLU: width .* positive sizes fit"):
        SwiGLU(*sizes)


def test_docstring_names_every_parameter():
    assert undocumented_parameters(SwiGLU) == []
    assert undocumented_parameters(SwiGLU.forward) == []
