"""The Triton kernels of cosine_attention, compiled for GPUs that need not be there."""

from functools import partial

import torch

from tests.kernels.compiled import CAPABILITIES, check_counts, check_fits, compiled


def launch_both(dtype, D, H=8, G=2, **options):
    from pyseq.kernels.cosine_attention.backward import cosine_attention_backward
    from pyseq.kernels.cosine_attention.forward import cosine_attention_forward

    settings = {"norm": "l2", "gains": False, "rope": True, "causal": True, "window": None}
    settings |= {"prefix": 0} | options
    query = torch.empty(1, H, 256, D, dtype=dtype)
    key, value = torch.empty(2, 1, G, 256, D, dtype=dtype)
    gains = [torch.empty(D)] * 2 if settings["gains"] else [None] * 2
    tables = [torch.empty(256, D // 2)] * 2 if settings["rope"] else [None] * 2
    inputs = (query, key, value, torch.empty(H), *gains, *tables, None)
    mask = (settings["causal"], settings["window"], settings["prefix"])
    out, lse = cosine_attention_forward(*inputs, settings["norm"], 1e-6, *mask, None)
    needs = [True, True, True, True, settings["gains"], settings["gains"]]
    cosine_attention_backward(query, *inputs, out, lse, settings["norm"], 1e-6, *mask, False, needs)


BFLOAT16, FLOAT16, FLOAT32 = torch.bfloat16, torch.float16, torch.float32
LAUNCHES = {
    "bfloat16-64": partial(
        launch_both, BFLOAT16, 64, norm="layer", gains=True, window=90, prefix=4
    ),
    "bfloat16-128": partial(launch_both, BFLOAT16, 128),
    "float16-80": partial(launch_both, FLOAT16, 80, causal=False, norm=None, rope=False),
    "bfloat16-256": partial(launch_both, BFLOAT16, 256, norm="layer", gains=True),
    "float32-64": partial(launch_both, FLOAT32, 64, causal=False, window=90),
    "float32-128": partial(launch_both, FLOAT32, 128),
}
LOOPS = {"cosine_attention_forward_kernel", "key_gradients_kernel", "query_gradients_kernel"}


def test_compiles_for_every_gpu():
    kernels = compiled(__name__)
    assert len(kernels) == len(CAPABILITIES) * len(LAUNCHES) * 5
    for kernel in kernels:
        half = "float32" not in kernel.launch
        check_fits(kernel, tensor_cores=half and kernel.kernel in LOOPS)
        assert kernel.kernel not in LOOPS or len(kernel.loops) >= 2, kernel


def test_counts_are_the_stored_ones():
    check_counts(__name__)
