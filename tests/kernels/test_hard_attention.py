"""The hard_attention kernels compiled for GPUs that need not be there."""

from functools import partial

import pytest
import torch

from pyseq.kernels.hard_attention import limits
from pyseq.ops import hard_attention
from tests.correctness import random, served
from tests.kernels.compiled import CAPABILITIES, check_counts, check_fits, compiled


def tensors(D, dtype):
    query = torch.empty(1, 8, 256, D, dtype=dtype)
    return query, torch.empty(1, 2, 256, D, dtype=dtype), torch.empty(1, 2, 256, D, dtype=dtype)


def forward(D, dtype, causal=True):
    from pyseq.kernels.hard_attention.forward import hard_attention_forward

    hard_attention_forward(*tensors(D, dtype), causal)


def backward(D, dtype, causal=True):
    from pyseq.kernels.hard_attention import backward

    query, key, value = tensors(D, dtype)
    grad = torch.empty_like(query)
    backward.hard_attention_backward_of_choice(grad, query, key, value, 0.1, causal, True, True)


def backward_of_copy(D, dtype):
    from pyseq.kernels.hard_attention import backward

    query, _, value = tensors(D, dtype)
    index = torch.zeros(query.shape[:3], dtype=torch.int64)
    backward.hard_attention_backward_of_copy(query, index, value)


LAUNCHES = {
    f"{direction.__name__}-{str(dtype).removeprefix('torch.')}-{D}": partial(direction, D, dtype)
    for direction, shapes in {
        forward: [(torch.bfloat16, 64), (torch.bfloat16, 128), (torch.bfloat16, 256),
                  (torch.float16, 80), (torch.float32, 128), (torch.float32, 256)],
        backward: [(torch.bfloat16, 64), (torch.bfloat16, 256), (torch.float16, 80),
                   (torch.float32, 128), (torch.float32, 256)],
        backward_of_copy: [(torch.bfloat16, 128), (torch.float32, 256)],
    }.items()
    for dtype, D in shapes
}  # fmt: skip


def test_compiles_for_every_gpu():
    kernels = compiled(__name__)
    assert {k.launch for k in kernels} == set(LAUNCHES)
    assert {k.capability for k in kernels} == set(CAPABILITIES)
    for kernel in kernels:
        products = "value" not in kernel.kernel and "float32" not in kernel.launch
        check_fits(kernel, tensor_cores=products)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_forward_loop_costs_less_than_a_maximum_per_tile(capability):
    """Three instructions for each score: the maximum, what changed, the tile it was found in.

    A maximum and its place in every tile of 64 keys would take 368 instructions at D = 64, on
    compute capability 9.0; the products take as many with either.
    """
    [kernel] = [
        k for k in compiled(__name__)
        if (k.launch, k.capability) == ("forward-bfloat16-64", capability)
    ]  # fmt: skip
    unmasked, masked = kernel.loops
    assert unmasked.instructions < 258
    assert unmasked.instructions < masked.instructions


def test_counts_are_the_stored_ones():
    check_counts(__name__)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((2, 4, 5, 256), None),
        ((2, 4, 5, 257), "heads of 257 are wider than 256, the kernel's widest"),
        ((256, 256, 1, 8), "256 * 256 heads are more than 65535, the most of one launch"),
    ],
)
def test_refusals(shape, reason):
    assert limits.refuse(torch.empty(shape, device="meta")) == reason


def test_the_same_bits_for_any_layout_of_the_gradient():
    """An expanded gradient has strides of 0."""
    query, key, value = (random(1, n, 40, 8, seed=n).float().requires_grad_() for n in (2, 1, 1))
    out = served(hard_attention, "triton")(query, key, value, causal=True)
    ones = torch.ones(()).expand(out.shape)
    found = torch.autograd.grad(out, (query, key, value), ones, retain_graph=True)
    same = torch.autograd.grad(out, (query, key, value), ones.contiguous())
    assert all(map(torch.equal, found, same))
