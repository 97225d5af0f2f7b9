"""The gradient of adaptive_attention, through the softmax and through its sharpness.

With p = softmax(s), P = softmax(beta s), dP = dO V^T, delta = sum_j P_j dP_j, dS = P (dP - delta)
and gamma = sum_j dS_j s_j, the gradient of a logit is beta dS - gamma beta'(H) p (ln p + H).

The first kernel makes delta and gamma in a sweep of their own, then the gradient of the query; the
second those of key and value. delta is the row dot of out and its gradient too, but only a sum of
the same dP leaves nothing where P is 1. From the first kernel the second has `ROWS` numbers per
query, with which a logit's gradient is P (beta dP - beta delta) - 2^c (slant c + offset), c as in
the forward: s - max s in units of ln 2.

Outputs that are not finite have no share in the gradients of others. A product with 0 would not
keep the NaN of their queries out, so such tiles go through the loop that cleans what it loads.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.adaptive_attention.limits import key_tiles, query_tiles
from pyseq.kernels.adaptive_attention.rows import (
    FLOOR,
    load_rows,
    sharpness,
    store_rows,
)
from pyseq.kernels.attention import LN_2, LOG2_E, clean_rows, key_range, sees, sees_a_key
from pyseq.kernels.heads import near_rows

# max <q, k>, log2 sum 2^(beta c), beta, beta delta, slant, offset
ROWS = tl.constexpr(6)


@triton.jit
def sum_up(
    delta, along, both, q, d_out, factor, best, log_sharp, beta,
    k_ptr, v_ptr, start, stop, keys, position, stride_ks, stride_kd, stride_vs, stride_vd,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add keys to sum P dP, sum P c and sum P dP c, each (rows,)."""
    for s in tl.range(start, stop, BLOCK_S, num_stages=1 if MASKED else None):
        offs_s = s + tl.arange(0, BLOCK_S)
        k = load_rows(k_ptr, offs_s, offs_s < keys, stride_ks, stride_kd, D, BLOCK_D, MASKED)
        v = load_rows(v_ptr, offs_s, offs_s < keys, stride_vs, stride_vd, D, BLOCK_D, MASKED)
        product = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        d_weight = tl.dot(d_out, tl.trans(v), input_precision=PRECISION)
        # A key without mass has c = -inf, and 0 * -inf would be NaN.
        centred = tl.maximum((product - best[:, None]) * factor, FLOOR)
        weights = tl.exp2(centred * beta[:, None] - log_sharp[:, None])
        if MASKED:
            visible = sees(position, offs_s, keys, 0, 0, CAUSAL, False, False)
            weights = tl.where(visible, weights, 0.0)
            centred = tl.where(visible, centred, 0.0)
            d_weight = tl.where(visible, d_weight, 0.0)
        along += tl.sum(weights * centred, 1)
        weights *= d_weight
        delta += tl.sum(weights, 1)
        both += tl.sum(weights * centred, 1)
    return delta, along, both


@triton.jit
def sweep_keys(
    d_query, q, d_out, factor, best, log_sharp, beta, beta_delta, slant, offset,
    k_ptr, v_ptr, start, stop, keys, position, stride_ks, stride_kd, stride_vs, stride_vd,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add keys to dQ / scale."""
    for s in tl.range(start, stop, BLOCK_S, num_stages=1 if MASKED else None):
        offs_s = s + tl.arange(0, BLOCK_S)
        k = load_rows(k_ptr, offs_s, offs_s < keys, stride_ks, stride_kd, D, BLOCK_D, MASKED)
        v = load_rows(v_ptr, offs_s, offs_s < keys, stride_vs, stride_vd, D, BLOCK_D, MASKED)
        if MASKED:
            k = tl.where(k * 0.0 == 0.0, k, 0.0)  # a row that does not see it multiplies it with 0
        product = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        d_weight = tl.dot(d_out, tl.trans(v), input_precision=PRECISION)
        centred = tl.maximum((product - best[:, None]) * factor, FLOOR)
        weights = tl.exp2(centred * beta[:, None] - log_sharp[:, None])
        d_logit = weights * (beta[:, None] * d_weight - beta_delta[:, None])
        d_logit -= tl.exp2(centred) * (slant[:, None] * centred + offset[:, None])
        if MASKED:
            visible = sees(position, offs_s, keys, 0, 0, CAUSAL, False, False)
            d_logit = tl.where(visible, d_logit, 0.0)
        # The logits' gradients sum to 0, so what all keys have in common cancels, if they are exact
        # enough: 16 bits are not, twice 16 are.
        high = d_logit.to(k.dtype)
        d_query = tl.dot(high, k, d_query, input_precision=PRECISION)
        if k.dtype != tl.float32:
            low = (d_logit - high.to(tl.float32)).to(k.dtype)
            d_query = tl.dot(low, k, d_query, input_precision=PRECISION)
    return d_query


@triton.jit
def adaptive_attention_backward_query_kernel(
    grad_ptr, q_ptr, k_ptr, v_ptr, measures_ptr, rows_ptr, dirty_ptr, dq_ptr,
    stride_gb, stride_gh, stride_gt, stride_gd,
    stride_qb, stride_qh, stride_qt, stride_qd,
    stride_kb, stride_kg, stride_ks, stride_kd,
    stride_vb, stride_vg, stride_vs, stride_vd,
    stride_dqb, stride_dqh, stride_dqt, stride_dqd,
    H, G, T, S, scale, factor,
    FOR_QUERY: tl.constexpr, FOR_KEY: tl.constexpr,
    COEFFICIENTS: tl.constexpr, CAUSAL: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program serves BLOCK_T queries of one head; grid (ceil(T / BLOCK_T), B * H)."""
    # The last tiles have most keys to see under causality: they go first.
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    row = tl.program_id(1).to(tl.int64)
    batch = row // H
    head = row % H
    group = head // (H // G)
    k_ptr += batch * stride_kb + group * stride_kg
    v_ptr += batch * stride_vb + group * stride_vg
    grad_ptr += batch * stride_gb + head * stride_gh
    offs_t = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    mask_t = offs_t < T
    position = offs_t + (S - T)
    seeing = sees_a_key(position, S, 0, 0, CAUSAL, False, False) & mask_t

    measures_ptr += row * T + offs_t
    planes = tl.num_programs(1).to(tl.int64) * T
    best = tl.load(measures_ptr, mask=mask_t, other=0.0)
    log_total = tl.load(measures_ptr + planes, mask=mask_t, other=0.0)
    nats = tl.load(measures_ptr + 2 * planes, mask=mask_t, other=0.0)
    log_sharp = tl.load(measures_ptr + 3 * planes, mask=mask_t, other=0.0) * LOG2_E
    lost = seeing & (nats != nats)  # the output is not finite
    beta, slope = sharpness(nats, COEFFICIENTS)
    # One key's weight is 1 whatever its logit is: with beta 0 that is exact, and so is dS = 0.
    keys = tl.minimum(position + 1, S) if CAUSAL else position * 0 + S  # that a query sees
    beta = tl.where(keys == 1, 0.0, beta)
    d_out = load_rows(grad_ptr, offs_t, mask_t, stride_gt, stride_gd, D, BLOCK_D, True)
    bad_grad = tl.sum(d_out.to(tl.float32) * 0.0, 1) != 0.0  # 0 * inf is NaN too
    counts = seeing & (nats == nats)

    q_ptr += batch * stride_qb + head * stride_qh
    q = load_rows(q_ptr, offs_t, mask_t, stride_qt, stride_qd, D, BLOCK_D, True)
    first = tile * BLOCK_T + (S - T)
    last = tl.minimum(tile * BLOCK_T + BLOCK_T, T) - 1 + (S - T)
    _, start, rest, stop = key_range(first, last, S, 0, 0, CAUSAL, False, False, BLOCK_S)
    delta = tl.zeros((BLOCK_T,), tl.float32)
    along = tl.zeros((BLOCK_T,), tl.float32)
    both = tl.zeros((BLOCK_T,), tl.float32)
    for part in tl.static_range(2):
        delta, along, both = sum_up(
            delta, along, both, q, d_out, factor, best, log_sharp, beta,
            k_ptr, v_ptr, start if part == 0 else rest, rest if part == 0 else stop,
            S, position, stride_ks, stride_kd, stride_vs, stride_vd,
            part == 1, CAUSAL, D, BLOCK_D, BLOCK_S, PRECISION,
        )  # fmt: skip
    beta_delta = beta * delta
    # gamma beta' / sum 2^c, as p = 2^c / sum 2^c; one ln 2 for the c of gamma, one for that of ln p
    slant = (both - delta * along) * slope * tl.exp2(-log_total * LOG2_E) * (LN_2 * LN_2)
    slant = tl.where(counts & (slope != 0.0), slant, 0.0)
    offset = slant * (nats - log_total) * LOG2_E

    if FOR_QUERY:
        d_query = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
        for part in tl.static_range(2):
            d_query = sweep_keys(
                d_query, q, d_out, factor,
                best, log_sharp, beta, beta_delta, slant, offset,
                k_ptr, v_ptr, start if part == 0 else rest, rest if part == 0 else stop,
                S, position, stride_ks, stride_kd, stride_vs, stride_vd,
                part == 1, CAUSAL, D, BLOCK_D, BLOCK_S, PRECISION,
            )  # fmt: skip
        d_query = tl.where(counts[:, None], d_query * scale, 0.0)
        d_query = tl.where((seeing & bad_grad)[:, None], float("nan"), d_query)
        dq_ptr += batch * stride_dqb + head * stride_dqh
        store_rows(dq_ptr, d_query, offs_t, mask_t, stride_dqt, stride_dqd, D, BLOCK_D)

    if FOR_KEY:
        rows_ptr += row * ROWS * T + offs_t
        # 2^-inf is 0, so that such a row has no weights; one with NaN spoils the keys that it sees.
        log_sharp = tl.where(counts, log_sharp, float("inf"))
        log_sharp = tl.where(bad_grad, float("nan"), log_sharp)
        tl.store(rows_ptr, tl.where(counts, best, 0.0), mask=mask_t)
        tl.store(rows_ptr + T, log_sharp, mask=mask_t)
        tl.store(rows_ptr + 2 * T, beta, mask=mask_t)
        tl.store(rows_ptr + 3 * T, tl.where(counts, beta_delta, 0.0), mask=mask_t)
        tl.store(rows_ptr + 4 * T, slant, mask=mask_t)
        tl.store(rows_ptr + 5 * T, tl.where(counts, offset, 0.0), mask=mask_t)
        dirty = tl.max(((seeing & bad_grad) | lost).to(tl.int32), 0)
        tl.store(dirty_ptr + row * tl.num_programs(0) + tile, dirty)


@triton.jit
def sweep_queries(
    d_key, d_value, k, v, factor, q_ptr, grad_ptr, rows_ptr,
    start, tiles, gap_at, gap, offs_s, ahead, T,
    stride_qt, stride_qd, stride_gt, stride_gd,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_T: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add `tiles` tiles of queries from `start` on, `gap` queries left out after `gap_at` tiles."""
    for i in tl.range(0, tiles, num_stages=1 if MASKED else None):
        t = start + i * BLOCK_T
        if MASKED:
            t += tl.where(i >= gap_at, gap, 0)
        offs_t = t + tl.arange(0, BLOCK_T)
        numbers = rows_ptr + offs_t
        mask_t = offs_t < T if MASKED else None
        other = 0.0 if MASKED else None
        best = tl.load(numbers, mask=mask_t, other=other)
        log_sharp = tl.load(numbers + T, mask=mask_t, other=float("inf") if MASKED else None)
        beta = tl.load(numbers + 2 * T, mask=mask_t, other=other)
        beta_delta = tl.load(numbers + 3 * T, mask=mask_t, other=other)
        slant = tl.load(numbers + 4 * T, mask=mask_t, other=other)
        offset = tl.load(numbers + 5 * T, mask=mask_t, other=other)
        # Zeros for the query, and its output's gradient, where one of them is not finite, or the
        # products that a finite query has with some key.
        usable = log_sharp - log_sharp == 0.0
        q = load_rows(q_ptr, offs_t, usable, stride_qt, stride_qd, D, BLOCK_D, MASKED)
        d_out = load_rows(grad_ptr, offs_t, usable, stride_gt, stride_gd, D, BLOCK_D, MASKED)
        # Queries are rows here too: seven numbers per column would take more registers than a tile.
        product = tl.dot(q, tl.trans(k), input_precision=PRECISION)  # (BLOCK_T, BLOCK_S)
        centred = tl.maximum((product - best[:, None]) * factor, FLOOR)
        weights = tl.exp2(centred * beta[:, None] - log_sharp[:, None])
        if MASKED:
            visible = tl.full((BLOCK_T, offs_s.shape[0]), True, tl.int1)
            if CAUSAL:
                visible = (offs_t + ahead)[:, None] >= offs_s[None, :]
            weights = tl.where(visible, weights, 0.0)
        d_value = tl.dot(
            tl.trans(weights.to(d_out.dtype)), d_out, d_value, input_precision=PRECISION
        )
        d_weight = tl.dot(d_out, tl.trans(v), input_precision=PRECISION)
        d_logit = weights * (beta[:, None] * d_weight - beta_delta[:, None])
        d_logit -= tl.exp2(centred) * (slant[:, None] * centred + offset[:, None])
        if MASKED:
            d_logit = tl.where(visible, d_logit, 0.0)
        d_key = tl.dot(tl.trans(d_logit.to(q.dtype)), q, d_key, input_precision=PRECISION)
    return d_key, d_value


@triton.jit
def adaptive_attention_backward_key_kernel(
    grad_ptr, q_ptr, k_ptr, v_ptr, rows_ptr, dirty_ptr, dk_ptr, dv_ptr,
    stride_gb, stride_gh, stride_gt, stride_gd,
    stride_qb, stride_qh, stride_qt, stride_qd,
    stride_kb, stride_kg, stride_ks, stride_kd,
    stride_vb, stride_vg, stride_vs, stride_vd,
    stride_dkb, stride_dkg, stride_dks, stride_dkd,
    stride_dvb, stride_dvg, stride_dvs, stride_dvd,
    H, G, T, S, dirty_tiles, scale, factor,
    CAUSAL: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, DIRTY_T: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program serves BLOCK_S keys of one key head; grid (ceil(S / BLOCK_S), B * G).

    `dirty_ptr` (B * H, dirty_tiles) says which DIRTY_T queries hold any that are not finite.
    """
    tile = tl.program_id(0)  # under causality the first tiles are seen by most queries
    batch = (tl.program_id(1) // G).to(tl.int64)
    group = (tl.program_id(1) % G).to(tl.int64)
    offs_s = tile * BLOCK_S + tl.arange(0, BLOCK_S)
    k_ptr += batch * stride_kb + group * stride_kg
    v_ptr += batch * stride_vb + group * stride_vg
    k, _bad_key = clean_rows(
        load_rows(k_ptr, offs_s, offs_s < S, stride_ks, stride_kd, D, BLOCK_D, True)
    )
    v, _bad_value = clean_rows(
        load_rows(v_ptr, offs_s, offs_s < S, stride_vs, stride_vd, D, BLOCK_D, True)
    )

    # Tiles of queries from `start` to `full` and from `rest` on need a mask.
    start = 0
    full = 0
    if CAUSAL:
        start = tl.maximum(tile * BLOCK_S + (T - S), 0) // BLOCK_T * BLOCK_T
        full = tl.maximum(tile * BLOCK_S + BLOCK_S - 1 + (T - S), 0)
    rest = tl.maximum(T // BLOCK_T * BLOCK_T, start)
    full = tl.minimum(tl.cdiv(full, BLOCK_T) * BLOCK_T, rest)
    tiles = tl.cdiv(T - start, BLOCK_T)

    d_key = tl.zeros((BLOCK_S, BLOCK_D), tl.float32)
    d_value = tl.zeros((BLOCK_S, BLOCK_D), tl.float32)
    for inner in tl.range(0, H // G, num_stages=1):
        head = group * (H // G) + inner
        row = batch * H + head
        dirty = tl.zeros((128,), tl.int32)
        for i in tl.range(start // DIRTY_T, dirty_tiles, 128, num_stages=1):
            offs = i + tl.arange(0, 128)
            dirty |= tl.load(dirty_ptr + row * dirty_tiles + offs, mask=offs < dirty_tiles, other=0)
        clean_until = tl.where(tl.max(dirty, 0) > 0, full, rest)
        clean_tiles = (clean_until - full) // BLOCK_T
        for part in tl.static_range(2):
            d_key, d_value = sweep_queries(
                d_key, d_value, k, v, factor,
                q_ptr + batch * stride_qb + head * stride_qh,
                grad_ptr + batch * stride_gb + head * stride_gh,
                rows_ptr + row * ROWS * T,
                full if part == 0 else start,
                clean_tiles if part == 0 else tiles - clean_tiles,
                (full - start) // BLOCK_T, clean_until - full,
                offs_s, S - T, T, stride_qt, stride_qd, stride_gt, stride_gd,
                part == 1, CAUSAL, D, BLOCK_D, BLOCK_T, PRECISION,
            )  # fmt: skip

    dk_ptr += batch * stride_dkb + group * stride_dkg
    dv_ptr += batch * stride_dvb + group * stride_dvg
    store_rows(dk_ptr, d_key * scale, offs_s, offs_s < S, stride_dks, stride_dkd, D, BLOCK_D)
    store_rows(dv_ptr, d_value, offs_s, offs_s < S, stride_dvs, stride_dvd, D, BLOCK_D)


def adaptive_attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    measures: Tensor,
    scale: float,
    coefficients: Sequence[float],
    causal: bool,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of query, key and value; `measures` is what the forward returned.

    `needs` says whether the query's is wanted, and whether those of key and value are, which are
    made together.
    """
    for_query, for_key = needs[0], needs[1] or needs[2]
    if grad.numel() == 0 or key.shape[2] == 0:
        return torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
    (B, H, T, D), (G, S) = query.shape, key.shape[1:3]
    grad = near_rows(grad)
    capability = launch.capability(query)
    tiles = query_tiles(D, query.dtype, capability)
    dirty_tiles = triton.cdiv(T, tiles.block_t)
    rows = torch.empty(B * H, ROWS.value, T, dtype=torch.float32, device=query.device)
    dirty = torch.empty(B * H, dirty_tiles, dtype=torch.int32, device=query.device)
    d_query, d_key, d_value = (torch.empty_like(x) for x in (query, key, value))
    numbers = (scale, scale * math.log2(math.e))
    shared: dict[str, Any] = {"CAUSAL": causal, "D": D, "BLOCK_D": launch.padded(D)}
    shared |= {"PRECISION": launch.dot_precision(query.dtype)} | launch.OPTIONS
    with torch.cuda.device_of(query):  # Triton launches on the current device
        adaptive_attention_backward_query_kernel[dirty_tiles, B * H](
            grad, query, key, value, measures, rows, dirty, d_query,
            *grad.stride(), *query.stride(), *key.stride(), *value.stride(),
            *d_query.stride(), H, G, T, S, *numbers,
            FOR_QUERY=for_query, FOR_KEY=for_key, COEFFICIENTS=tuple(coefficients),
            BLOCK_T=tiles.block_t, BLOCK_S=tiles.block_s,
            num_warps=tiles.warps, num_stages=tiles.stages, **shared,
        )  # fmt: skip
        if for_key:
            dirty_t, tiles = tiles.block_t, key_tiles(D, query.dtype, capability)
            adaptive_attention_backward_key_kernel[triton.cdiv(S, tiles.block_s), B * G](
                grad, query, key, value, rows, dirty, d_key, d_value,
                *grad.stride(), *query.stride(), *key.stride(), *value.stride(),
                *d_key.stride(), *d_value.stride(), H, G, T, S, dirty_tiles, *numbers,
                BLOCK_T=tiles.block_t, BLOCK_S=tiles.block_s, DIRTY_T=dirty_t,
                num_warps=tiles.warps, num_stages=tiles.stages, **shared,
            )  # fmt: skip
    return d_query, d_key, d_value
