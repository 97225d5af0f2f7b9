"""The gradients of hard_attention: the copy's of value, the softmax's of query and key.

With P = softmax(scale <q, k>), dP = dO V^T and delta = rowsum(P dP), the gradient of the logits is
dS = P (dP - delta). P and dP are made again wherever they are needed, in tiles.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.attention import clean_rows, key_range, sees
from pyseq.kernels.hard_attention.limits import (
    copies_at_a_time,
    key_tiles,
    query_tiles,
    sums_tiles,
)
from pyseq.kernels.hard_attention.rows import load_rows, store_rows


@triton.jit
def sum_up(
    best, total, product, q, grad, factor, k_ptr, v_ptr,
    start, stop, keys, position, stride_ks, stride_kd, stride_vs, stride_vd,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add the keys from `start` to `stop` to the sums of P and P dP, relative to exp2(best)."""
    for s in tl.range(start, stop, BLOCK_S):
        offs_s = s + tl.arange(0, BLOCK_S)
        if MASKED:
            mask_s = offs_s < keys
        else:
            mask_s = tl.full((BLOCK_S,), True, tl.int1)
        k = load_rows(k_ptr, offs_s, mask_s, stride_ks, stride_kd, D, BLOCK_D)
        v = load_rows(v_ptr, offs_s, mask_s, stride_vs, stride_vd, D, BLOCK_D)
        logits = tl.dot(q, tl.trans(k), input_precision=PRECISION) * factor
        d_weights = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
        if MASKED:
            visible = sees(position, offs_s, keys, 0, 0, CAUSAL, False, False)
            logits = tl.where(visible, logits, float("-inf"))
            d_weights = tl.where(visible, d_weights, 0.0)
        highest = tl.maximum(best, tl.max(logits, 1))
        shift = tl.where(highest == float("-inf"), 0.0, highest)  # of a row without a weight yet
        weights = tl.exp2(logits - shift[:, None])
        fade = tl.exp2(best - shift)
        total = total * fade + tl.sum(weights, 1)
        product = product * fade + tl.sum(weights * d_weights, 1)
        best = highest
    return best, total, product


@triton.jit
def hard_attention_sums_kernel(
    q_ptr, k_ptr, v_ptr, grad_ptr, first_bad_ptr, lse_ptr, delta_ptr,
    stride_qb, stride_qh, stride_qt, stride_qd,
    stride_kb, stride_kg, stride_ks, stride_kd,
    stride_vb, stride_vg, stride_vs, stride_vd,
    stride_gb, stride_gh, stride_gt, stride_gd,
    H, G, T, S, factor,
    CAUSAL: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """lse and delta of BLOCK_T queries of one head; grid (ceil(T / BLOCK_T), B * H).

    lse is of base 2. A query without a softmax, or with nothing to choose from, gets +inf, so that
    all its weights are 0, and the delta 0; one whose output's gradient is not finite gets the delta
    NaN, which poisons all that it touches.
    """
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    batch = (tl.program_id(1) // H).to(tl.int64)
    head = (tl.program_id(1) % H).to(tl.int64)
    group = head // (H // G)
    offs_t = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    mask_t = offs_t < T
    position = offs_t + (S - T)
    q_ptr += batch * stride_qb + head * stride_qh
    grad_ptr += batch * stride_gb + head * stride_gh
    k_ptr += batch * stride_kb + group * stride_kg
    v_ptr += batch * stride_vb + group * stride_vg
    q = load_rows(q_ptr, offs_t, mask_t, stride_qt, stride_qd, D, BLOCK_D)
    grad = load_rows(grad_ptr, offs_t, mask_t, stride_gt, stride_gd, D, BLOCK_D)

    best = tl.full((BLOCK_T,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_T,), tl.float32)
    product = tl.zeros((BLOCK_T,), tl.float32)
    first = tile * BLOCK_T + (S - T)
    last = tl.minimum(tile * BLOCK_T + BLOCK_T, T) - 1 + (S - T)
    start, _full, rest, stop = key_range(first, last, S, 0, 0, CAUSAL, False, False, BLOCK_S)
    best, total, product = sum_up(
        best, total, product, q, grad, factor, k_ptr, v_ptr,
        start, rest, S, position, stride_ks, stride_kd, stride_vs, stride_vd,
        False, CAUSAL, D, BLOCK_D, BLOCK_S, PRECISION,
    )  # fmt: skip
    best, total, product = sum_up(
        best, total, product, q, grad, factor, k_ptr, v_ptr,
        rest, stop, S, position, stride_ks, stride_kd, stride_vs, stride_vd,
        True, CAUSAL, D, BLOCK_D, BLOCK_S, PRECISION,
    )  # fmt: skip

    # Loaded again, which takes fewer registers than keeping what was found through the loops.
    q = load_rows(q_ptr, offs_t, mask_t, stride_qt, stride_qd, D, BLOCK_D)
    _, bad_query = clean_rows(q)
    grad = load_rows(grad_ptr, offs_t, mask_t, stride_gt, stride_gd, D, BLOCK_D)
    _, bad_grad = clean_rows(grad)
    first_bad = tl.load(first_bad_ptr + batch * G + group)
    seen = tl.full((BLOCK_T,), 0, tl.int32) + S
    if CAUSAL:
        seen = position + 1
    lse = best + tl.log2(total)
    # It is not finite where logits overflow, and where no key is seen. The weight of an only key is
    # 1 whatever its logit is: that is said here because dP - delta would not be 0 to the last bit.
    undefined = bad_query | (seen > first_bad) | ~(tl.abs(lse) < float("inf")) | (seen == 1)
    delta = tl.where(undefined, 0.0, product / total)
    delta = tl.where(bad_grad, float("nan"), delta)
    place = tl.program_id(1).to(tl.int64) * T + offs_t
    tl.store(lse_ptr + place, tl.where(undefined, float("inf"), lse), mask=mask_t)
    tl.store(delta_ptr + place, delta, mask=mask_t)


@triton.jit
def add_keys(
    acc, q, grad, lse, delta, factor, k_ptr, v_ptr, bad_ptr,
    start, stop, keys, position, stride_ks, stride_kd, stride_vs, stride_vd,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add dS K over the keys from `start` to `stop`; MASKED where one may be hidden."""
    for s in tl.range(start, stop, BLOCK_S):
        offs_s = s + tl.arange(0, BLOCK_S)
        if MASKED:
            mask_s = offs_s < keys
        else:
            mask_s = tl.full((BLOCK_S,), True, tl.int1)
        v = load_rows(v_ptr, offs_s, mask_s, stride_vs, stride_vd, D, BLOCK_D)
        if MASKED:  # a hidden key may hold anything; one that is seen leaves nothing to add
            mask_s = tl.load(bad_ptr + offs_s, mask=mask_s, other=1) == 0
        k = load_rows(k_ptr, offs_s, mask_s, stride_ks, stride_kd, D, BLOCK_D)
        logits = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        weights = tl.exp2(logits * factor - lse[:, None])
        d_weights = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
        d_logits = weights * (d_weights - delta[:, None])
        if MASKED:
            visible = sees(position, offs_s, keys, 0, 0, CAUSAL, False, False)
            d_logits = tl.where(visible, d_logits, 0.0)
        acc = tl.dot(d_logits.to(k.dtype), k, acc, input_precision=PRECISION)
    return acc


@triton.jit
def hard_attention_query_kernel(
    q_ptr, k_ptr, v_ptr, grad_ptr, bad_ptr, lse_ptr, delta_ptr, dq_ptr,
    stride_qb, stride_qh, stride_qt, stride_qd,
    stride_kb, stride_kg, stride_ks, stride_kd,
    stride_vb, stride_vg, stride_vs, stride_vd,
    stride_gb, stride_gh, stride_gt, stride_gd,
    stride_dqb, stride_dqh, stride_dqt, stride_dqd,
    H, G, T, S, scale, factor,
    CAUSAL: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of BLOCK_T queries of one head; grid (ceil(T / BLOCK_T), B * H)."""
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    batch = (tl.program_id(1) // H).to(tl.int64)
    head = (tl.program_id(1) % H).to(tl.int64)
    group = head // (H // G)
    offs_t = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    mask_t = offs_t < T
    position = offs_t + (S - T)
    q_ptr += batch * stride_qb + head * stride_qh
    grad_ptr += batch * stride_gb + head * stride_gh
    k_ptr += batch * stride_kb + group * stride_kg
    v_ptr += batch * stride_vb + group * stride_vg
    bad_ptr += (batch * G + group) * S
    q = load_rows(q_ptr, offs_t, mask_t, stride_qt, stride_qd, D, BLOCK_D)
    grad = load_rows(grad_ptr, offs_t, mask_t, stride_gt, stride_gd, D, BLOCK_D)
    place = tl.program_id(1).to(tl.int64) * T + offs_t
    lse = tl.load(lse_ptr + place, mask=mask_t, other=float("inf"))
    delta = tl.load(delta_ptr + place, mask=mask_t, other=0.0)

    acc = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
    first = tile * BLOCK_T + (S - T)
    last = tl.minimum(tile * BLOCK_T + BLOCK_T, T) - 1 + (S - T)
    start, _full, rest, stop = key_range(first, last, S, 0, 0, CAUSAL, False, False, BLOCK_S)
    acc = add_keys(
        acc, q, grad, lse, delta, factor, k_ptr, v_ptr, bad_ptr,
        start, rest, S, position, stride_ks, stride_kd, stride_vs, stride_vd,
        False, CAUSAL, D, BLOCK_D, BLOCK_S, PRECISION,
    )  # fmt: skip
    acc = add_keys(
        acc, q, grad, lse, delta, factor, k_ptr, v_ptr, bad_ptr,
        rest, stop, S, position, stride_ks, stride_kd, stride_vs, stride_vd,
        True, CAUSAL, D, BLOCK_D, BLOCK_S, PRECISION,
    )  # fmt: skip
    nothing = (lse == float("inf")) & (delta == delta)
    d_query = tl.where(nothing[:, None], 0.0, acc * scale)
    dq_ptr += batch * stride_dqb + head * stride_dqh
    store_rows(dq_ptr, d_query, offs_t, mask_t, stride_dqt, stride_dqd, D, BLOCK_D)


@triton.jit
def add_queries(
    acc, k, v, factor, q_ptr, grad_ptr, lse_ptr, delta_ptr,
    start, stop, T, S, offs_s, stride_qt, stride_qd, stride_gt, stride_gd,
    MASKED: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_T: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add dS^T Q over the queries from `start` to `stop`; MASKED where one may not see a key."""
    for t in tl.range(start, stop, BLOCK_T):
        offs_t = t + tl.arange(0, BLOCK_T)
        mask_t = offs_t < T
        lse = tl.load(lse_ptr + offs_t, mask=mask_t, other=float("inf"))
        delta = tl.load(delta_ptr + offs_t, mask=mask_t, other=0.0)
        # A query without a softmax may hold anything; as zeros it has weights 0 and adds nothing.
        has_softmax = lse < float("inf")
        q = load_rows(q_ptr, offs_t, has_softmax, stride_qt, stride_qd, D, BLOCK_D)
        grad = load_rows(grad_ptr, offs_t, has_softmax, stride_gt, stride_gd, D, BLOCK_D)
        logits = tl.dot(k, tl.trans(q), input_precision=PRECISION)
        weights = tl.exp2(logits * factor - lse[None, :])
        d_weights = tl.dot(v, tl.trans(grad), input_precision=PRECISION)
        d_logits = weights * (d_weights - delta[None, :])
        if MASKED:
            visible = (offs_t + (S - T))[None, :] >= offs_s[:, None]
            d_logits = tl.where(visible, d_logits, 0.0)
        acc = tl.dot(d_logits.to(q.dtype), q, acc, input_precision=PRECISION)
    return acc


@triton.jit
def hard_attention_key_kernel(
    q_ptr, k_ptr, v_ptr, grad_ptr, bad_ptr, lse_ptr, delta_ptr, dk_ptr,
    stride_qb, stride_qh, stride_qt, stride_qd,
    stride_kb, stride_kg, stride_ks, stride_kd,
    stride_vb, stride_vg, stride_vs, stride_vd,
    stride_gb, stride_gh, stride_gt, stride_gd,
    stride_dkb, stride_dkg, stride_dks, stride_dkd,
    H, G, T, S, scale, factor,
    CAUSAL: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of BLOCK_S keys of one key head; grid (ceil(S / BLOCK_S), B * G)."""
    batch = (tl.program_id(1) // G).to(tl.int64)
    group = (tl.program_id(1) % G).to(tl.int64)
    offs_s = tl.program_id(0) * BLOCK_S + tl.arange(0, BLOCK_S)
    mask_s = offs_s < S
    k_ptr += batch * stride_kb + group * stride_kg
    v_ptr += batch * stride_vb + group * stride_vg
    k = load_rows(k_ptr, offs_s, mask_s, stride_ks, stride_kd, D, BLOCK_D)
    v = load_rows(v_ptr, offs_s, mask_s, stride_vs, stride_vd, D, BLOCK_D)

    # Queries from `start` to `all_see` see some of these keys or none, those after it see all.
    start = 0
    all_see = 0
    if CAUSAL:
        start = tl.maximum(tl.program_id(0) * BLOCK_S - (S - T), 0) // BLOCK_T * BLOCK_T
        last = tl.minimum(tl.program_id(0) * BLOCK_S + BLOCK_S, S) - 1
        all_see = tl.cdiv(tl.maximum(last - (S - T), 0), BLOCK_T) * BLOCK_T
    acc = tl.zeros((BLOCK_S, BLOCK_D), tl.float32)
    q_ptr += batch * stride_qb + group * (H // G) * stride_qh
    grad_ptr += batch * stride_gb + group * (H // G) * stride_gh
    lse_ptr += (batch * H + group * (H // G)) * T
    delta_ptr += (batch * H + group * (H // G)) * T
    for part in tl.static_range(2):
        if part == 0:
            low, high = start, tl.minimum(all_see, T)
        else:
            low, high = all_see, T
        if part == 1 or CAUSAL:
            q_head, grad_head, lse_head, delta_head = q_ptr, grad_ptr, lse_ptr, delta_ptr
            for _head in tl.range(0, H // G):
                acc = add_queries(
                    acc, k, v, factor, q_head, grad_head, lse_head, delta_head,
                    low, high, T, S, offs_s, stride_qt, stride_qd, stride_gt, stride_gd,
                    part == 0, D, BLOCK_D, BLOCK_T, PRECISION,
                )  # fmt: skip
                q_head += stride_qh
                grad_head += stride_gh
                lse_head += T
                delta_head += T
    # No query that sees such a key has a softmax, so nothing was to be added to it.
    bad = tl.load(bad_ptr + (batch * G + group) * S + offs_s, mask=mask_s, other=0) != 0
    acc = tl.where(bad[:, None], 0.0, acc)
    dk_ptr += batch * stride_dkb + group * stride_dkg
    store_rows(dk_ptr, acc * scale, offs_s, mask_s, stride_dks, stride_dkd, D, BLOCK_D)


@triton.jit
def hard_attention_value_kernel(
    grad_ptr, order_ptr, ends_ptr, dv_ptr,
    stride_gb, stride_gh, stride_gt, stride_gd,
    stride_dvb, stride_dvg, stride_dvs, stride_dvd,
    H, G, T, S,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Add up the output's gradients of the queries that chose one key; grid (S, B * G)."""
    batch = (tl.program_id(1) // G).to(tl.int64)
    group = (tl.program_id(1) % G).to(tl.int64)
    ends_ptr += tl.program_id(1).to(tl.int64) * (S + 1) + tl.program_id(0)
    order_ptr += tl.program_id(1).to(tl.int64) * (H // G) * T
    start = tl.load(ends_ptr)
    stop = tl.load(ends_ptr + 1)
    acc = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    for n in tl.range(start, stop, BLOCK_N):
        offs_n = n + tl.arange(0, BLOCK_N)
        mask_n = offs_n < stop
        query = tl.load(order_ptr + offs_n, mask=mask_n, other=0)
        head = group * (H // G) + query // T
        rows = grad_ptr + batch * stride_gb + head * stride_gh + (query % T) * stride_gt
        columns = tl.arange(0, BLOCK_D)[None, :]
        mask = mask_n[:, None] & (columns < D)
        acc += tl.load(rows[:, None] + columns * stride_gd, mask=mask, other=0.0).to(tl.float32)
    columns = tl.arange(0, BLOCK_D)
    place = dv_ptr + batch * stride_dvb + group * stride_dvg
    place += tl.program_id(0).to(tl.int64) * stride_dvs + columns * stride_dvd
    tl.store(place, tl.sum(acc, 0).to(dv_ptr.dtype.element_ty), mask=columns < D)


def hard_attention_backward_of_choice(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    causal: bool,
    needs_query: bool,
    needs_key: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """The softmax's gradients of query and key in their dtype; None may stand where none is needed.

    The memory beside them is two float32 for every query and, for a moment, a copy of key or value.
    """
    (B, H, T, D), (G, S) = query.shape, key.shape[1:3]
    if B * T * S == 0:
        return torch.zeros_like(query), torch.zeros_like(key)
    d_query = torch.empty_like(query) if needs_query else None
    d_key = torch.empty_like(key) if needs_key else None
    lse, delta = query.new_empty(2, B, H, T, dtype=torch.float32)
    bad, first_bad = _bad_keys(key, value)
    inputs = (query, key, value, grad)
    strides = [stride for x in inputs for stride in x.stride()]
    factor = scale * math.log2(math.e)
    options = {
        "CAUSAL": causal, "D": D, "BLOCK_D": launch.padded(D),
        "PRECISION": launch.dot_precision(query.dtype), **launch.OPTIONS,
    }  # fmt: skip
    with torch.cuda.device_of(query):  # Triton launches on the current device
        rows, columns, warps, stages = sums_tiles(D, query.dtype)
        hard_attention_sums_kernel[triton.cdiv(T, rows), B * H](
            *inputs, first_bad, lse, delta, *strides, H, G, T, S, factor,
            BLOCK_T=rows, BLOCK_S=columns, num_warps=warps, num_stages=stages, **options,
        )  # fmt: skip
        if d_query is not None:
            rows, columns, warps, stages = query_tiles(D, query.dtype)
            hard_attention_query_kernel[triton.cdiv(T, rows), B * H](
                *inputs, bad, lse, delta, d_query, *strides, *d_query.stride(),
                H, G, T, S, scale, factor,
                BLOCK_T=rows, BLOCK_S=columns, num_warps=warps, num_stages=stages, **options,
            )  # fmt: skip
        if d_key is not None:
            rows, columns, warps, stages = key_tiles(D, query.dtype)
            hard_attention_key_kernel[triton.cdiv(S, rows), B * G](
                *inputs, bad, lse, delta, d_key, *strides, *d_key.stride(),
                H, G, T, S, scale, factor,
                BLOCK_S=rows, BLOCK_T=columns, num_warps=warps, num_stages=stages, **options,
            )  # fmt: skip
    return d_query, d_key


def _bad_keys(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Where a key or its value is not finite (B, G, S), and the first place, S if none (B, G)."""
    S = key.shape[2]
    bad = ((key * 0).sum(-1) != 0) | ((value * 0).sum(-1) != 0)  # 0 * inf is NaN too
    place = torch.arange(S, dtype=torch.int32, device=key.device)
    return bad, torch.where(bad, place, S).amin(-1)


def hard_attention_backward_of_copy(grad: Tensor, index: Tensor, value: Tensor) -> Tensor:
    """onehot^T dO in value's dtype: each row of grad is added where its output was copied from.

    The queries are sorted by the key they chose, so that no two programs add to one place and
    every sum has a fixed order.
    """
    (B, H, T), (_, G, S, D) = index.shape, value.shape
    d_value = torch.empty_like(value)
    if B * T * S == 0:
        return d_value.zero_()
    chosen, order = index.to(torch.int32).view(B * G, H // G * T).sort(stable=True)
    keys = torch.arange(S + 1, dtype=torch.int32, device=index.device).expand(B * G, S + 1)
    ends = torch.searchsorted(chosen, keys.contiguous(), out_int32=True)
    block_d = launch.padded(D)
    with torch.cuda.device_of(value):
        hard_attention_value_kernel[S, B * G](
            grad, order, ends, d_value, *grad.stride(), *d_value.stride(), H, G, T, S,
            D=D, BLOCK_D=block_d, BLOCK_N=copies_at_a_time(block_d),
            num_warps=2, num_stages=3, **launch.OPTIONS,
        )  # fmt: skip
    return d_value
