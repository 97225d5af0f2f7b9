"""The Triton prepare_keys, compiled for GPUs that need not be there."""

from functools import partial

import pytest
import torch

from pyseq.kernels.prepare_keys.limits import MOST_ROWS, refuse, rows_of
from tests.kernels.compiled import CAPABILITIES, check_counts, check_fits, compiled

FULL = {"gain": True, "rope": True}


def arguments(dtype, D, norm, gain, rope, heads_last=False):
    key = torch.empty(2, 300, 4, D, dtype=dtype).transpose(1, 2)
    key = key if heads_last else key.contiguous()
    weight = torch.empty(D) if gain else None
    cos, sin = (torch.empty(310, D // 2) for _ in "cs") if rope else (None, None)
    return key, weight, cos, sin, norm, 1e-6, 10


def launch_forward(*case, **options):
    from pyseq.kernels.prepare_keys.forward import prepare_keys_forward

    prepare_keys_forward(*arguments(*case, **options))


def launch_backward(*case, needs=(True, True), **options):
    from pyseq.kernels.prepare_keys.backward import prepare_keys_backward

    x = arguments(*case, **options)
    prepare_keys_backward(torch.empty_like(x[0]), *x, needs)


LAUNCHES = {
    "l2 bfloat16 64": partial(launch_forward, torch.bfloat16, 64, "l2", **FULL),
    "rms bfloat16 128": partial(launch_forward, torch.bfloat16, 128, "rms", **FULL),
    "layer float32 80": partial(launch_forward, torch.float32, 80, "layer", **FULL),
    "rotation float16 256": partial(
        launch_forward, torch.float16, 256, None, gain=False, rope=True, heads_last=True
    ),
    "backward l2 bfloat16 64": partial(launch_backward, torch.bfloat16, 64, "l2", **FULL),
    "backward layer float32 80": partial(launch_backward, torch.float32, 80, "layer", **FULL),
    "backward rms bfloat16 256": partial(
        launch_backward, torch.bfloat16, 256, "rms", **FULL, heads_last=True
    ),
    "backward of the key float16 128": partial(
        launch_backward, torch.float16, 128, "l2", gain=False, rope=True, needs=(True, False)
    ),
}


def test_compiles_for_every_gpu():
    kernels = compiled(__name__)
    assert len(kernels) == len(CAPABILITIES) * len(LAUNCHES)
    for kernel in kernels:
        check_fits(kernel, tensor_cores=False)


def test_instruction_counts():
    check_counts(__name__)


def test_neighbours_in_memory_share_a_program():
    key = torch.empty(2, 3, 5, 8)
    assert rows_of(key, 64)[:4] == (5, 3, 30, False)
    assert rows_of(key.transpose(1, 2), 64)[:4] == (5, 3, 30, True)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((2, 3, 5, 256), None),
        ((2, 3, 5, 257), "rows of 257 features are wider than 256, the kernel's widest"),
        ((MOST_ROWS, 1, 1, 1), None),
        (
            (1, MOST_ROWS + 1, 1, 1),
            f"1 * {MOST_ROWS + 1} * 1 rows are more than {MOST_ROWS}, the most of one launch",
        ),
    ],
)
def test_refusals(shape, reason):
    assert refuse(torch.empty(shape, device="meta")) == reason
