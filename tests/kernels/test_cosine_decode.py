"""The Triton cosine_decode: its splits, and compiled for GPUs that need not be there."""

import math
from functools import partial

import pytest
import torch

from pyseq.kernels.cosine_decode.limits import (
    MOST_SPLITS,
    PROGRAMS,
    refuse,
    splits,
    splits_pay,
    tiles,
)
from pyseq.ops import cosine_decode
from tests.correctness import place, random, served
from tests.kernels.compiled import CAPABILITIES, check_counts, check_fits, compiled
from tests.ops.attention_inputs import angles


def arguments(dtype, D, T=1, H=8, S=1000, bound=None, window=None, prefix=0, ragged=True):
    query, cache = torch.empty(2, H, T, D, dtype=dtype), torch.empty(2, 2, S, D, dtype=dtype)
    lengths = torch.empty(2, dtype=torch.int32) if ragged else None
    tables = [torch.empty(1000, D // 2) for _ in "cs"]
    scale, weight = torch.empty(H), torch.empty(D)
    rest = ("l2", 1e-6, window, prefix, bound)
    return query, cache, cache, scale, weight, lengths, *tables, *rest


def launch_forward(*case, **options):
    from pyseq.kernels.cosine_decode.forward import cosine_decode_forward

    cosine_decode_forward(*arguments(*case, **options))


MULTIPROCESSOR_BYTES = {80: 164 << 10, 90: 228 << 10}  # of shared memory, of 8.0 and 9.0
LAUNCHES = {
    "bfloat16 64 bounded": partial(launch_forward, torch.bfloat16, 64, bound=50.0, ragged=False),
    "bfloat16 128 one split": partial(launch_forward, torch.bfloat16, 128, S=64),
    "bfloat16 128 64 rows": partial(launch_forward, torch.bfloat16, 128, T=16),
    "bfloat16 256 32 rows": partial(launch_forward, torch.bfloat16, 256, T=16),
    "float16 80 window and prefix": partial(
        launch_forward, torch.float16, 80, T=8, window=300, prefix=4
    ),
    "float32 128 32 rows": partial(launch_forward, torch.float32, 128, T=16),
    "float32 256 32 rows": partial(launch_forward, torch.float32, 256, T=16),
}


def test_compiles_for_every_gpu():
    kernels = compiled(__name__)
    combining = [k for k in kernels if k.kernel == "cosine_decode_combine_kernel"]
    assert len(combining) == len(CAPABILITIES) * (len(LAUNCHES) - 1)
    assert len(kernels) == len(combining) + len(CAPABILITIES) * len(LAUNCHES)
    for kernel in kernels:
        in_tensor_cores = kernel not in combining and "float32" not in kernel.launch
        check_fits(kernel, tensor_cores=in_tensor_cores)
        # As many programs as the splits count on find room on a multiprocessor; 1 KiB is CUDA's.
        available = MULTIPROCESSOR_BYTES[kernel.capability]
        assert PROGRAMS * (kernel.shared_bytes + 1024) <= available


def test_instruction_counts():
    check_counts(__name__)


@pytest.mark.parametrize(
    ("window", "prefix", "bound"),
    [(None, 0, None), (None, 3, 9.0), (50, 0, 9.0), (50, 37, None), (2, 5, 9.0)],
)
def test_any_number_of_splits(window, prefix, bound, monkeypatch):
    """Ragged entries shorter than a split, whose share is empty, among them."""
    from pyseq.kernels.cosine_decode import forward

    B, H, T, S, D = 4, 2, 2, 150, 8
    query, key, value = (random(B, n, s, D, seed=s).float() for n, s in ((H, T), (1, S), (1, S)))
    x = {
        "query": query,
        "key_cache": key / key.norm(dim=-1, keepdim=True),
        "value_cache": value.flip(2),
        "scale": torch.linspace(2, 9, H),
        "lengths": torch.tensor([150, 95, 20, 0]),
        "rope": tuple(table.float() for table in angles(S, D)),
    }
    options = {"window": window, "prefix": prefix, "scale_bound": bound}
    exact = cosine_decode(**x, **options, backend="reference")
    for parts in (1, 3, 13):  # of at most ten tiles
        monkeypatch.setattr(forward, "splits", lambda *_, parts=parts: parts)
        out = served(cosine_decode, "triton")(**x, **options)
        torch.testing.assert_close(out, exact, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("bound", [None, 12.0])
@pytest.mark.parametrize("parts", [1, 3])
def test_log_sum_exp(parts, bound, monkeypatch):
    """-inf for a query that sees no key, NaN for one that sees something bad, none for others."""
    from pyseq.kernels.cosine_decode import forward

    monkeypatch.setattr(forward, "splits", lambda *_: parts)
    query, key, value = (random(2, 2, n, 8, seed=n).float() for n in (4, 150, 151))
    value = value[:, :, :150]
    value[0, 1, 148] = math.nan
    lengths = torch.tensor([150, 3], dtype=torch.int32)
    key = key / key.norm(dim=-1, keepdim=True)
    there = [x.to(place("triton")) for x in (query, key, value, torch.tensor(6.0))]
    options = ("l2", 1e-6, None, 0, bound)
    out, lse = forward.cosine_decode_forward(
        *there, None, lengths.to(place("triton")), None, None, *options
    )
    unit = query / query.norm(dim=-1, keepdim=True)
    hidden = torch.arange(150) > lengths[:, None, None] + torch.arange(-4, 0)[:, None]
    logits = 6 * (unit @ key.mT).masked_fill(hidden[:, None], -math.inf)
    expected = logits.logsumexp(-1)
    expected[0, 1, 2:] = math.nan
    torch.testing.assert_close(lse.cpu(), expected, rtol=0, atol=1e-5, equal_nan=True)
    assert torch.equal(out.isnan().any(-1).cpu(), expected.isnan())
    assert torch.equal((out == 0).all(-1).cpu(), expected.isneginf())


def test_many_queries_are_an_ordinary_attention():
    assert splits_pay(16, 64)
    assert splits_pay(64, 1)
    assert not splits_pay(17, 4)
    x = {n: random(1, 2, s, 8, seed=s).float() for n, s in (("query", 70), ("key_cache", 90))}
    x |= {"value_cache": random(1, 2, 90, 8).float(), "lengths": torch.tensor([75])}
    x |= {"scale": 0.5, "norm": None, "window": 20, "prefix": 2}
    expected = cosine_decode(**x, backend="reference")
    torch.testing.assert_close(served(cosine_decode, "triton")(**x), expected)


def test_splits_fill_the_multiprocessors(monkeypatch):
    from pyseq.kernels import launch

    class Query:
        device = torch.device("cuda")

    monkeypatch.setattr(launch, "multiprocessors", lambda _: 132)
    assert splits(Query, 8, 65_536, 64) == 33  # 264 programs in all
    assert splits(Query, 8, 640, 64) == 10  # no split without a tile of keys
    assert splits(Query, 500, 65_536, 64) == 1
    assert splits(Query, 1, 131_072, 64) == MOST_SPLITS


def test_rows_fill_a_tile():
    assert tiles(1, 128, torch.bfloat16, 90).block_r == 16
    assert tiles(17, 128, torch.bfloat16, 90).block_r == 32
    assert tiles(128, 128, torch.bfloat16, 90).block_r == 64


def test_refusals():
    def query(*shape):
        return torch.empty(shape, device="meta")

    assert refuse(query(2, 4, 1, 256)) is None
    assert refuse(query(2, 4, 1, 257)) == "heads of 257 are wider than 256, the kernel's widest"
    assert refuse(query(65_536, 1, 1, 8)) == (
        "65536 * 1 heads are more than 65535, the most of one launch"
    )
