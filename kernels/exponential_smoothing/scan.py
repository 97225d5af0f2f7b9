"""The recursion of exponential_smoothing, step by step and chunk by chunk.

A lane is one feature of one head, h * D + d. Heads lie side by side, so that tiles of lanes are
full whatever D is, and neighbours in memory are read together.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.exponential_smoothing.limits import CARRY_LANES


@triton.jit
def lane_tile(tile, H, D: tl.constexpr, BLOCK: tl.constexpr):
    """The lanes of a tile, their heads and features, and which there are, (BLOCK,) each."""
    lane = tile.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return lane, lane // D, lane % D, lane < H * D


@triton.jit
def mix(state, value, share):
    """share value + (1 - share) state, without rounding 1 - share where share is small."""
    # 1 - share is exact from 1/2 on.
    small = share < 0.5
    start = tl.where(small, state, value)
    weight = tl.where(small, share, share - 1.0)
    return start + weight * (value - state)


@triton.jit
def fade(state, share):
    """(1 - share) state, likewise."""
    return tl.where(share < 0.5, state - share * state, (1.0 - share) * state)


@triton.jit
def join(state, end, share, kept):
    """(1 - share) state + end: `state` through a chunk that ends in `end` from the state 0."""
    # With a small share the sum of small terms is rounded less than `state` itself is.
    return tl.where(share < 0.5, state + (end - share * state), end + kept * state)


@triton.jit
def over_a_chunk(share, STEPS: tl.constexpr):
    """1 - (1 - share)^STEPS and (1 - share)^STEPS, each rounded once to float32."""
    kept = 1.0 - share.to(tl.float64)
    steps: tl.constexpr = STEPS
    for i in tl.static_range(32):
        if 2 << i <= steps:
            kept = kept * kept
    return (1.0 - kept).to(tl.float32), kept.to(tl.float32)


@triton.jit
def chunk_ends_kernel(
    values_ptr, grad_ptr, alpha_ptr, ends_ptr, reached_ptr,
    stride_vb, stride_vt, stride_vh, stride_vd,
    stride_gb, stride_gt, stride_gh, stride_gd, stride_alpha,
    T, H, chunks,
    D: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
    FORWARD: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """Run each chunk from the state 0, in one or both directions; grid (B * chunks * tiles).

    ends (B, chunks, H * D) is the state after the chunk, reached the gradient before it.
    """
    tiles = tl.cdiv(H * D, BLOCK)
    row = tl.program_id(0) // tiles
    batch = (row // chunks).to(tl.int64)
    start = row % chunks * STEPS
    stop = tl.minimum(start + STEPS, T)
    lane, head, feature, mask = lane_tile(tl.program_id(0) % tiles, H, D, BLOCK)
    alpha = tl.load(alpha_ptr + head * stride_alpha, mask=mask, other=0.0).to(tl.float32)
    place = row.to(tl.int64) * H * D + lane
    if FORWARD:
        state = tl.zeros((BLOCK,), tl.float32)
        place_v = values_ptr + batch * stride_vb + start.to(tl.int64) * stride_vt
        place_v += head * stride_vh + feature * stride_vd
        for _ in tl.range(start, stop, num_stages=4):
            value = tl.load(place_v, mask=mask, other=0.0)
            state = mix(state, value.to(tl.float32), alpha)
            place_v += stride_vt
        tl.store(ends_ptr + place, state, mask=mask)
    if BACKWARD:
        d_state = tl.zeros((BLOCK,), tl.float32)
        place_g = grad_ptr + batch * stride_gb + (stop - 1).to(tl.int64) * stride_gt
        place_g += head * stride_gh + feature * stride_gd
        for _ in tl.range(start, stop, num_stages=4):
            grad = tl.load(place_g, mask=mask, other=0.0)
            d_state = fade(grad.to(tl.float32) + d_state, alpha)
            place_g -= stride_gt
        tl.store(reached_ptr + place, d_state, mask=mask)


@triton.jit
def carry_kernel(
    alpha_ptr, initial_ptr, ends_ptr, reached_ptr,
    stride_alpha, stride_ih, stride_id,
    H, chunks,
    D: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
    FORWARD: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """Replace what leaves every chunk by what enters it, in place; grid (B * tiles)."""
    tiles = tl.cdiv(H * D, BLOCK)
    batch = (tl.program_id(0) // tiles).to(tl.int64)
    lane, head, feature, mask = lane_tile(tl.program_id(0) % tiles, H, D, BLOCK)
    alpha = tl.load(alpha_ptr + head * stride_alpha, mask=mask, other=0.0).to(tl.float32)
    share, kept = over_a_chunk(alpha, STEPS)
    first = batch * chunks * H * D + lane
    # The last chunk may be shorter; nothing asks for what leaves the row.
    if FORWARD:
        initial_ptr += head * stride_ih + feature * stride_id
        state = tl.load(initial_ptr, mask=mask, other=0.0).to(tl.float32)
        here = ends_ptr + first
        for _ in tl.range(0, chunks, num_stages=4):
            end = tl.load(here, mask=mask, other=0.0)
            tl.store(here, state, mask=mask)
            state = join(state, end, share, kept)
            here += H * D
    if BACKWARD:
        d_state = tl.zeros((BLOCK,), tl.float32)
        here = reached_ptr + (batch + 1) * chunks * H * D - H * D + lane
        for _ in tl.range(0, chunks, num_stages=4):
            reached = tl.load(here, mask=mask, other=0.0)
            tl.store(here, d_state, mask=mask)
            d_state = join(d_state, reached, share, kept)
            here -= H * D


def chunk_carries(
    values: Tensor, grad: Tensor | None, alpha: Tensor, initial: Tensor, lanes: int, steps: int,
    warps: int, *, forward: bool, backward: bool,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """The state before every chunk, and the gradient that comes from after it.

    Each (B, chunks, H * D) in float32, or None if not wanted or if one chunk holds everything.
    """
    B, T, H, D = values.shape
    chunks = triton.cdiv(T, steps)
    if chunks == 1 or not (forward or backward):
        return None, None
    ends, reached = (
        values.new_empty(B, chunks, H * D, dtype=torch.float32) if wanted else None
        for wanted in (forward, backward)
    )
    switches = {"FORWARD": forward, "BACKWARD": backward}
    with torch.cuda.device_of(values):  # Triton launches on the current device
        chunk_ends_kernel[(B * chunks * triton.cdiv(H * D, lanes),)](
            values, grad, alpha, ends, reached,
            *values.stride(), *(values if grad is None else grad).stride(), alpha.stride(0),
            T, H, chunks, D=D, STEPS=steps, BLOCK=lanes, **switches,
            num_warps=warps, **launch.OPTIONS,
        )  # fmt: skip
        carry_kernel[(B * triton.cdiv(H * D, CARRY_LANES),)](
            alpha, initial, ends, reached, alpha.stride(0), *initial.stride(),
            H, chunks, D=D, STEPS=steps, BLOCK=CARRY_LANES, **switches,
            num_warps=1, **launch.OPTIONS,
        )  # fmt: skip
    return ends, reached
