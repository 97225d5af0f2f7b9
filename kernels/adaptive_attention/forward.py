"""Attention that sharpens itself: one sweep over the keys for the entropy, one for the output."""

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.adaptive_attention.limits import forward_tiles
from pyseq.kernels.adaptive_attention.rows import (
    FLOOR,
    load_rows,
    sharpness,
    store_rows,
)
from pyseq.kernels.attention import LN_2, any_seen, clean_rows, key_range, sees, sees_a_key


@triton.jit
def measure(
    best, total, moment, q, factor, k_ptr, start, stop, keys, position, stride_ks, stride_kd,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add keys to the running maximum of <q, k>, the sum of 2^c and that of c 2^c.

    c is the logit less the largest one, in units of ln 2.
    """
    for s in tl.range(start, stop, BLOCK_S, num_stages=1 if MASKED else None):
        offs_s = s + tl.arange(0, BLOCK_S)
        k = load_rows(k_ptr, offs_s, offs_s < keys, stride_ks, stride_kd, D, BLOCK_D, MASKED)
        product = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        if MASKED:
            visible = sees(position, offs_s, keys, 0, 0, CAUSAL, False, False)
            product = tl.where(visible, product, float("-inf"))
        highest = tl.maximum(best, tl.max(product, 1))
        shift = highest
        if MASKED:  # a row that has seen no key yet
            shift = tl.where(highest == float("-inf"), 0.0, highest)
        # Subtracted before anything is multiplied: large logits are exact, what they differ by too.
        centred = (product - shift[:, None]) * factor
        mass = tl.exp2(centred)
        fall = tl.maximum((best - shift) * factor, FLOOR)
        fade = tl.exp2(fall)
        if MASKED:  # a key that is not visible has c = -inf, and 0 * -inf would be NaN
            centred = tl.maximum(centred, FLOOR)
        # A visible one has c = -inf if it is not finite: then this is NaN, as it should be.
        moment = fade * (moment + fall * total) + tl.sum(mass * centred, 1)
        total = fade * total + tl.sum(mass, 1)
        best = highest
    return best, total, moment


@triton.jit
def attend(
    acc, total, poisoned, q, best, sharp, k_ptr, v_ptr, start, stop, keys, position,
    stride_ks, stride_kd, stride_vs, stride_vd,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add keys to softmax(beta s) V and its denominator; the largest beta s is known."""
    for s in tl.range(start, stop, BLOCK_S, num_stages=1 if MASKED else None):
        offs_s = s + tl.arange(0, BLOCK_S)
        k = load_rows(k_ptr, offs_s, offs_s < keys, stride_ks, stride_kd, D, BLOCK_D, MASKED)
        v = load_rows(v_ptr, offs_s, offs_s < keys, stride_vs, stride_vd, D, BLOCK_D, MASKED)
        if MASKED:
            bad_key = tl.sum(k.to(tl.float32) * 0.0, 1) != 0.0  # 0 * inf is NaN too
            v, bad_value = clean_rows(v)
        product = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        weights = tl.exp2((product - best[:, None]) * sharp[:, None])
        if MASKED:
            visible = sees(position, offs_s, keys, 0, 0, CAUSAL, False, False)
            poisoned = poisoned | any_seen(visible, bad_key | bad_value)
            weights = tl.where(visible, weights, 0.0)
        total += tl.sum(weights, 1)
        acc = tl.dot(weights.to(v.dtype), v, acc, input_precision=PRECISION)
    return acc, total, poisoned


@triton.jit
def adaptive_attention_forward_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, measures_ptr,
    stride_qb, stride_qh, stride_qt, stride_qd,
    stride_kb, stride_kg, stride_ks, stride_kd,
    stride_vb, stride_vg, stride_vs, stride_vd,
    stride_ob, stride_oh, stride_ot, stride_od,
    H, G, T, S, factor,
    COEFFICIENTS: tl.constexpr, CAUSAL: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program makes BLOCK_T outputs of one head; grid (ceil(T / BLOCK_T), B * H)."""
    # The last tiles have most keys to see under causality: they go first.
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    batch = (tl.program_id(1) // H).to(tl.int64)
    head = (tl.program_id(1) % H).to(tl.int64)
    group = head // (H // G)
    q_ptr += batch * stride_qb + head * stride_qh
    k_ptr += batch * stride_kb + group * stride_kg
    v_ptr += batch * stride_vb + group * stride_vg
    offs_t = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    mask_t = offs_t < T
    position = offs_t + (S - T)
    q = load_rows(q_ptr, offs_t, mask_t, stride_qt, stride_qd, D, BLOCK_D, True)
    first = tile * BLOCK_T + (S - T)
    last = tl.minimum(tile * BLOCK_T + BLOCK_T, T) - 1 + (S - T)
    _, start, rest, stop = key_range(first, last, S, 0, 0, CAUSAL, False, False, BLOCK_S)

    best = tl.full((BLOCK_T,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_T,), tl.float32)
    moment = tl.zeros((BLOCK_T,), tl.float32)
    for part in tl.static_range(2):
        best, total, moment = measure(
            best, total, moment, q, factor, k_ptr,
            start if part == 0 else rest, rest if part == 0 else stop,
            S, position, stride_ks, stride_kd,
            part == 1, CAUSAL, D, BLOCK_D, BLOCK_S, PRECISION,
        )  # fmt: skip
    seeing = sees_a_key(position, S, 0, 0, CAUSAL, False, False)
    safe = tl.where(seeing, total, 1.0)
    log_total = tl.log2(safe)
    nats = (log_total - moment / safe) * LN_2
    beta, _slope = sharpness(nats, COEFFICIENTS)

    acc = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
    total = tl.zeros((BLOCK_T,), tl.float32)
    poisoned = moment != moment
    for part in tl.static_range(2):
        acc, total, poisoned = attend(
            acc, total, poisoned, q, best, factor * beta, k_ptr, v_ptr,
            start if part == 0 else rest, rest if part == 0 else stop,
            S, position, stride_ks, stride_kd, stride_vs, stride_vd,
            part == 1, CAUSAL, D, BLOCK_D, BLOCK_S, PRECISION,
        )  # fmt: skip
    safe = tl.where(seeing, total, 1.0)
    out = acc / safe[:, None]
    poisoned = poisoned | (tl.sum(out * 0.0, 1) != 0.0)  # 0 * inf is NaN too
    out = tl.where(poisoned[:, None], float("nan"), out)
    out = tl.where(seeing[:, None], out, 0.0)
    out_ptr += batch * stride_ob + head * stride_oh
    store_rows(out_ptr, out, offs_t, mask_t, stride_ot, stride_od, D, BLOCK_D)

    planes = tl.num_programs(1).to(tl.int64) * T
    measures_ptr += tl.program_id(1).to(tl.int64) * T + offs_t
    for plane in tl.static_range(4):
        if plane == 0:
            x = best
        elif plane == 1:
            x = log_total * LN_2
        elif plane == 2:
            x = nats
        else:
            x = tl.log2(safe) * LN_2
        x = tl.where(poisoned, float("nan"), x)
        x = tl.where(seeing, x, 0.0)
        tl.store(measures_ptr + plane * planes, x, mask=mask_t)


def adaptive_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    coefficients: Sequence[float],
    causal: bool,
) -> tuple[Tensor, Tensor]:
    """The output, in the query's memory order, and the measures of its rows, (4, B, H, T) float32.

    The measures are, with s = scale <q, k>: the largest <q, k>, ln sum e^(s - max s), the entropy
    of softmax(s) in nats and ln sum e^(beta (s - max s)); NaN for an output that is not finite, 0
    for a query that sees no key.
    """
    (B, H, T, D), (G, S) = query.shape, key.shape[1:3]
    out = torch.empty_like(query)
    measures = torch.empty(4, B, H, T, dtype=torch.float32, device=query.device)
    if measures.numel() == 0:
        return out, measures
    tiles = forward_tiles(D, query.dtype, launch.capability(query))
    with torch.cuda.device_of(query):  # Triton launches on the current device
        adaptive_attention_forward_kernel[triton.cdiv(T, tiles.block_t), B * H](
            query, key, value, out, measures,
            *query.stride(), *key.stride(), *value.stride(), *out.stride(),
            H, G, T, S, scale * math.log2(math.e),
            COEFFICIENTS=tuple(coefficients), CAUSAL=causal, D=D, BLOCK_D=launch.padded(D),
            BLOCK_T=tiles.block_t, BLOCK_S=tiles.block_s,
            PRECISION=launch.dot_precision(query.dtype),
            num_warps=tiles.warps, num_stages=tiles.stages, **launch.OPTIONS,
        )  # fmt: skip
    return out, measures
