"""The gradients of patch_embed, by sums in a fixed order."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.patch_embed import limits
from pyseq.kernels.patch_embed.patches import load_patches, load_row, product

BLOCK_T = 256  # samples of one program of the overlap-add


@triton.jit
def weight_parts_kernel(
    grad_ptr, samples_ptr, center_ptr, spread_ptr, d_weight_ptr, d_bias_ptr,
    stride_gb, stride_gn, stride_gc, stride_sb, stride_st, stride_center, stride_spread,
    N, T, C, stride, patch_tiles, part,
    P: tl.constexpr, PAD_END: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
    HALVES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program sums `part` tiles of patches for a tile of the weight; grid (parts * tiles).

    d_weight is (parts, P, C), d_bias (parts, C).
    """
    c_tiles = tl.cdiv(C, BLOCK_C)
    n_tiles = tl.cdiv(N, BLOCK_N)
    tiles = c_tiles * tl.cdiv(P, BLOCK_P)
    index = (tl.program_id(0) // tiles).to(tl.int64)
    p_tile = tl.program_id(0) % tiles // c_tiles
    offs_c = tl.program_id(0) % c_tiles * BLOCK_C + tl.arange(0, BLOCK_C)
    offs_p = p_tile * BLOCK_P + tl.arange(0, BLOCK_P)
    mask_c = offs_c < C
    acc = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    total = tl.zeros((BLOCK_C,), tl.float32)
    begin = tl.program_id(0) // tiles * part
    for tile in tl.range(begin, tl.minimum(begin + part, patch_tiles)):
        batch = (tile // n_tiles).to(tl.int64)
        offs_n = tile % n_tiles * BLOCK_N + tl.arange(0, BLOCK_N)
        center, spread = load_row(center_ptr, spread_ptr, batch, stride_center, stride_spread)
        x = load_patches(
            samples_ptr + batch * stride_sb, offs_n, offs_p, N, T, stride, stride_st,
            center, spread, P, PAD_END,
        )  # fmt: skip
        places = grad_ptr + batch * stride_gb + offs_n[:, None].to(tl.int64) * stride_gn
        places += offs_c[None, :].to(tl.int64) * stride_gc
        grad = tl.load(places, mask=(offs_n < N)[:, None] & mask_c[None, :], other=0.0)
        acc = product(tl.trans(x), grad, acc, HALVES, PRECISION)
        total += tl.sum(grad.to(tl.float32), 0)
    places = d_weight_ptr + (index * P + offs_p[:, None]) * C + offs_c[None, :]
    tl.store(places, acc, mask=(offs_p < P)[:, None] & mask_c[None, :])
    mask_bias = offs_c < tl.where(p_tile == 0, C, 0)
    tl.store(d_bias_ptr + index * C + offs_c, total, mask=mask_bias)


@triton.jit
def patch_gradient_kernel(
    grad_ptr, weight_ptr, d_patches_ptr,
    stride_gb, stride_gn, stride_gc, stride_wc, stride_wp,
    N, C,
    P: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One program makes a tile of d_patches (B, N, P); grid (B * patch tiles * P tiles)."""
    p_tiles = tl.cdiv(P, BLOCK_P)
    n_tiles = tl.cdiv(N, BLOCK_N)
    row = tl.program_id(0) // p_tiles
    batch = (row // n_tiles).to(tl.int64)
    offs_n = row % n_tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    offs_p = tl.program_id(0) % p_tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    mask_n = (offs_n < N)[:, None]
    mask_p = (offs_p < P)[None, :]
    grad_ptr += batch * stride_gb
    acc = tl.zeros((BLOCK_N, BLOCK_P), tl.float32)
    for start in tl.range(0, C, BLOCK_C):
        offs_c = start + tl.arange(0, BLOCK_C)
        offs_c = offs_c.to(tl.int64)
        places = grad_ptr + offs_n[:, None].to(tl.int64) * stride_gn + offs_c[None, :] * stride_gc
        grad = tl.load(places, mask=mask_n & (offs_c < C)[None, :], other=0.0)
        places = weight_ptr + offs_c[:, None] * stride_wc
        places += offs_p[None, :].to(tl.int64) * stride_wp
        w = tl.load(places, mask=(offs_c < C)[:, None] & mask_p, other=0.0)
        acc = tl.dot(grad, w, acc, input_precision=PRECISION)
    places = d_patches_ptr + (batch * N + offs_n[:, None]) * P + offs_p[None, :]
    tl.store(places, acc, mask=mask_n & mask_p)


@triton.jit
def gather(d_patches_ptr, t, mask, N, stride, P: tl.constexpr):
    """Sum over the patches that hold sample t of a row, in the order of the patches' ends."""
    total = tl.zeros(t.shape, tl.float32)
    n = t // stride
    p = t % stride
    for _ in tl.range(0, tl.cdiv(P, stride)):
        held = mask & (n >= 0) & (n < N) & (p < P)
        total += tl.load(d_patches_ptr + n.to(tl.int64) * P + p, mask=held, other=0.0)
        n -= 1
        p += stride
    return total


@triton.jit
def overlap_add_kernel(
    d_patches_ptr, spread_ptr, d_samples_ptr, stride_spread, stride_db, stride_dt,
    N, T, stride,
    P: tl.constexpr, PAD_END: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """One program makes d_samples of BLOCK_T samples of one row; grid (B * tiles)."""
    tiles = tl.cdiv(T, BLOCK_T)
    batch = (tl.program_id(0) // tiles).to(tl.int64)
    t = tl.program_id(0) % tiles * BLOCK_T + tl.arange(0, BLOCK_T)
    d_patches_ptr += batch * N * P
    total = gather(d_patches_ptr, t, t < T, N, stride, P)
    if PAD_END:  # the copies of the last sample
        copies = tl.zeros((BLOCK_T,), tl.float32)
        stop = tl.where(tl.program_id(0) % tiles == tiles - 1, stride, 0)
        for start in tl.range(0, stop, BLOCK_T):
            copy = start + tl.arange(0, BLOCK_T)
            copies += gather(d_patches_ptr, T + copy, copy < stride, N, stride, P)
        total += tl.where(t == T - 1, tl.sum(copies, 0), 0.0)
    spread = tl.load(spread_ptr + batch * stride_spread).to(tl.float32)
    total = tl.div_rn(total, spread)
    places = d_samples_ptr + batch * stride_db + t.to(tl.int64) * stride_dt
    tl.store(places, total.to(d_samples_ptr.dtype.element_ty), mask=t < T)


def patch_embed_backward(
    grad: Tensor,
    samples: Tensor,
    weight: Tensor,
    center: Tensor,
    spread: Tensor,
    stride: int,
    pad_end: bool,
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of samples, weight and bias that `needs` asks for; sums in float32."""
    found: list[Tensor | None] = [None] * 3
    if needs[0]:
        found[0] = _d_samples(grad, samples, weight, spread, stride, pad_end)
    if needs[1] or needs[2]:  # one pass over the gradient makes both
        found[1:] = _d_weight_and_bias(grad, samples, weight, center, spread, stride, pad_end)
    return found


def _d_samples(
    grad: Tensor, samples: Tensor, weight: Tensor, spread: Tensor, stride: int, pad_end: bool
) -> Tensor:
    (B, N, C), P, T = grad.shape, weight.shape[1], samples.shape[1]
    d_samples = torch.empty_like(samples)
    if d_samples.numel() == 0:
        return d_samples
    block_n, block_c, block_p, stages = limits.samples_tiles(N, C, P, weight.dtype)
    # P / C of the gradient's size: a patch's gradient is summed over C before patches overlap.
    d_patches = grad.new_empty(B, N, P, dtype=torch.float32)
    with torch.cuda.device_of(samples):  # Triton launches on the current device
        patch_gradient_kernel[(B * triton.cdiv(N, block_n) * triton.cdiv(P, block_p),)](
            grad, weight, d_patches, *grad.stride(), *weight.stride(), N, C,
            P=P, BLOCK_N=block_n, BLOCK_C=block_c, BLOCK_P=block_p,
            PRECISION=launch.dot_precision(weight.dtype),
            num_warps=4, num_stages=stages, **launch.OPTIONS,
        )  # fmt: skip
        overlap_add_kernel[(B * triton.cdiv(T, BLOCK_T),)](
            d_patches, spread, d_samples,
            spread.stride(0) if spread.dim() else 0, *d_samples.stride(),
            N, T, stride, P=P, PAD_END=pad_end, BLOCK_T=BLOCK_T, num_warps=4, **launch.OPTIONS,
        )  # fmt: skip
    return d_samples


def _d_weight_and_bias(
    grad: Tensor, samples: Tensor, weight: Tensor, center: Tensor, spread: Tensor, stride: int,
    pad_end: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    (B, N, C), P, T = grad.shape, weight.shape[1], samples.shape[1]
    if grad.numel() == 0:
        return torch.zeros_like(weight), weight.new_zeros(C)
    block_n, block_c, block_p, stages = limits.weight_tiles(N, C, P, weight.dtype)
    patch_tiles = B * triton.cdiv(N, block_n)
    weight_tiles = triton.cdiv(C, block_c) * triton.cdiv(P, block_p)
    part = triton.cdiv(patch_tiles, limits.parts(patch_tiles, weight_tiles))
    parts = triton.cdiv(patch_tiles, part)
    d_weight = grad.new_empty(parts, P, C, dtype=torch.float32)
    d_bias = grad.new_empty(parts, C, dtype=torch.float32)
    with torch.cuda.device_of(samples):  # Triton launches on the current device
        weight_parts_kernel[(parts * weight_tiles,)](
            grad, samples, center, spread, d_weight, d_bias,
            *grad.stride(), *samples.stride(),
            center.stride(0) if center.dim() else 0, spread.stride(0) if spread.dim() else 0,
            N, T, C, stride, patch_tiles, part, P=P, PAD_END=pad_end,
            BLOCK_N=block_n, BLOCK_C=block_c, BLOCK_P=block_p,
            HALVES=weight.dtype != torch.float32, PRECISION=launch.dot_precision(weight.dtype),
            num_warps=4, num_stages=stages, **launch.OPTIONS,
        )  # fmt: skip
    return d_weight.sum(0).mT, d_bias.sum(0)
