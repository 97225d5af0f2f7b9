"""The adaptive attention kernels, compiled for GPUs that need not be there."""

from functools import partial

import pytest
import torch

from pyseq.kernels.adaptive_attention import limits
from tests.kernels.compiled import CAPABILITIES, check_counts, check_fits, compiled

PUBLISHED = (-0.037, 0.481, -2.3, 4.917, -1.791)


def launch(D, dtype, causal):
    from pyseq.kernels.adaptive_attention.backward import adaptive_attention_backward
    from pyseq.kernels.adaptive_attention.forward import adaptive_attention_forward

    x = [torch.empty(1, heads, 256, D, dtype=dtype) for heads in (8, 2, 2)]
    options = (D**-0.5, PUBLISHED, causal)
    out, measures = adaptive_attention_forward(*x, *options)
    adaptive_attention_backward(out, *x, measures, *options, (True, True, True))


# One dtype of 16 bits compiles as the other does; float16 and causality are here once each.
LAUNCHES = {
    f"{dtype}-{D}-causal={causal}": partial(launch, D, dtype, causal)
    for D, dtype, causal in (
        (64, torch.bfloat16, True),
        (80, torch.float16, False),
        (128, torch.bfloat16, True),
        (256, torch.bfloat16, True),
        (32, torch.float32, True),
        (128, torch.float32, True),
    )
}
KERNELS = 3


def test_compiles_for_every_gpu():
    kernels = compiled(__name__)
    assert len(kernels) == len(CAPABILITIES) * len(LAUNCHES) * KERNELS
    for kernel in kernels:
        # float32 is not rounded to tf32 unless PyTorch is told to.
        check_fits(kernel, tensor_cores="float32" not in kernel.launch)


def test_main_loops_have_the_stored_counts():
    check_counts(__name__)


@pytest.mark.parametrize(
    ("D", "dtype", "reason"),
    [
        (128, torch.float32, None),
        (256, torch.bfloat16, None),
        (129, torch.float32, "torch.float32 heads of 129 are wider than 128, the kernel's widest"),
        (257, torch.float16, "torch.float16 heads of 257 are wider than 256, the kernel's widest"),
        (200, torch.bfloat16, "heads of 200 are neither 256 wide nor at most 128"),
    ],
)
def test_refusals(D, dtype, reason):
    assert limits.refuse(torch.empty(1, 2, 3, D, dtype=dtype, device="meta")) == reason
