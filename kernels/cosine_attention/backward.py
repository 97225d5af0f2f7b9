"""The gradient of attention over normalised queries and keys.

Four kernels. Two make the rows that a product needs, once and not in every tile that reads them:
queries and keys prepared (normalised, weighted, rotated) and without NaN, and of every query its
log-sum-exp and `delta`. Then one kernel goes over key tiles and one over query tiles; both restore
the attention weights from the log-sum-exp and end with the gradients of rotation, gain and norm, in
registers. Sums over rows are left per program and added in a fixed order.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.attention import LOG2_E, key_range, sees
from pyseq.kernels.cosine_attention.limits import backward_tiles
from pyseq.kernels.cosine_attention.preparation import (
    ROWS,
    as_halves,
    largest_scale,
    prepare_keys_kernel,
    prepare_queries_kernel,
    store_vector,
    through_preparation,
)
from pyseq.kernels.heads import dense, mask_within, near_rows
from pyseq.kernels.prepare_keys.rows import store_halves


@triton.jit
def query_range(
    first, last, T, shift, window, prefix,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_PREFIX: tl.constexpr,
    BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Which queries, at positions t + shift, see any of the keys from `first` to `last`.

    Returns:
        (start, full, rest, stop): in tiles from `start` to `full` and from `rest` to `stop` some
            query may not see some key; those from `full` to `rest` see all. All but `stop` are
            multiples of BLOCK_T.
    """
    start = 0
    full = 0
    rest = T
    stop = T
    if CAUSAL:
        start = first - shift
        full = last - shift
    elif HAS_WINDOW:
        start = first - window + 1 - shift
        full = last - window + 1 - shift
    if HAS_WINDOW:
        rest = first + window - shift
        stop = last + window - shift
    if HAS_PREFIX:
        start = tl.where(first < prefix, 0, start)
        stop = tl.where(first < prefix, T, stop)
        full = tl.where(last < prefix, 0, full)
        rest = tl.where(last < prefix, T, rest)
    start = tl.maximum(start, 0) // BLOCK_T * BLOCK_T
    stop = tl.where(last < first, start, tl.maximum(tl.minimum(stop, T), start))
    rest = tl.maximum(tl.minimum(rest, stop), start) // BLOCK_T * BLOCK_T
    full = tl.minimum(tl.cdiv(tl.maximum(full, start), BLOCK_T) * BLOCK_T, rest)
    return start, full, rest, stop


@triton.jit
def sweep_queries(
    d_k, d_v, k, v, factor, share,
    q_ptr, grad_ptr, lse_ptr, delta_ptr, offs_s,
    start, pause, resume, stop, shift, keys, window, prefix,
    MASKED: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_PREFIX: tl.constexpr,
    NEEDS_LOGITS: tl.constexpr, NEEDS_V: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_T: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add the queries from `start` to `pause` and from `resume` to `stop`, of one head."""
    columns = tl.arange(0, BLOCK_D)
    tile_t = tl.arange(0, BLOCK_T)
    tile = tile_t[:, None] * BLOCK_D + columns[None, :]
    early = tl.cdiv(pause - start, BLOCK_T)
    jump = resume - (start + early * BLOCK_T)
    for i in tl.range(0, early + tl.cdiv(stop - resume, BLOCK_T)):
        t = start + i * BLOCK_T
        if MASKED:
            t += tl.where(i < early, 0, jump)
        offs_t = t + tile_t
        place = t.to(tl.int64) * BLOCK_D
        q = tl.load(q_ptr + place + tile)
        grad = tl.load(grad_ptr + place + tile)
        lse = tl.load(lse_ptr + offs_t)
        # Keys are the rows here: (keys, queries).
        logits = tl.dot(k, tl.trans(q), input_precision=PRECISION)
        weights = tl.exp2(logits * factor - lse[None, :])
        if MASKED:
            visible = sees(
                offs_t + shift, offs_s, keys, window, prefix, CAUSAL, HAS_WINDOW, HAS_PREFIX
            )
            weights = tl.where(tl.trans(visible), weights, 0.0)
        if NEEDS_V:
            d_v = tl.dot(weights.to(grad.dtype), grad, d_v, input_precision=PRECISION)
        if NEEDS_LOGITS:
            d_weights = tl.dot(v, tl.trans(grad), input_precision=PRECISION)
            delta = tl.load(delta_ptr + offs_t)  # times the share
            # By a share of at most 1: the scale itself could make float16 overflow.
            d_logits = weights * (d_weights * share - delta[None, :])
            d_k = tl.dot(d_logits.to(q.dtype), q, d_k, input_precision=PRECISION)
    return d_k, d_v


@triton.jit
def key_gradients_kernel(
    q_ptr, k_ptr, v_ptr, grad_ptr, lse_ptr, delta_ptr, scale_ptr,
    raw_ptr, key_weight_ptr, cos_ptr, sin_ptr, lengths_ptr,
    d_key_ptr, d_value_ptr, d_key_weight_ptr,
    stride_rb, stride_rg, stride_rs, stride_rd,
    stride_dkb, stride_dkg, stride_dks, stride_dkd,
    stride_dvb, stride_dvg, stride_dvs, stride_dvd,
    stride_scale, stride_angle, stride_angle_d,
    H, G, T, padded_t, S, padded_s, window, prefix, eps,
    NORM: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_ROPE: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_PREFIX: tl.constexpr,
    NEEDS_K: tl.constexpr, NEEDS_V: tl.constexpr, NEEDS_WEIGHT: tl.constexpr,
    D: tl.constexpr, HALF: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program makes BLOCK_S rows of d_key and d_value; grid (ceil(S / BLOCK_S), B * G)."""
    tile = tl.program_id(0)
    batch = (tl.program_id(1) // G).to(tl.int64)
    group = (tl.program_id(1) % G).to(tl.int64)
    keys = S
    if HAS_LENGTHS:
        keys = tl.load(lengths_ptr + batch).to(tl.int32)
    offs_s = tile * BLOCK_S + tl.arange(0, BLOCK_S)
    columns = tl.arange(0, BLOCK_D)
    places = tl.program_id(1).to(tl.int64) * padded_s * BLOCK_D
    places += offs_s[:, None].to(tl.int64) * BLOCK_D + columns[None, :]
    k = tl.load(k_ptr + places)
    v = tl.load(v_ptr + places)

    d_k = tl.zeros((BLOCK_S, BLOCK_D), tl.float32)
    d_v = tl.zeros((BLOCK_S, BLOCK_D), tl.float32)
    start, full, rest, stop = query_range(
        tile * BLOCK_S, tl.minimum(tile * BLOCK_S + BLOCK_S, keys) - 1, T, keys - T,
        window, prefix, CAUSAL, HAS_WINDOW, HAS_PREFIX, BLOCK_T,
    )  # fmt: skip
    largest = largest_scale(scale_ptr, group, H // G, stride_scale)
    for member in tl.range(0, H // G):
        head = group * (H // G) + member
        scale = tl.load(scale_ptr + head * stride_scale).to(tl.float32)
        place = (batch * H + head) * padded_t
        for MASKED in tl.static_range(2):
            low = start if MASKED else full
            high = full if MASKED else rest
            d_k, d_v = sweep_queries(
                d_k, d_v, k, v, scale * LOG2_E, scale / largest,
                q_ptr + place * BLOCK_D, grad_ptr + place * BLOCK_D,
                lse_ptr + place, delta_ptr + place, offs_s,
                low, high, rest, stop if MASKED else rest, keys - T, keys, window, prefix,
                MASKED, CAUSAL, HAS_WINDOW, HAS_PREFIX, NEEDS_K or NEEDS_WEIGHT, NEEDS_V,
                BLOCK_D, BLOCK_T, PRECISION,
            )  # fmt: skip

    # Counted from the tile's first row: no offset from above has to outlive the loops.
    first = (tile * BLOCK_S).to(tl.int64)
    rows_s = tl.arange(0, BLOCK_S)
    known = rows_s < keys - tile * BLOCK_S
    inside = rows_s < S - tile * BLOCK_S
    if NEEDS_V:
        d_v = tl.where(known[:, None], d_v, 0.0)
        places = d_value_ptr + batch * stride_dvb + group * stride_dvg + first * stride_dvs
        places += rows_s[:, None].to(tl.int64) * stride_dvs + columns[None, :] * stride_dvd
        mask = inside[:, None] & (columns < D)[None, :]
        tl.store(places, d_v.to(d_value_ptr.dtype.element_ty), mask=mask)
    if NEEDS_K or NEEDS_WEIGHT:
        d_k = tl.where(known[:, None], d_k * largest, 0.0)
        da, db = as_halves(d_k, BLOCK_S, HALF)
        da, db, weight_a, weight_b = through_preparation(
            da, db, raw_ptr + batch * stride_rb + group * stride_rg + first * stride_rs,
            key_weight_ptr, cos_ptr, sin_ptr,
            rows_s, known, rows_s + tile * BLOCK_S,
            stride_rs, stride_rd, stride_angle, stride_angle_d, eps,
            NORM, HAS_WEIGHT, HAS_ROPE, D, HALF,
        )  # fmt: skip
        if NEEDS_K:
            da = tl.where(known[:, None], da, 0.0)
            db = tl.where(known[:, None], db, 0.0)
            store_halves(
                d_key_ptr + batch * stride_dkb + group * stride_dkg + first * stride_dks,
                da, db, rows_s, inside, stride_dks, stride_dkd, D, HALF,
            )  # fmt: skip
        if NEEDS_WEIGHT:
            place = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tile
            store_vector(d_key_weight_ptr + place * D, weight_a, weight_b, D, HALF)


@triton.jit
def sweep_keys(
    d_q, along, q, grad, lse, delta, middle, factor,
    k_ptr, v_ptr, prefixed, start, pause, resume, stop,
    position, keys, window, prefix,
    MASKED: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_PREFIX: tl.constexpr,
    NEEDS_SCALE: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add the keys up to `prefixed`, from `start` to `pause` and from `resume` to `stop`."""
    columns = tl.arange(0, BLOCK_D)
    tile_s = tl.arange(0, BLOCK_S)
    tile = tile_s[:, None] * BLOCK_D + columns[None, :]
    before = tl.cdiv(prefixed, BLOCK_S)
    early = before + tl.cdiv(pause - start, BLOCK_S)
    for i in tl.range(0, early + tl.cdiv(stop - resume, BLOCK_S)):
        if MASKED:
            s = tl.where(i < early, start + (i - before) * BLOCK_S, resume + (i - early) * BLOCK_S)
            if HAS_PREFIX and HAS_WINDOW:
                s = tl.where(i < before, i * BLOCK_S, s)
        else:
            s = start + i * BLOCK_S
        offs_s = s + tile_s
        place = s.to(tl.int64) * BLOCK_D
        k = tl.load(k_ptr + place + tile)
        v = tl.load(v_ptr + place + tile)
        logits = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        weights = tl.exp2(logits * factor - lse[:, None])
        d_weights = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
        d_logits = weights * (d_weights - delta[:, None])
        if MASKED:
            visible = sees(position, offs_s, keys, window, prefix, CAUSAL, HAS_WINDOW, HAS_PREFIX)
            d_logits = tl.where(visible, d_logits, 0.0)
        if NEEDS_SCALE:  # before d_logits are rounded for the product: they cancel in the sum
            away = logits - middle[:, None]
            if MASKED:  # a hidden logit may be infinite
                away = tl.where(visible, away, 0.0)
            along += tl.sum(d_logits * away, 1)
        d_q = tl.dot(d_logits.to(k.dtype), k, d_q, input_precision=PRECISION)
    return d_q, along


@triton.jit
def query_gradients_kernel(
    q_ptr, k_ptr, v_ptr, grad_ptr, lse_ptr, delta_ptr, middle_ptr, scale_ptr,
    raw_ptr, query_weight_ptr, cos_ptr, sin_ptr, lengths_ptr,
    d_query_ptr, d_scale_ptr, d_query_weight_ptr,
    stride_rb, stride_rh, stride_rt, stride_rd,
    stride_dqb, stride_dqh, stride_dqt, stride_dqd,
    stride_scale, stride_angle, stride_angle_d,
    H, G, T, padded_t, S, padded_s, window, prefix, eps,
    NORM: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_ROPE: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_PREFIX: tl.constexpr,
    NEEDS_Q: tl.constexpr, NEEDS_SCALE: tl.constexpr, NEEDS_WEIGHT: tl.constexpr,
    D: tl.constexpr, HALF: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program makes BLOCK_T rows of d_query of one head; grid (ceil(T / BLOCK_T), B * H)."""
    # The last tiles have most keys to see under causality: they go first.
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    batch = (tl.program_id(1) // H).to(tl.int64)
    head = (tl.program_id(1) % H).to(tl.int64)
    group = head // (H // G)
    keys = S
    if HAS_LENGTHS:
        keys = tl.load(lengths_ptr + batch).to(tl.int32)
    offs_t = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    position = offs_t + (keys - T)
    columns = tl.arange(0, BLOCK_D)
    place = tl.program_id(1).to(tl.int64) * padded_t
    places = place * BLOCK_D + offs_t[:, None].to(tl.int64) * BLOCK_D + columns[None, :]
    q = tl.load(q_ptr + places)
    grad = tl.load(grad_ptr + places)
    lse = tl.load(lse_ptr + place + offs_t)
    delta = tl.load(delta_ptr + place + offs_t)
    middle = tl.load(middle_ptr + place + offs_t)
    scale = tl.load(scale_ptr + head * stride_scale).to(tl.float32)

    d_q = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
    along = tl.zeros((BLOCK_T,), tl.float32)
    first = tile * BLOCK_T + (keys - T)
    last = tl.minimum(tile * BLOCK_T + BLOCK_T, T) - 1 + (keys - T)
    start, full, rest, stop = key_range(
        first, last, keys, window, prefix, CAUSAL, HAS_WINDOW, HAS_PREFIX, BLOCK_S
    )
    prefixed = 0
    if HAS_PREFIX and HAS_WINDOW:
        prefixed = tl.minimum(start, prefix)
    group_place = (batch * G + group) * padded_s * BLOCK_D
    for MASKED in tl.static_range(2):
        d_q, along = sweep_keys(
            d_q, along, q, grad, lse, delta, middle, scale * LOG2_E,
            k_ptr + group_place, v_ptr + group_place,
            prefixed if MASKED else 0, start if MASKED else full, full if MASKED else rest,
            rest, stop if MASKED else rest,
            position, keys, window, prefix,
            MASKED, CAUSAL, HAS_WINDOW, HAS_PREFIX, NEEDS_SCALE, BLOCK_D, BLOCK_S, PRECISION,
        )  # fmt: skip

    # Counted from the tile's first row: no offset from above has to outlive the loops.
    first = (tile * BLOCK_T).to(tl.int64)
    rows_t = tl.arange(0, BLOCK_T)
    inside = rows_t < T - tile * BLOCK_T
    da, db = as_halves(d_q, BLOCK_T, HALF)
    da, db, weight_a, weight_b = through_preparation(
        da, db, raw_ptr + batch * stride_rb + head * stride_rh + first * stride_rt,
        query_weight_ptr, cos_ptr, sin_ptr, rows_t, inside, rows_t + (tile * BLOCK_T + keys - T),
        stride_rt, stride_rd, stride_angle, stride_angle_d, eps,
        NORM, HAS_WEIGHT, HAS_ROPE, D, HALF,
    )  # fmt: skip
    place = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tile
    if NEEDS_SCALE:
        tl.store(d_scale_ptr + place, tl.sum(along, 0))
    if NEEDS_Q:
        store_halves(
            d_query_ptr + batch * stride_dqb + head * stride_dqh + first * stride_dqt,
            da * scale, db * scale, rows_t, inside, stride_dqt, stride_dqd, D, HALF,
        )  # fmt: skip
    if NEEDS_WEIGHT:
        store_vector(d_query_weight_ptr + place * D, weight_a * scale, weight_b * scale, D, HALF)


def cosine_attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: Tensor,
    query_weight: Tensor | None,
    key_weight: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    lengths: Tensor | None,
    out: Tensor,
    lse: Tensor,
    norm: str | None,
    eps: float,
    causal: bool,
    window: int | None,
    prefix: int,
    keys_are_prepared: bool,
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of query, key, value, scale and the two weights, None where not needed.

    Entry b has lengths[b] keys, and its last query stands at the last of them; the keys after them
    get zeros. Prepared keys are used as they are: norm and rotation are the queries' alone.
    """
    (B, H, T, D), (G, S) = query.shape, key.shape[1:3]
    trained = (query, key, value, scale, query_weight, key_weight)
    wanted = [need and x is not None for x, need in zip(trained, needs, strict=True)]
    if B * T * S == 0:
        return [
            torch.zeros_like(x) if need and x is not None else None
            for x, need in zip(trained, wanted, strict=True)
        ]
    grad = near_rows(grad)
    window, prefix = mask_within(window, prefix, T, S)
    query_weight, key_weight, cos, sin, lengths = dense(query_weight, key_weight, cos, sin, lengths)
    half = launch.padded((D + 1) // 2)
    angle_strides = (0, 0) if cos is None else cos.stride()
    scale_stride = scale.stride(0) if scale.dim() else 0
    of_query = {
        "NORM": norm or "none",
        "HAS_WEIGHT": query_weight is not None,
        "HAS_ROPE": cos is not None,
    }
    of_key = {
        "NORM": "none" if keys_are_prepared else norm or "none",
        "HAS_WEIGHT": key_weight is not None,
        "HAS_ROPE": cos is not None and not keys_are_prepared,
    }
    tiles = backward_tiles(D, query.dtype, launch.capability(query))
    # Whole tiles, so that no load in a loop needs a mask.
    padded_t = _whole(T, max(ROWS, tiles.keys.block_t, tiles.queries.block_t))
    padded_s = _whole(S, max(ROWS, tiles.keys.block_s, tiles.queries.block_s))
    prepared_query, clean_grad = query.new_empty(2, B, H, padded_t, 2 * half)
    prepared_key, clean_value = key.new_empty(2, B, G, padded_s, 2 * half)
    numbers = query.new_empty(4, B, H, padded_t, dtype=torch.float32)
    lse2, delta, scaled_delta, middle = numbers
    shared: dict[str, Any] = {
        "HAS_LENGTHS": lengths is not None, "CAUSAL": causal,
        "HAS_WINDOW": window is not None, "HAS_PREFIX": prefix > 0,
        "D": D, "HALF": half, "BLOCK_D": 2 * half,
        "PRECISION": launch.dot_precision(query.dtype), **launch.OPTIONS,
    }  # fmt: skip
    found: list[Tensor | None] = [None] * 6
    with torch.cuda.device_of(query):  # Triton launches on the current device
        prepare_queries_kernel[padded_t // ROWS, B * H](
            query, out, grad, lse, scale, query_weight, cos, sin, lengths,
            prepared_query, clean_grad, lse2, delta, scaled_delta, middle,
            *query.stride(), *out.stride(), *grad.stride(),
            scale_stride, *angle_strides, H, G, T, padded_t, S, window or 0, prefix, eps,
            **of_query, CAUSAL=causal, HAS_WINDOW=window is not None,
            HAS_LENGTHS=lengths is not None, D=D, HALF=half, BLOCK_T=ROWS,
            num_warps=4, **launch.OPTIONS,
        )  # fmt: skip
        prepare_keys_kernel[padded_s // ROWS, B * G](
            key, value, key_weight, cos, sin, prepared_key, clean_value,
            *key.stride(), *value.stride(), *angle_strides, G, S, padded_s, eps,
            **of_key, D=D, HALF=half, BLOCK_S=ROWS, num_warps=4, **launch.OPTIONS,
        )  # fmt: skip
        if wanted[1] or wanted[2] or wanted[5]:
            grid = triton.cdiv(S, tiles.keys.block_s), B * G
            d_key = torch.empty_like(key) if wanted[1] else None
            d_value = torch.empty_like(value) if wanted[2] else None
            d_weight = query.new_empty(*grid, D, dtype=torch.float32) if wanted[5] else None
            key_gradients_kernel[grid](
                prepared_query, prepared_key, clean_value, clean_grad, lse2, scaled_delta, scale,
                key, key_weight, cos, sin, lengths, d_key, d_value, d_weight,
                *key.stride(), *_strides(d_key), *_strides(d_value), scale_stride, *angle_strides,
                H, G, T, padded_t, S, padded_s, window or 0, prefix, eps, **of_key, **shared,
                NEEDS_K=wanted[1], NEEDS_V=wanted[2], NEEDS_WEIGHT=wanted[5],
                BLOCK_T=tiles.keys.block_t, BLOCK_S=tiles.keys.block_s,
                num_warps=tiles.keys.warps, num_stages=tiles.keys.stages,
            )  # fmt: skip
            found[1], found[2] = d_key, d_value
            found[5] = None if d_weight is None else d_weight.sum((0, 1))
        if wanted[0] or wanted[3] or wanted[4]:
            grid = triton.cdiv(T, tiles.queries.block_t), B * H
            d_query = torch.empty_like(query) if wanted[0] else None
            d_scale = query.new_empty(B, H, grid[0], dtype=torch.float32)
            d_weight = query.new_empty(*grid, D, dtype=torch.float32) if wanted[4] else None
            query_gradients_kernel[grid](
                prepared_query, prepared_key, clean_value, clean_grad, lse2, delta, middle, scale,
                query, query_weight, cos, sin, lengths, d_query, d_scale, d_weight,
                *query.stride(), *_strides(d_query), scale_stride, *angle_strides,
                H, G, T, padded_t, S, padded_s, window or 0, prefix, eps, **of_query, **shared,
                NEEDS_Q=wanted[0], NEEDS_SCALE=wanted[3], NEEDS_WEIGHT=wanted[4],
                BLOCK_T=tiles.queries.block_t, BLOCK_S=tiles.queries.block_s,
                num_warps=tiles.queries.warps, num_stages=tiles.queries.stages,
            )  # fmt: skip
            found[0], found[4] = d_query, None if d_weight is None else d_weight.sum((0, 1))
            if wanted[3]:
                found[3] = d_scale.sum((0, 2)) if scale.dim() else d_scale.sum()
    return found


def _strides(x: Tensor | None) -> tuple[int, ...]:
    return (0, 0, 0, 0) if x is None else x.stride()


def _whole(rows: int, tile: int) -> int:
    """The least multiple of `tile` that holds `rows`."""
    return triton.cdiv(rows, tile) * tile
