"""The Triton patch embedding, compiled for GPUs that need not be there."""

from functools import partial

import pytest
import torch

from pyseq.kernels.patch_embed.limits import LONGEST, refuse
from tests.correctness import place, random
from tests.kernels.compiled import check_counts, check_fits, compiled

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")
split = pytest.importorskip("pyseq.kernels.patch_embed.patches").split


def launch_both(samples_dtype, dtype, C, P, stride, pad_end=False, T=1 << 17):
    from pyseq.kernels.patch_embed.backward import patch_embed_backward
    from pyseq.kernels.patch_embed.forward import patch_embed_forward

    N = (T + (stride if pad_end else 0) - P) // stride + 1
    samples = torch.empty(2, T).to(samples_dtype)
    weight, bias = torch.empty(C, P, dtype=dtype), torch.empty(C, dtype=dtype)
    rows = torch.ones(2)
    patch_embed_forward(samples, weight, bias, rows, rows, N, stride, pad_end)
    grad = torch.empty(2, N, C, dtype=dtype)
    needs = (samples.is_floating_point(), True, True)
    patch_embed_backward(grad, samples, weight, rows, rows, stride, pad_end, needs)


LAUNCHES = {
    "symbols": partial(launch_both, torch.uint16, torch.bfloat16, 512, 16, 16),
    "symbols to float32": partial(launch_both, torch.uint16, torch.float32, 512, 16, 16),
    "overlap": partial(launch_both, torch.float32, torch.bfloat16, 512, 16, 8, True),
    "overlap in float32": partial(launch_both, torch.float32, torch.float32, 512, 33, 8, True),
    "long": partial(launch_both, torch.float16, torch.float16, 80, 100, 50),
}


def test_fits():
    kernels = compiled(__name__)
    for kernel in kernels:
        check_fits(kernel, tensor_cores=False)


def test_products_of_halves_use_tensor_cores():
    for kernel in compiled(__name__):
        products = kernel.kernel != "overlap_add_kernel" and "float32" not in kernel.launch
        assert (kernel.mma > 0) == products, kernel


def test_stored_counts():
    check_counts(__name__)


def test_long_rows_are_refused():
    row = torch.empty(1, device="meta")
    assert refuse(row.expand(1, LONGEST)) is None
    assert refuse(row.expand(1, LONGEST + 1)) == (
        "rows of 1073741825 samples are longer than 1073741824, the kernels' longest"
    )


@triton.jit
def split_kernel(x_ptr, high_ptr, low_ptr, SIZE: tl.constexpr):
    offs = tl.arange(0, SIZE)
    high, low = split(tl.load(x_ptr + offs))
    tl.store(high_ptr + offs, high)
    tl.store(low_ptr + offs, low)


def test_two_halves_lose_nothing_that_tf32_would_lose():
    """tf32 has 10 bits after the leading one."""

    def tf32(x):
        return (x.view(torch.int32) & -(2**13)).view(torch.float32)

    x = (random(1024) * 1e4).float()
    x[:512] = torch.arange(65024, 65536)
    x[-3:] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    there = x.to(place("triton"))
    high, low = torch.empty_like(there), torch.empty_like(there)
    split_kernel[(1,)](there, high, low, SIZE=1024)
    high, low = high.cpu(), low.cpu()
    assert torch.equal(tf32(high)[:-1], high[:-1])
    assert torch.equal((high + low)[:-1], x[:-1])
    assert (high + low)[-1].isnan()
    kept = high.double() + tf32(low).double()
    assert torch.equal(kept[:512], x[:512].double())  # every symbol of 16 bits
    assert ((kept - x).abs() <= 2.0**-21 * x.abs())[:-3].all()
