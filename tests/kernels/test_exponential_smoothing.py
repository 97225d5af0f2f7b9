"""The Triton exponential smoothing, compiled for GPUs that need not be there."""

from functools import partial

import pytest
import torch

from pyseq.kernels.exponential_smoothing import limits
from tests.kernels.compiled import check_counts, check_fits, compiled


def launch_both(dtype, T, H, D, needs=(True, True, True)):
    from pyseq.kernels.exponential_smoothing.backward import exponential_smoothing_backward
    from pyseq.kernels.exponential_smoothing.forward import exponential_smoothing_forward

    values = torch.empty(1, T, H, D, dtype=dtype)
    alpha, initial = torch.empty(H), torch.empty(H, D)
    exponential_smoothing_forward(values, alpha, initial)
    exponential_smoothing_backward(torch.empty_like(values), values, alpha, initial, needs)


LAUNCHES = {
    "bfloat16": partial(launch_both, torch.bfloat16, 4096, 16, 64),
    "float32": partial(launch_both, torch.float32, 4096, 8, 128),
    "one chunk": partial(launch_both, torch.bfloat16, 64, 16, 64),
    "odd heads": partial(launch_both, torch.float16, 4096, 5, 33),
    "long chunks": partial(launch_both, torch.float32, 65536, 2, 256, (True, False, True)),
}


def test_fits():
    kernels = compiled(__name__)
    for kernel in kernels:
        check_fits(kernel, tensor_cores=False)


def test_stored_counts():
    check_counts(__name__)


@pytest.mark.parametrize("T", [1, 64, 8192, 8193, 1 << 20, (1 << 31) - 1])
def test_chunks_are_as_long_as_there_are_many(T):
    steps = limits.chunk(T)
    assert steps & (steps - 1) == 0
    assert steps == limits.SHORTEST_CHUNK or steps**2 <= T * 2 <= 4 * steps**2
