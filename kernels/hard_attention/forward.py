"""Attention in which every query copies the value of its best key."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.attention import key_range, sees
from pyseq.kernels.hard_attention.limits import forward_tiles
from pyseq.kernels.hard_attention.rows import load_rows, store_rows

BITS = {2: torch.int16, 4: torch.int32}  # by bytes of a number


@triton.jit
def compare(
    best, found, q, k_ptr, start, stop, keys, position, stride_ks, stride_kd,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Let the keys from `start` to `stop` compete; MASKED where a query may not see some of them.

    best, found (rows, BLOCK_S): in every lane the highest score so far, and the start of the tile
    it was in. Nothing is compared across lanes here.
    """
    for s in tl.range(start, stop, BLOCK_S):
        offs_s = s + tl.arange(0, BLOCK_S)
        if MASKED:
            mask_s = offs_s < keys
        else:
            mask_s = tl.full((BLOCK_S,), True, tl.int1)
        k = load_rows(k_ptr, offs_s, mask_s, stride_ks, stride_kd, D, BLOCK_D)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        if MASKED:
            visible = sees(position, offs_s, keys, 0, 0, CAUSAL, False, False)
            scores = tl.where(visible, scores, float("nan"))
        # The maximum of a number and a NaN is the number, so a NaN never wins; and best, NaN until
        # there is a score, differs from any, so -inf wins over none. Of equals the first stays.
        highest = tl.maximum(best, scores)
        found = tl.where(highest != best, s, found)
        best = highest
    return best, found


@triton.jit
def hard_attention_forward_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, index_ptr,
    stride_qb, stride_qh, stride_qt, stride_qd,
    stride_kb, stride_kg, stride_ks, stride_kd,
    stride_vb, stride_vg, stride_vs, stride_vd,
    stride_ob, stride_oh, stride_ot, stride_od,
    H, G, T, S,
    CAUSAL: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program makes BLOCK_T outputs of one head; grid (ceil(T / BLOCK_T), B * H).

    Values and outputs are integers here, the bits of the numbers, so that no NaN is altered.
    """
    # The last tiles have most keys to see under causality: they go first.
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    batch = (tl.program_id(1) // H).to(tl.int64)
    head = (tl.program_id(1) % H).to(tl.int64)
    group = head // (H // G)
    offs_t = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    mask_t = offs_t < T
    position = offs_t + (S - T)
    q_ptr += batch * stride_qb + head * stride_qh
    k_ptr += batch * stride_kb + group * stride_kg
    q = load_rows(q_ptr, offs_t, mask_t, stride_qt, stride_qd, D, BLOCK_D)

    best = tl.full((BLOCK_T, BLOCK_S), float("nan"), tl.float32)
    found = tl.zeros((BLOCK_T, BLOCK_S), tl.int32)
    first = tile * BLOCK_T + (S - T)
    last = tl.minimum(tile * BLOCK_T + BLOCK_T, T) - 1 + (S - T)
    start, _full, rest, stop = key_range(first, last, S, 0, 0, CAUSAL, False, False, BLOCK_S)
    best, found = compare(
        best, found, q, k_ptr, start, rest, S, position, stride_ks, stride_kd,
        False, CAUSAL, D, BLOCK_D, BLOCK_S, PRECISION,
    )  # fmt: skip
    best, found = compare(
        best, found, q, k_ptr, rest, stop, S, position, stride_ks, stride_kd,
        True, CAUSAL, D, BLOCK_D, BLOCK_S, PRECISION,
    )  # fmt: skip

    has_score = best == best
    highest = tl.max(tl.where(has_score, best, float("-inf")), 1)
    is_best = has_score & (best == highest[:, None])
    index = tl.min(tl.where(is_best, found + tl.arange(0, BLOCK_S)[None, :], S), 1)
    chosen = index < S
    v_ptr += batch * stride_vb + group * stride_vg
    rows = load_rows(v_ptr, index, mask_t & chosen, stride_vs, stride_vd, D, BLOCK_D)
    # A query that could choose no key that it sees gives NaN, which all bits set are in any dtype.
    could_not = (position >= 0) & ~chosen if CAUSAL else ~chosen
    rows = tl.where(could_not[:, None], -1, rows)
    out_ptr += batch * stride_ob + head * stride_oh
    store_rows(out_ptr, rows, offs_t, mask_t, stride_ot, stride_od, D, BLOCK_D)
    index_ptr += tl.program_id(1).to(tl.int64) * T
    tl.store(index_ptr + offs_t, tl.where(chosen, index, -1).to(tl.int64), mask=mask_t)


def hard_attention_forward(
    query: Tensor, key: Tensor, value: Tensor, causal: bool
) -> tuple[Tensor, Tensor]:
    """The output, in the query's memory order, and the index (B, H, T), int64."""
    (B, H, T, D), (G, S) = query.shape, key.shape[1:3]
    out = torch.empty_like(query)
    index = torch.empty(B, H, T, dtype=torch.int64, device=query.device)
    if index.numel() == 0 or S == 0:
        return out.zero_(), index.fill_(-1)
    tiles = forward_tiles(D, query.dtype, launch.capability(query))
    value, out_bits = (x.view(BITS[x.element_size()]) for x in (value, out))
    with torch.cuda.device_of(query):  # Triton launches on the current device
        hard_attention_forward_kernel[triton.cdiv(T, tiles.rows), B * H](
            query, key, value, out_bits, index,
            *query.stride(), *key.stride(), *value.stride(), *out.stride(),
            H, G, T, S,
            CAUSAL=causal, D=D, BLOCK_D=launch.padded(D),
            BLOCK_T=tiles.rows, BLOCK_S=tiles.columns,
            PRECISION=launch.dot_precision(query.dtype),
            num_warps=tiles.warps, num_stages=tiles.stages, **launch.OPTIONS,
        )  # fmt: skip
    return out, index
