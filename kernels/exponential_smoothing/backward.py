"""The gradients of exponential smoothing, by the recursion run backwards over chunks."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.exponential_smoothing import limits
from pyseq.kernels.exponential_smoothing.scan import chunk_carries, fade, lane_tile, mix


@triton.jit
def smooth_backward_kernel(
    grad_ptr, values_ptr, alpha_ptr, initial_ptr, states_ptr, reached_ptr,
    d_values_ptr, d_alpha_ptr, d_initial_ptr,
    stride_gb, stride_gt, stride_gh, stride_gd,
    stride_vb, stride_vt, stride_vh, stride_vd,
    stride_db, stride_dt, stride_dh, stride_dd,
    stride_alpha, stride_ih, stride_id,
    T, H, chunks,
    D: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr, IS_CHUNKED: tl.constexpr,
    NEEDS_VALUES: tl.constexpr, NEEDS_ALPHA: tl.constexpr, NEEDS_INITIAL: tl.constexpr,
):  # fmt: skip
    """One program takes a chunk of a tile of lanes; grid (B * chunks * tiles).

    d_alpha is a part of the sum for each chunk and lane, d_initial for each batch and lane.
    """
    tiles = tl.cdiv(H * D, BLOCK)
    row = tl.program_id(0) // tiles
    batch = (row // chunks).to(tl.int64)
    start = row % chunks * STEPS
    stop = tl.minimum(start + STEPS, T)
    lane, head, feature, mask = lane_tile(tl.program_id(0) % tiles, H, D, BLOCK)
    alpha = tl.load(alpha_ptr + head * stride_alpha, mask=mask, other=0.0).to(tl.float32)
    here = row.to(tl.int64) * H * D + lane
    offs_g = batch * stride_gb + head * stride_gh + feature * stride_gd
    d_state = tl.zeros((BLOCK,), tl.float32)  # what reaches a state through the next one
    if IS_CHUNKED:
        d_state = tl.load(reached_ptr + here, mask=mask, other=0.0)

    if NEEDS_ALPHA:
        # d_alpha is the sum of g_t (v_t - a_(t-1)), g running backwards; the same terms in another
        # order are the sum of grad_t slope_t, the slope of a_t by alpha running forwards, as the
        # states do.
        if IS_CHUNKED:
            state = tl.load(states_ptr + here, mask=mask, other=0.0)
        else:
            initial_ptr += head * stride_ih + feature * stride_id
            state = tl.load(initial_ptr, mask=mask, other=0.0).to(tl.float32)
        slope = tl.zeros((BLOCK,), tl.float32)
        d_alpha = tl.zeros((BLOCK,), tl.float32)
        place_v = values_ptr + batch * stride_vb + start.to(tl.int64) * stride_vt
        place_v += head * stride_vh + feature * stride_vd
        place_g = grad_ptr + offs_g + start.to(tl.int64) * stride_gt
        for _ in tl.range(start, stop, num_stages=3):
            value = tl.load(place_v, mask=mask, other=0.0).to(tl.float32)
            grad = tl.load(place_g, mask=mask, other=0.0).to(tl.float32)
            slope = fade(slope, alpha) + (value - state)
            state = mix(state, value, alpha)
            d_alpha += grad * slope
            place_v += stride_vt
            place_g += stride_gt
        tl.store(d_alpha_ptr + here, d_alpha + d_state * slope, mask=mask)

    if NEEDS_VALUES or NEEDS_INITIAL:
        last = (stop - 1).to(tl.int64)
        place_g = grad_ptr + offs_g + last * stride_gt
        if NEEDS_VALUES:
            place_d = d_values_ptr + batch * stride_db + last * stride_dt
            place_d += head * stride_dh + feature * stride_dd
        for _ in tl.range(start, stop, num_stages=4):
            d_smoothed = tl.load(place_g, mask=mask, other=0.0).to(tl.float32) + d_state
            if NEEDS_VALUES:
                d_value = alpha * d_smoothed
                tl.store(place_d, d_value.to(d_values_ptr.dtype.element_ty), mask=mask)
                place_d -= stride_dt
            d_state = fade(d_smoothed, alpha)
            place_g -= stride_gt
        if NEEDS_INITIAL:
            mask_first = lane < tl.where(start == 0, H * D, 0)
            tl.store(d_initial_ptr + batch * H * D + lane, d_state, mask=mask_first)


def exponential_smoothing_backward(
    grad: Tensor, values: Tensor, alpha: Tensor, initial: Tensor, needs: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of values, alpha and initial that `needs` asks for; sums in float32."""
    B, T, H, D = values.shape
    needs_values, needs_alpha, needs_initial = needs
    d_values = torch.empty_like(values) if needs_values else None
    if values.numel() == 0:
        return [d_values, torch.zeros_like(alpha), torch.zeros_like(initial)]
    steps, lanes, warps = limits.tiles(T, H * D, values.dtype)
    chunks = triton.cdiv(T, steps)
    # The states are made anew from the values: those of the output are rounded.
    states, reached = chunk_carries(
        values, grad, alpha, initial, lanes, steps, warps, forward=needs_alpha, backward=True
    )
    by_chunk = values.new_empty(B, chunks, H, D, dtype=torch.float32) if needs_alpha else None
    by_batch = values.new_empty(B, H, D, dtype=torch.float32) if needs_initial else None
    with torch.cuda.device_of(values):  # Triton launches on the current device
        smooth_backward_kernel[(B * chunks * triton.cdiv(H * D, lanes),)](
            grad, values, alpha, initial, states, reached, d_values, by_chunk, by_batch,
            *grad.stride(), *values.stride(), *(values if d_values is None else d_values).stride(),
            alpha.stride(0), *initial.stride(),
            T, H, chunks, D=D, STEPS=steps, BLOCK=lanes, IS_CHUNKED=chunks > 1,
            NEEDS_VALUES=needs_values, NEEDS_ALPHA=needs_alpha, NEEDS_INITIAL=needs_initial,
            num_warps=warps, **launch.OPTIONS,
        )  # fmt: skip
    return [
        d_values,
        None if by_chunk is None else by_chunk.sum((0, 1, 3)),
        None if by_batch is None else by_batch.sum(0),
    ]
