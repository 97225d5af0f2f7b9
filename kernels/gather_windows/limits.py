"""What the Triton gather can serve, and in what tiles, told without importing Triton."""

from typing import NamedTuple

VECTOR_BYTES = 16  # that a thread writes at once
VECTORS = 512  # per program: 128 threads write up to 4 each
LARGEST_BLOCK = 2048  # symbols per program; with more of them registers spill
LONGEST = 2**31 - 1 - LARGEST_BLOCK  # columns are counted in 32 bits, to a tile's end


class Tile(NamedTuple):
    """How many symbols a program writes, and a thread at once."""

    block: int
    vector: int


def tile(length: int, item_bytes: int) -> Tile:
    """The tile for windows of `length` symbols written as items of so many bytes."""
    vector = VECTOR_BYTES // item_bytes
    block = min(VECTORS * vector, LARGEST_BLOCK)
    return Tile(block, vector if length >= vector else 1)  # a vector reaches into two windows


def refuse(length: int) -> str | None:
    """Why the kernel cannot serve windows of `length` symbols, or None."""
    if length > LONGEST:
        return f"a window of {length} symbols is longer than {LONGEST}, the kernel's longest"
    return None
