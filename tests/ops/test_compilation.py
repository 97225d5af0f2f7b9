"""Every op in one graph, at one length after another, as a training with varying lengths has it."""

import pytest
import torch

from pyseq import ops
from pyseq.ops import backends

ANGLES = torch.linspace(0, 3, 200).view(50, 4)
ROPE = (ANGLES.cos(), ANGLES.sin())


def query(T):
    return torch.randn(2, 4, T, 8)


def key(T):
    return torch.randn(2, 2, T, 8)


# For every op: inputs for a length, and what is compiled.
CALLS = {
    "adaptive_attention": (
        lambda T: (query(T), key(T), key(T)),
        lambda q, k, v: ops.adaptive_attention(q, k, v, causal=True),
    ),
    "cosine_attention": (
        lambda T: (query(T), key(T), key(T)),
        lambda q, k, v: ops.cosine_attention(q, k, v, scale=3.0, rope=ROPE, causal=True),
    ),
    "cosine_decode": (
        lambda T: (query(2), key(T + 3), key(T + 3)),
        lambda q, k, v: ops.cosine_decode(q, k, v, scale=3.0, rope=ROPE),
    ),
    "exponential_smoothing": (
        lambda T: (torch.randn(2, T, 4, 8), torch.rand(4), torch.randn(4, 8)),
        ops.exponential_smoothing,
    ),
    "gather_windows": (
        lambda T: (torch.arange(99).to(torch.uint16), torch.arange(T)),
        lambda stream, offsets: ops.gather_windows(stream, offsets, 5),
    ),
    "hard_attention": (
        lambda T: (query(T), key(T), key(T)),
        lambda q, k, v: ops.hard_attention(q, k, v, causal=True),
    ),
    "patch_embed": (
        lambda T: (torch.randn(2, T + 4), torch.randn(3, 4)),
        lambda x, w: ops.patch_embed(x, w, stride=2),
    ),
    "prepare_keys": (lambda T: (key(T),), lambda k: ops.prepare_keys(k, rope=ROPE, position=3)),
    "scale_cross_entropy": (
        lambda T: (torch.randn(2, T, 8), torch.randn(50, 8), torch.randint(50, (2, T))),
        lambda h, w, t: ops.scale_cross_entropy(h, w, t, scales=(1, 5))[0],
    ),
}


def test_every_op_is_here():
    assert set(CALLS) == set(backends.SERVED_BY)


@pytest.mark.parametrize("dynamic", [None, True], ids=["as_it_comes", "dynamic"])
@pytest.mark.parametrize("op", CALLS)
def test_one_length_after_another(op, dynamic):
    inputs, function = CALLS[op]
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for T in (6, 7, 8, 1):
        tensors = inputs(T)
        leaves = [x.requires_grad_() for x in tensors if x.is_floating_point()]
        expected, found = function(*tensors), compiled(*tensors)
        assert torch.allclose(found, expected, atol=1e-5)
        if leaves:
            grads = zip(
                torch.autograd.grad(expected.square().sum(), leaves),
                torch.autograd.grad(found.square().sum(), leaves),
                strict=True,
            )
            assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in grads)
