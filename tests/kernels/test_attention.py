"""The key ranges of the attention kernels against who sees whom."""

import itertools

import pytest
import torch
import triton
import triton.language as tl

from pyseq.kernels.attention import key_range, sees_a_key
from tests.correctness import place, sees

BLOCK = 4


@triton.jit
def ranges_kernel(
    out_ptr, cases_ptr, CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_PREFIX: tl.constexpr,
    BLOCK_S: tl.constexpr,
):  # fmt: skip
    """One program a row of (first, last, keys, window, prefix) -> four bounds and who sees."""
    row = tl.program_id(0)
    first = tl.load(cases_ptr + 5 * row)
    last = tl.load(cases_ptr + 5 * row + 1)
    keys = tl.load(cases_ptr + 5 * row + 2)
    window = tl.load(cases_ptr + 5 * row + 3)
    prefix = tl.load(cases_ptr + 5 * row + 4)
    start, full, rest, stop = key_range(
        first, last, keys, window, prefix, CAUSAL, HAS_WINDOW, HAS_PREFIX, BLOCK_S
    )
    tl.store(out_ptr + 5 * row, start)
    tl.store(out_ptr + 5 * row + 1, full)
    tl.store(out_ptr + 5 * row + 2, rest)
    tl.store(out_ptr + 5 * row + 3, stop)
    position = first + tl.arange(0, 1)
    seeing = sees_a_key(position, keys, window, prefix, CAUSAL, HAS_WINDOW, HAS_PREFIX)
    tl.store(out_ptr + 5 * row + 4 + tl.arange(0, 1), seeing.to(tl.int32))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("has_window", [False, True])
@pytest.mark.parametrize("has_prefix", [False, True])
def test_every_seen_key_is_looked_at_once(causal, has_window, has_prefix):
    """And where no mask is applied, every query of the tile sees every key."""
    cases = [
        (t + S - T, min(t + BLOCK, T) - 1 + S - T, S, window, prefix)
        for T, S in itertools.product([1, 3, 6, 9], [0, 1, 5, 8, 13])
        for t in range(0, T, BLOCK)
        for window in ([1, 2, 5, 40] if has_window else [0])
        for prefix in ([1, 3, 6, 20] if has_prefix else [0])
    ]
    device = place("triton")
    given = torch.tensor(cases, dtype=torch.int32, device=device)
    out = torch.full((len(cases), 5), -1, dtype=torch.int32, device=device)
    ranges_kernel[(len(cases),)](out, given, causal, has_window, has_prefix, BLOCK)
    for case, found in zip(cases, out.tolist(), strict=True):
        first, last, S, window, prefix = case
        start, full, rest, stop, seeing = found
        assert start <= full <= rest <= max(stop, rest)
        assert start % BLOCK == full % BLOCK == rest % BLOCK == 0
        looked_at = list(range(full, rest))
        for a, b in ((0, min(start, prefix)), (start, full), (rest, stop)):
            if (a, b) != (start, full) or has_window:
                looked_at += [s for s in range(a, -(-b // BLOCK) * BLOCK) if b > a]
        assert len(set(looked_at)) == len(looked_at), case
        mask = window if has_window else None
        for position in range(first, last + 1):
            seen = [s for s in range(S) if sees(position, s, S, S, causal, mask, prefix)]
            assert set(seen) <= set(looked_at), (case, found)
            assert set(range(full, rest)) <= set(seen), (case, found)
            if position == first:
                assert bool(seeing) == bool(seen), (case, found)
