"""Attention over normalised queries and keys, norm, gain and rotation inside the kernel."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.attention import (
    LN_2,
    LOG2_E,
    any_seen,
    clean_rows,
    key_range,
    sees,
    sees_a_key,
)
from pyseq.kernels.cosine_attention.limits import fixed_offset, forward_tiles
from pyseq.kernels.cosine_attention.preparation import load_prepared
from pyseq.kernels.heads import dense, mask_within
from pyseq.kernels.prepare_keys.rows import clean


@triton.jit
def sweep(
    acc, total, best, poisoned, qa, qb, factor, offset,
    k_ptr, v_ptr, key_weight_ptr, cos_ptr, sin_ptr,
    start, stop, keys, position, window, prefix, eps,
    stride_ks, stride_kd, stride_vs, stride_vd, stride_angle, stride_angle_d,
    MASKED: tl.constexpr, BOUNDED: tl.constexpr,
    NORM: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_ROPE: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_PREFIX: tl.constexpr,
    D: tl.constexpr, HALF: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Add the keys from `start` to `stop`; MASKED where some query may not see some of them."""
    columns = tl.arange(0, BLOCK_D)
    for s in tl.range(start, stop, BLOCK_S):
        offs_s = s + tl.arange(0, BLOCK_S)
        if MASKED:
            mask_s = offs_s < keys
        else:
            mask_s = tl.full((BLOCK_S,), True, tl.int1)
        ka, kb = load_prepared(
            k_ptr, key_weight_ptr, cos_ptr, sin_ptr, offs_s, mask_s, offs_s,
            stride_ks, stride_kd, stride_angle, stride_angle_d, eps,
            NORM, HAS_WEIGHT, HAS_ROPE, D, HALF,
        )  # fmt: skip
        places = v_ptr + offs_s[:, None].to(tl.int64) * stride_vs + columns[None, :] * stride_vd
        v = tl.load(places, mask=mask_s[:, None] & (columns < D)[None, :], other=0.0)
        if MASKED:
            ka, kb, bad_key = clean(ka, kb)
            v, bad_value = clean_rows(v)
        logits = tl.dot(qa, tl.trans(ka), input_precision=PRECISION)
        logits = tl.dot(qb, tl.trans(kb), logits, input_precision=PRECISION)
        if MASKED:
            visible = sees(position, offs_s, keys, window, prefix, CAUSAL, HAS_WINDOW, HAS_PREFIX)
            bad = (tl.max(bad_key.to(tl.int32), 1) > 0) | bad_value
            poisoned = poisoned | any_seen(visible, bad)
        if BOUNDED:
            weights = tl.exp2(logits * factor - offset)
            if MASKED:
                weights = tl.where(visible, weights, 0.0)
        else:
            logits = logits * factor
            if MASKED:
                logits = tl.where(visible, logits, float("-inf"))
            highest = tl.maximum(best, tl.max(logits, 1))
            shift = highest
            if MASKED:  # a row that has seen no key yet
                shift = tl.where(highest == float("-inf"), 0.0, highest)
            weights = tl.exp2(logits - shift[:, None])
            fade = tl.exp2(best - shift)
            total = total * fade
            acc = acc * fade[:, None]
            best = highest
        if NORM == "none" and not MASKED:
            # A norm makes NaN of a key that is not finite; without one a logit of -inf must tell.
            total += tl.sum(weights + logits * 0.0, 1)
        else:
            total += tl.sum(weights, 1)
        acc = tl.dot(weights.to(v.dtype), v, acc, input_precision=PRECISION)
    return acc, total, best, poisoned


@triton.jit
def cosine_attention_forward_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, scale_ptr,
    query_weight_ptr, key_weight_ptr, cos_ptr, sin_ptr, lengths_ptr,
    stride_qb, stride_qh, stride_qt, stride_qd,
    stride_kb, stride_kg, stride_ks, stride_kd,
    stride_vb, stride_vg, stride_vs, stride_vd,
    stride_ob, stride_oh, stride_ot, stride_od,
    stride_scale, stride_angle, stride_angle_d,
    H, G, T, S, window, prefix, eps, offset,
    NORM: tl.constexpr, KEY_NORM: tl.constexpr, BOUNDED: tl.constexpr,
    HAS_QUERY_WEIGHT: tl.constexpr, HAS_KEY_WEIGHT: tl.constexpr,
    HAS_QUERY_ROPE: tl.constexpr, HAS_KEY_ROPE: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_PREFIX: tl.constexpr,
    D: tl.constexpr, HALF: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program makes BLOCK_T outputs of one head; grid (ceil(T / BLOCK_T), B * H)."""
    # The last tiles have most keys to see under causality: they go first.
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    batch = (tl.program_id(1) // H).to(tl.int64)
    head = (tl.program_id(1) % H).to(tl.int64)
    group = head // (H // G)
    keys = S
    if HAS_LENGTHS:
        keys = tl.load(lengths_ptr + batch).to(tl.int32)
    offs_t = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    mask_t = offs_t < T
    position = offs_t + (keys - T)
    qa, qb = load_prepared(
        q_ptr + batch * stride_qb + head * stride_qh,
        query_weight_ptr, cos_ptr, sin_ptr, offs_t, mask_t, position,
        stride_qt, stride_qd, stride_angle, stride_angle_d, eps,
        NORM, HAS_QUERY_WEIGHT, HAS_QUERY_ROPE, D, HALF,
    )  # fmt: skip
    factor = tl.load(scale_ptr + head * stride_scale).to(tl.float32) * LOG2_E

    acc = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
    total = tl.zeros((BLOCK_T,), tl.float32)
    best = tl.full((BLOCK_T,), float("-inf"), tl.float32)
    poisoned = tl.full((BLOCK_T,), False, tl.int1)
    first = tile * BLOCK_T + (keys - T)
    last = tl.minimum(tile * BLOCK_T + BLOCK_T, T) - 1 + (keys - T)
    start, full, rest, stop = key_range(
        first, last, keys, window, prefix, CAUSAL, HAS_WINDOW, HAS_PREFIX, BLOCK_S
    )
    k_ptr += batch * stride_kb + group * stride_kg
    v_ptr += batch * stride_vb + group * stride_vg
    for part in tl.static_range(4):
        if part == 0:
            low, high = 0, tl.minimum(start, prefix)
        elif part == 1:
            low, high = start, full
        elif part == 2:
            low, high = full, rest
        else:
            low, high = rest, stop
        if (part != 0 or (HAS_PREFIX and HAS_WINDOW)) and (part != 1 or HAS_WINDOW):
            acc, total, best, poisoned = sweep(
                acc, total, best, poisoned, qa, qb, factor, offset,
                k_ptr, v_ptr, key_weight_ptr, cos_ptr, sin_ptr,
                low, high, keys, position, window, prefix, eps,
                stride_ks, stride_kd, stride_vs, stride_vd, stride_angle, stride_angle_d,
                part != 2, BOUNDED, KEY_NORM, HAS_KEY_WEIGHT, HAS_KEY_ROPE,
                CAUSAL, HAS_WINDOW, HAS_PREFIX, D, HALF, BLOCK_D, BLOCK_S, PRECISION,
            )  # fmt: skip

    if BOUNDED:
        best = tl.full((BLOCK_T,), 0.0, tl.float32) + offset
    seeing = sees_a_key(position, keys, window, prefix, CAUSAL, HAS_WINDOW, HAS_PREFIX)
    out = acc / tl.where(seeing, total, 1.0)[:, None]
    lse = (best + tl.log2(tl.where(seeing, total, 1.0))) * LN_2
    out = tl.where(poisoned[:, None], float("nan"), out)
    lse = tl.where(poisoned, float("nan"), lse)
    out = tl.where(seeing[:, None], out, 0.0)
    lse = tl.where(seeing, lse, float("-inf"))
    columns = tl.arange(0, BLOCK_D)
    places = out_ptr + batch * stride_ob + head * stride_oh
    places += offs_t[:, None].to(tl.int64) * stride_ot + columns[None, :] * stride_od
    tl.store(
        places, out.to(out_ptr.dtype.element_ty), mask=mask_t[:, None] & (columns < D)[None, :]
    )
    tl.store(lse_ptr + tl.program_id(1).to(tl.int64) * T + offs_t, lse, mask=mask_t)


def cosine_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: Tensor,
    query_weight: Tensor | None,
    key_weight: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    lengths: Tensor | None,
    norm: str | None,
    eps: float,
    causal: bool,
    window: int | None,
    prefix: int,
    logit_bound: float | None,
    keys_are_prepared: bool = False,
) -> tuple[Tensor, Tensor]:
    """The output, in the query's memory order, and the natural log-sum-exp (B, H, T), float32.

    Entry b has lengths[b] keys, and its last query stands at the last of them. Prepared keys are
    used as they are: norm and rotation are the queries' alone.
    """
    (B, H, T, D), (G, S) = query.shape, key.shape[1:3]
    out = torch.empty_like(query)
    lse = torch.empty(B, H, T, dtype=torch.float32, device=query.device)
    if lse.numel() == 0:
        return out, lse
    if S == 0:  # and the tables may have no row to read
        return out.zero_(), lse.fill_(-math.inf)
    window, prefix = mask_within(window, prefix, T, S)
    gained = query_weight is not None or key_weight is not None
    plain = window is None and prefix == 0 and not gained
    tiles = forward_tiles(D, query.dtype, launch.capability(query), plain)
    offset = fixed_offset(logit_bound, S, query.dtype)
    query_weight, key_weight, cos, sin, lengths = dense(query_weight, key_weight, cos, sin, lengths)
    half = launch.padded((D + 1) // 2)
    angle_strides = (0, 0) if cos is None else cos.stride()
    norm = norm or "none"
    key_norm = "none" if keys_are_prepared else norm
    with torch.cuda.device_of(query):  # Triton launches on the current device
        cosine_attention_forward_kernel[triton.cdiv(T, tiles.block_t), B * H](
            query, key, value, out, lse, scale, query_weight, key_weight, cos, sin, lengths,
            *query.stride(), *key.stride(), *value.stride(), *out.stride(),
            scale.stride(0) if scale.dim() else 0, *angle_strides,
            H, G, T, S, window or 0, prefix, eps, (offset or 0.0) * math.log2(math.e),
            NORM=norm, KEY_NORM=key_norm, BOUNDED=offset is not None,
            HAS_QUERY_WEIGHT=query_weight is not None, HAS_KEY_WEIGHT=key_weight is not None,
            HAS_QUERY_ROPE=cos is not None, HAS_KEY_ROPE=cos is not None and not keys_are_prepared,
            HAS_LENGTHS=lengths is not None,
            CAUSAL=causal, HAS_WINDOW=window is not None, HAS_PREFIX=prefix > 0,
            D=D, HALF=half, BLOCK_D=2 * half, BLOCK_T=tiles.block_t, BLOCK_S=tiles.block_s,
            PRECISION=launch.dot_precision(query.dtype),
            num_warps=tiles.warps, num_stages=tiles.stages, **launch.OPTIONS,
        )  # fmt: skip
    return out, lse
