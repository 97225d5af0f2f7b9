"""What the prepare_keys kernels can serve, and their tiles, told without Triton."""

from typing import NamedTuple

from torch import Tensor

from pyseq.kernels import launch
from pyseq.kernels.heads import WIDEST

MOST_ROWS = 2**31 - 2 * 4096  # a row, and one past the last tile, is numbered in int32
FORWARD_TILE = 4096  # features that one program holds at a time
BACKWARD_TILE = 1024
PROGRAMS = 8  # of the backward, per multiprocessor


class Rows(NamedTuple):
    """The rows of keys (B, G, S, D) in their memory's order, and how a program takes them."""

    inner: int  # size of the innermost of the axes B, G and S
    middle: int
    total: int
    heads_inside: bool  # G is the innermost, S the next
    per_tile: int

    @property
    def tiles(self) -> int:
        """How many tiles hold all rows."""
        return -(-self.total // self.per_tile)


def refuse(key: Tensor) -> str | None:
    """Why no kernel can serve these keys (B, G, S, D), or None."""
    B, G, S, D = key.shape
    if key.stride(3) * D >= 2**31:  # offsets inside a row are 32 bits
        return f"features that lie {key.stride(3)} apart leave no row of {D} within 2^31"
    if D > WIDEST:
        return f"rows of {D} features are wider than {WIDEST}, the kernel's widest"
    if B * G * S > MOST_ROWS:
        return f"{B} * {G} * {S} rows are more than {MOST_ROWS}, the most of one launch"
    return None


def rows_of(key: Tensor, tile: int) -> Rows:
    """Tiles of about `tile` features.

    Neighbours in memory are neighbours in a program: whole pages of memory are read at once.
    """
    B, G, S, D = key.shape
    heads_inside = key.stride(1) < key.stride(2)
    inner, middle = (G, S) if heads_inside else (S, G)
    return Rows(inner, middle, B * G * S, heads_inside, tile // (2 * launch.padded((D + 1) // 2)))


def backward_programs(key: Tensor) -> int:
    """How many programs share the rows: each leaves one partial sum of the gain's gradient."""
    return min(rows_of(key, BACKWARD_TILE).tiles, PROGRAMS * launch.multiprocessors(key))
