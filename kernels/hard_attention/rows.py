"""Rows of queries, keys and values, in memory and in registers."""

import triton
import triton.language as tl


@triton.jit
def places(ptr, offs_row, stride_row, stride_d, BLOCK_D: tl.constexpr):
    """Where the numbers of rows `offs_row` stand, (rows, BLOCK_D)."""
    columns = tl.arange(0, BLOCK_D)[None, :]
    return ptr + offs_row[:, None].to(tl.int64) * stride_row + columns * stride_d


@triton.jit
def load_rows(
    ptr, offs_row, mask_row, stride_row, stride_d, D: tl.constexpr, BLOCK_D: tl.constexpr
):
    """Rows `offs_row`, (rows, BLOCK_D), zeros where the mask is False and past D."""
    mask = mask_row[:, None] & (tl.arange(0, BLOCK_D) < D)[None, :]
    return tl.load(places(ptr, offs_row, stride_row, stride_d, BLOCK_D), mask=mask, other=0)


@triton.jit
def store_rows(
    ptr, x, offs_row, mask_row, stride_row, stride_d, D: tl.constexpr, BLOCK_D: tl.constexpr
):
    """The inverse of `load_rows`, in the dtype of the memory."""
    mask = mask_row[:, None] & (tl.arange(0, BLOCK_D) < D)[None, :]
    where = places(ptr, offs_row, stride_row, stride_d, BLOCK_D)
    tl.store(where, x.to(ptr.dtype.element_ty), mask=mask)
