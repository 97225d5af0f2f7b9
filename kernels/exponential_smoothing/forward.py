"""Exponential smoothing over time: chunks of a row run side by side."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.exponential_smoothing import limits
from pyseq.kernels.exponential_smoothing.scan import chunk_carries, lane_tile, mix


@triton.jit
def smooth_kernel(
    values_ptr, alpha_ptr, initial_ptr, states_ptr, out_ptr,
    stride_vb, stride_vt, stride_vh, stride_vd,
    stride_ob, stride_ot, stride_oh, stride_od,
    stride_alpha, stride_ih, stride_id,
    T, H, chunks,
    D: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr, HAS_STATES: tl.constexpr,
):  # fmt: skip
    """One program smooths a chunk of a tile of lanes; grid (B * chunks * tiles)."""
    tiles = tl.cdiv(H * D, BLOCK)
    row = tl.program_id(0) // tiles
    batch = (row // chunks).to(tl.int64)
    start = row % chunks * STEPS
    lane, head, feature, mask = lane_tile(tl.program_id(0) % tiles, H, D, BLOCK)
    alpha = tl.load(alpha_ptr + head * stride_alpha, mask=mask, other=0.0).to(tl.float32)
    if HAS_STATES:
        state = tl.load(states_ptr + row.to(tl.int64) * H * D + lane, mask=mask, other=0.0)
    else:
        initial_ptr += head * stride_ih + feature * stride_id
        state = tl.load(initial_ptr, mask=mask, other=0.0).to(tl.float32)
    place_v = values_ptr + batch * stride_vb + start.to(tl.int64) * stride_vt
    place_v += head * stride_vh + feature * stride_vd
    place_o = out_ptr + batch * stride_ob + start.to(tl.int64) * stride_ot
    place_o += head * stride_oh + feature * stride_od
    for _ in tl.range(start, tl.minimum(start + STEPS, T), num_stages=4):
        value = tl.load(place_v, mask=mask, other=0.0)
        state = mix(state, value.to(tl.float32), alpha)
        tl.store(place_o, state.to(out_ptr.dtype.element_ty), mask=mask)
        place_v += stride_vt
        place_o += stride_ot


def exponential_smoothing_forward(values: Tensor, alpha: Tensor, initial: Tensor) -> Tensor:
    """a_t of values (B, T, H, D), in their memory order."""
    B, T, H, D = values.shape
    out = torch.empty_like(values)
    if out.numel() == 0:
        return out
    steps, lanes, warps = limits.tiles(T, H * D, values.dtype)
    states, _ = chunk_carries(
        values, None, alpha, initial, lanes, steps, warps, forward=True, backward=False
    )
    chunks = triton.cdiv(T, steps)
    with torch.cuda.device_of(values):  # Triton launches on the current device
        smooth_kernel[(B * chunks * triton.cdiv(H * D, lanes),)](
            values, alpha, initial, states, out,
            *values.stride(), *out.stride(), alpha.stride(0), *initial.stride(),
            T, H, chunks, D=D, STEPS=steps, BLOCK=lanes, HAS_STATES=states is not None,
            num_warps=warps, **launch.OPTIONS,
        )  # fmt: skip
    return out
