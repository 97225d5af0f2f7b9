"""Attention of few queries over a long cache of prepared keys: the keys are split over programs."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.attention import LN_2, LOG2_E, key_range, sees_a_key
from pyseq.kernels.cosine_attention.forward import cosine_attention_forward, sweep
from pyseq.kernels.cosine_attention.limits import fixed_offset
from pyseq.kernels.cosine_attention.preparation import load_prepared
from pyseq.kernels.cosine_decode.limits import splits, splits_pay, tiles
from pyseq.kernels.heads import dense, mask_within

COMBINED = 16  # splits that the second kernel adds at a time


@triton.jit
def store_finished(
    out_ptr, lse_ptr, acc, total, best, seeing, offs_out, offs_lse, mask,
    stride_od, D: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Outputs and log-sum-exps of rows: zeros and -inf where none is `seeing` a key."""
    total = tl.where(seeing, total, 1.0)
    out = tl.where(seeing[:, None], acc / total[:, None], 0.0)
    # A poisoned total is NaN, and so are both.
    lse = tl.where(seeing, (best + tl.log2(total)) * LN_2, float("-inf"))
    columns = tl.arange(0, BLOCK_D)
    places = out_ptr + offs_out[:, None] + columns[None, :] * stride_od
    tl.store(places, out.to(out_ptr.dtype.element_ty), mask=mask[:, None] & (columns < D)[None, :])
    tl.store(lse_ptr + offs_lse, lse, mask=mask)


# A decoding loop must not be compiled again for the length of its cache.
@triton.jit(do_not_specialize=["S", "window", "prefix"])
def cosine_decode_split_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, acc_ptr, total_ptr, best_ptr, scale_ptr,
    query_weight_ptr, cos_ptr, sin_ptr, lengths_ptr,
    stride_qb, stride_qh, stride_qt, stride_qd,
    stride_kb, stride_kg, stride_ks, stride_kd,
    stride_vb, stride_vg, stride_vs, stride_vd,
    stride_ob, stride_oh, stride_ot, stride_od,
    stride_scale, stride_angle,
    B, H, G, T, S, window, prefix, eps, offset,
    NORM: tl.constexpr, BOUNDED: tl.constexpr,
    HAS_WEIGHT: tl.constexpr, HAS_ROPE: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_PREFIX: tl.constexpr, WHOLE: tl.constexpr,
    D: tl.constexpr, HALF: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_R queries of one key head, its share of the keys.

    Grid (ceil(H // G * T / BLOCK_R), B * G, splits), as one axis but for the splits. Row r of a key
    head is query r % T of its head r // T. WHOLE where there is one split, which needs no second
    kernel; otherwise a program leaves what it has of the sums, those of a row that something not
    finite reached as NaN.
    """
    shared_by = H // G
    blocks = tl.cdiv(shared_by * T, BLOCK_R)
    block = tl.program_id(0) % blocks
    group = (tl.program_id(0) // blocks % G).to(tl.int64)
    batch = (tl.program_id(0) // blocks // G).to(tl.int64)
    keys = S
    if HAS_LENGTHS:
        keys = tl.load(lengths_ptr + batch).to(tl.int32)
    offs_r = block * BLOCK_R + tl.arange(0, BLOCK_R)
    mask_r = offs_r < shared_by * T
    head = group * shared_by + offs_r // T
    offs_t = offs_r % T
    position = offs_t + (keys - T)
    qa, qb = load_prepared(
        q_ptr + batch * stride_qb, query_weight_ptr, cos_ptr, sin_ptr,
        head * stride_qh + offs_t.to(tl.int64) * stride_qt, mask_r, position,
        1, stride_qd, stride_angle, 1, eps, NORM, HAS_WEIGHT, HAS_ROPE, D, HALF,
    )  # fmt: skip
    factor = tl.load(scale_ptr + head * stride_scale, mask=mask_r, other=0.0).to(tl.float32)
    factor = (factor * LOG2_E)[:, None]

    # The keys that the window leaves of the prefix, then those from `start` to `stop`, in tiles of
    # BLOCK_S. A program takes the tiles from `low` to `high` of them, counted in keys.
    start, full, rest, stop = key_range(
        keys - T, keys - 1, keys, window, prefix, True, HAS_WINDOW, HAS_PREFIX, BLOCK_S
    )
    early = 0
    if HAS_PREFIX and HAS_WINDOW:
        early = tl.minimum(start, prefix)
    gap = start - tl.cdiv(early, BLOCK_S) * BLOCK_S
    share = tl.cdiv(tl.cdiv(stop - gap, BLOCK_S), tl.num_programs(1)) * BLOCK_S
    low = tl.program_id(1) * share
    high = low + share

    acc = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    total = tl.zeros((BLOCK_R,), tl.float32)
    best = tl.full((BLOCK_R,), float("-inf"), tl.float32)
    poisoned = tl.full((BLOCK_R,), False, tl.int1)
    k_ptr += batch * stride_kb + group * stride_kg
    v_ptr += batch * stride_vb + group * stride_vg
    for part in tl.static_range(4):
        if part == 0:
            first, last = low, tl.minimum(high, early)
        elif part == 1:
            first, last = tl.maximum(low + gap, start), tl.minimum(high + gap, full)
        elif part == 2:
            first, last = tl.maximum(low + gap, full), tl.minimum(high + gap, rest)
        else:
            first, last = tl.maximum(low + gap, rest), tl.minimum(high + gap, stop)
        if (part != 0 or (HAS_PREFIX and HAS_WINDOW)) and (part != 1 or HAS_WINDOW):
            acc, total, best, poisoned = sweep(
                acc, total, best, poisoned, qa, qb, factor, offset,
                k_ptr, v_ptr, query_weight_ptr, cos_ptr, sin_ptr,
                first, last, keys, position, window, prefix, eps,
                stride_ks, stride_kd, stride_vs, stride_vd, 0, 1,
                part != 2, BOUNDED, "none", False, False,
                True, HAS_WINDOW, HAS_PREFIX, D, HALF, BLOCK_D, BLOCK_S, PRECISION,
            )  # fmt: skip
    total = tl.where(poisoned, float("nan"), total)

    row = (batch * H + head) * T + offs_t
    if WHOLE:
        if BOUNDED:
            best = tl.full((BLOCK_R,), 0.0, tl.float32) + offset
        seeing = sees_a_key(position, keys, window, prefix, True, HAS_WINDOW, HAS_PREFIX)
        place = batch * stride_ob + head * stride_oh + offs_t.to(tl.int64) * stride_ot
        store_finished(
            out_ptr, lse_ptr, acc, total, best, seeing, place, row, mask_r, stride_od, D, BLOCK_D
        )
    else:
        row += tl.program_id(1).to(tl.int64) * B * H * T
        columns = tl.arange(0, BLOCK_D)
        places = acc_ptr + row[:, None] * D + columns[None, :]
        tl.store(places, acc, mask=mask_r[:, None] & (columns < D)[None, :])
        tl.store(total_ptr + row, total, mask=mask_r)
        if not BOUNDED:
            tl.store(best_ptr + row, best, mask=mask_r)


@triton.jit(do_not_specialize=["S", "window", "prefix", "splits"])
def cosine_decode_combine_kernel(
    out_ptr, lse_ptr, acc_ptr, total_ptr, best_ptr, lengths_ptr,
    stride_ob, stride_oh, stride_ot, stride_od,
    H, T, S, window, prefix, offset, splits,
    BOUNDED: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_PREFIX: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program adds up one row (b, h, t); grid (B * H * T,)."""
    row = tl.program_id(0).to(tl.int64)
    batch = row // T // H
    head = row // T % H
    t = row % T
    keys = S
    if HAS_LENGTHS:
        keys = tl.load(lengths_ptr + batch).to(tl.int32)
    rows = tl.num_programs(0).to(tl.int64)
    columns = tl.arange(0, BLOCK_D)
    best = tl.full((1,), float("-inf"), tl.float32)
    acc = tl.zeros((1, BLOCK_D), tl.float32)
    total = tl.zeros((1,), tl.float32)
    for split in tl.range(0, splits, BLOCK):
        offs = split + tl.arange(0, BLOCK)
        mask = offs < splits
        place = offs.to(tl.int64) * rows + row
        part_total = tl.load(total_ptr + place, mask=mask, other=0.0)
        part = tl.load(
            acc_ptr + place[:, None] * D + columns[None, :],
            mask=mask[:, None] & (columns < D)[None, :],
            other=0.0,
        )
        if not BOUNDED:
            part_best = tl.load(best_ptr + place, mask=mask, other=float("-inf"))
            highest = tl.maximum(best, tl.max(part_best, 0))
            shift = tl.where(highest == float("-inf"), 0.0, highest)  # no key seen yet
            fade = tl.exp2(part_best - shift)
            part_total = part_total * fade
            part = part * fade[:, None]
            fade = tl.exp2(best - shift)
            total = total * fade
            acc = acc * fade[:, None]
            best = highest
        total += tl.sum(part_total, 0)
        acc += tl.sum(part, 0)[None, :]
    if BOUNDED:
        best = tl.full((1,), 0.0, tl.float32) + offset
    one = tl.arange(0, 1)
    position = one + (t + keys - T).to(tl.int32)
    seeing = sees_a_key(position, keys, window, prefix, True, HAS_WINDOW, HAS_PREFIX)
    place = batch * stride_ob + head * stride_oh + t * stride_ot
    store_finished(
        out_ptr, lse_ptr, acc, total, best, seeing, place + one, row + one, one == 0,
        stride_od, D, BLOCK_D,
    )  # fmt: skip


def cosine_decode_forward(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    scale: Tensor,
    query_weight: Tensor | None,
    lengths: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    norm: str | None,
    eps: float,
    window: int | None,
    prefix: int,
    logit_bound: float | None,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """The output, in the query's memory order, and the natural log-sum-exp (B, H, T), float32.

    `dtype` asks for an output that is not rounded to the query's, which only few queries get.
    """
    (B, H, T, D), (G, S) = query.shape, key_cache.shape[1:3]
    if B * T * S == 0:
        lse = torch.full((B, H, T), -math.inf, dtype=torch.float32, device=query.device)
        return torch.zeros_like(query), lse
    query_weight, lengths, cos, sin = dense(query_weight, lengths, cos, sin)
    window, prefix = mask_within(window, prefix, T, S)
    if not splits_pay(T, H // G):
        return cosine_attention_forward(
            query, key_cache, value_cache, scale, query_weight, None, cos, sin, lengths,
            norm, eps, True, window, prefix, logit_bound, keys_are_prepared=True,
        )  # fmt: skip
    out = torch.empty_like(query, dtype=dtype)
    lse = torch.empty(B, H, T, dtype=torch.float32, device=query.device)
    block_r, block_s, warps, stages = tiles(H // G * T, D, query.dtype, launch.capability(query))
    programs = B * G * triton.cdiv(H // G * T, block_r)
    seen = S if window is None else min(S, window + T + prefix)
    parts = splits(query, programs, seen, block_s)
    acc, total, best = None, None, None
    bound = fixed_offset(logit_bound, S, query.dtype)
    if parts > 1:
        acc = query.new_empty(parts, B, H, T, D, dtype=torch.float32)
        total = query.new_empty(parts, B, H, T, dtype=torch.float32)
        best = None if bound is not None else torch.empty_like(total)
    half = launch.padded((D + 1) // 2)
    masks = {
        "BOUNDED": bound is not None, "HAS_LENGTHS": lengths is not None,
        "HAS_WINDOW": window is not None, "HAS_PREFIX": prefix > 0,
        "D": D, "BLOCK_D": 2 * half,
    }  # fmt: skip
    offset = (bound or 0.0) * math.log2(math.e)
    with torch.cuda.device_of(query):  # Triton launches on the current device
        cosine_decode_split_kernel[programs, parts](
            query, key_cache, value_cache, out, lse, acc, total, best, scale,
            query_weight, cos, sin, lengths,
            *query.stride(), *key_cache.stride(), *value_cache.stride(), *out.stride(),
            scale.stride(0) if scale.dim() else 0, 0 if cos is None else cos.stride(0),
            B, H, G, T, S, window or 0, prefix, eps, offset,
            NORM=norm or "none", HAS_WEIGHT=query_weight is not None, HAS_ROPE=cos is not None,
            WHOLE=parts == 1, HALF=half, BLOCK_R=block_r, BLOCK_S=block_s,
            PRECISION=launch.dot_precision(query.dtype), **masks,
            num_warps=warps, num_stages=stages, **launch.OPTIONS,
        )  # fmt: skip
        if parts > 1:
            cosine_decode_combine_kernel[(B * H * T,)](
                out, lse, acc, total, best, lengths, *out.stride(),
                H, T, S, window or 0, prefix, offset, parts,
                **masks, BLOCK=COMBINED, num_warps=4, **launch.OPTIONS,
            )  # fmt: skip
    return out, lse
