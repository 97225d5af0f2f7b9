"""What the scale_cross_entropy kernels can serve, their tiles and chunks, told without Triton.

For N rows, C wide, of V symbols a product takes 2 N C V operations. Four are made: the logits twice
(forward, and backward for their gradient), and the gradients of hidden and weight; a peer that
keeps its logits makes three. At N = 16384, C = 1024, V = 65536 on an H200 (770 TFLOP/s, 4.3 TB/s)
one takes 2.9 ms at the ceiling. Predicted, not timed: the logits twice at some 500 TFLOP/s in
Triton, 4.4 ms each, two gradients by cuBLAS at 700, 6.3 ms, and 1.5 ms for the chunks' memory:
about 17 ms, where the peer needs 11 to 12. Its logits and their gradient take 4.3 GB; here a chunk
(128 MiB), float32 sums (80 MiB) and a copy of hidden (32 MiB) lie beside the gradients: with
inputs and all, 0.57 GB or 12 % of its peak.

Logits from cuBLAS in float32, reduced by a second kernel, would move 8 more bytes per logit forward
and backward, 2 ms each: no less than Triton's products lose. Two fused kernels for the gradients
would make the logits once more, and their sums, rows x C, fit no register file. Chunks of columns,
not of rows, keep the float32 sums small: the (N, C) of hidden is read and written once per chunk
(2 N C * 4 bytes, 16 times), where that of weight would be four times as large. Bins have a kernel
of their own, over rows in the order of their targets, because masks for them in the main loop cost
more registers than there are: N * scale * C * 2 operations, 6 % of a product for bins of 4096.
"""

from typing import NamedTuple

import torch

from pyseq.kernels import launch
from pyseq.kernels.launch import padded

MOST = 2**31 - 2**16  # rows or symbols: indices are 32 bits, and tiles may stick out
PROGRAMS = 1024  # that fill every GPU several times over
CHUNK_BYTES = 128 << 20  # of logits' gradients at a time
FEWEST_COLUMNS = 4096  # of a chunk: so many that its products are worth their launch
MOST_COLUMNS = 16384  # so few that the weight's float32 sums of a chunk stay small


class Tiles(NamedTuple):
    """How much of the work one program takes at a time, and how."""

    block_n: int
    block_v: int
    block_c: int
    warps: int
    stages: int


def refuse(hidden: torch.Tensor, weight: torch.Tensor) -> str | None:
    """Why no kernel can serve hidden (N, C) and weight (V, C), or None."""
    for name, size in (("rows", len(hidden)), ("symbols", len(weight))):
        if size > MOST:
            return f"{size} {name} are more than {MOST}, the kernel's most"
    return None


def tiles(N: int, C: int, dtype: torch.dtype, capability: int) -> Tiles:
    """For products of N rows over C; all compile without spills. Not tuned on a GPU yet."""
    if dtype == torch.float32:
        return Tiles(32 if N <= 32 else 64, 64, 16, 8, 2)
    if N <= 32:
        return Tiles(32, 128, _width(C, 64), 8, 3)
    if launch.roomy(capability):
        return Tiles(128, 256, _width(C, 64), 8, 3)
    return Tiles(128, 128, _width(C, 32), 8, 4)


def bin_tiles(N: int, C: int, dtype: torch.dtype, capability: int) -> Tiles:
    """For the logits within bins, where few rows have few tiles of symbols in common.

    They must be, to the last bit, those that `tiles` makes: the loss is a difference of the two
    masses. So tensor cores are asked by the same instruction, which takes 64 rows on sm_90.
    """
    if dtype == torch.float32 or N <= 32:
        return tiles(N, C, dtype, capability)
    return Tiles(64, 64, _width(C, 64), 8, 3)


def _width(C: int, most: int) -> int:
    """Columns of C at a time."""
    return min(padded(C), most)


def splits(N: int, V: int, tiles: Tiles) -> tuple[int, int]:
    """Into how many parts the alphabet is split, and how many tiles each part holds."""
    columns = -(-V // tiles.block_v)
    rows = -(-N // tiles.block_n)
    each = -(-columns // min(columns, -(-PROGRAMS // rows)))
    return -(-columns // each), each


def chunk(N: int, V: int, itemsize: int) -> tuple[int, int]:
    """Rows and columns of logits' gradients that exist at a time; all rows where they fit."""
    elements = CHUNK_BYTES // itemsize
    columns = elements // max(N, 1) // 256 * 256
    columns = min(V, max(FEWEST_COLUMNS, min(columns, MOST_COLUMNS)))
    return max(1, min(N, elements // columns)), columns
