"""The Triton kernels of cosine_attention, compiled for GPUs that need not be there."""

import itertools
import math
from functools import partial

import pytest
import torch

from pyseq.kernels.cosine_attention.limits import fixed_offset, logit_bound
from tests.kernels.compiled import CAPABILITIES, check_counts, check_fits, compiled


def launch_forward(dtype, D, bound, norm="l2", rope=True):
    from pyseq.kernels.cosine_attention.forward import cosine_attention_forward

    query, key = torch.empty(1, 8, 256, D, dtype=dtype), torch.empty(1, 2, 256, D, dtype=dtype)
    tables = [torch.empty(256, D // 2)] * 2 if rope else [None] * 2
    cosine_attention_forward(
        query, key, key, torch.empty(8), None, None, *tables, None, norm, 1e-6, True, None, 0, bound
    )


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
    **{
        f"{design}-{logits}-{D}": partial(launch_forward, BFLOAT16, D, bound, *options)
        for D in (64, 128)
        for logits, bound in (("bounded", 50.0), ("online", None))
        for design, options in (("fused", ()), ("prepared", (None, False)))
    },
}
FORWARD_ONLY = 8
LOOPS = {"cosine_attention_forward_kernel", "key_gradients_kernel", "query_gradients_kernel"}


def test_compiles_for_every_gpu():
    kernels = compiled(__name__)
    both = len(LAUNCHES) - FORWARD_ONLY
    assert len(kernels) == len(CAPABILITIES) * (both * 5 + FORWARD_ONLY)
    for kernel in kernels:
        half = "float32" not in kernel.launch
        check_fits(kernel, tensor_cores=half and kernel.kernel in LOOPS)
        assert kernel.kernel not in LOOPS or kernel.loops, kernel


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("D", [64, 128])
def test_what_a_bound_and_a_prepared_row_save(D, capability):
    """A known bound takes the running maximum out of the main loop, prepared rows the norm."""
    main = {
        k.launch: k.loops[0].instructions
        for k in compiled(__name__)
        if k.capability == capability and k.launch.count("-") == 2
    }
    assert main[f"prepared-bounded-{D}"] < 0.8 * main[f"prepared-online-{D}"]
    assert main[f"fused-bounded-{D}"] < 0.9 * main[f"fused-online-{D}"]
    assert main[f"prepared-bounded-{D}"] < 0.8 * main[f"fused-bounded-{D}"]


def test_offset_of_bounded_logits():
    """All terms are normal numbers and their sums fit, or there is no offset."""
    for S, dtype in itertools.product([1, 4096, 1 << 20], [BFLOAT16, FLOAT16, FLOAT32]):
        found = {bound: fixed_offset(bound, S, dtype) for bound in (0.1, 9.0, 9.7, 40, 60, 66, 90)}
        for bound, offset in found.items():
            if offset is not None:
                assert S * math.exp(bound - offset) * 5e10 < torch.finfo(torch.float32).max
                assert math.exp(-bound - offset) > torch.finfo(torch.float32).tiny
                low, high = (math.exp(x - offset) for x in (-bound, bound))
                assert dtype != FLOAT16 or (low > 6e-5 and high < torch.finfo(FLOAT16).max)
        assert found[9.0] == 0
        assert found[90] is None
        assert fixed_offset(None, S, dtype) is None
    assert fixed_offset(50.0, 4096, FLOAT16) is None
    assert fixed_offset(62.0, 4096, FLOAT32) == pytest.approx(62 + math.log(4096) - 64)


@pytest.mark.parametrize(
    ("norm", "bound"), [("l2", 50), (None, 50), ("rms", 3200), ("layer", 3200)]
)
def test_bound_of_logits(norm, bound):
    assert logit_bound(50, norm, 64) == bound
    assert logit_bound(None, norm, 64) is None


def test_counts_are_the_stored_ones():
    check_counts(__name__)
