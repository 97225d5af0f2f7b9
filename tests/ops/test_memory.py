"""What the CPU's kernels need beside their inputs, where all scores would be 17 GB a head."""

from functools import partial

import pytest
import torch

from benchmarks.memory import peak_extra_bytes
from pyseq.ops import backends, cosine_attention, hard_attention

T, D = 65536, 64
GIB = 2**30

pytestmark = pytest.mark.skipif(
    backends.refuse_native() is not None, reason="pyseq._core is not built"
)


def peak(op, H, G, dtype):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, T, D, generator=generator).to(dtype) for heads in (H, G, G)
    )
    found = peak_extra_bytes(lambda: op(query, key, value, causal=True, backend="native"))
    if found is None:
        pytest.skip("this system does not tell a process's peak memory")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("op", [partial(cosine_attention, scale=10.0), hard_attention])
def test_one_head_of_65536_queries(op, dtype):
    """The output, the keys and the values as the kernel packs them, little else."""
    assert peak(op, 1, 1, dtype) < GIB / 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_16_heads_of_65536_queries(dtype):
    """A window takes most of the time away, none of the memory."""
    op = partial(cosine_attention, scale=10.0, window=256)
    assert peak(op, 16, 4, dtype) < GIB / 2
