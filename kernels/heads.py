"""What every attention kernel can serve, and its arguments as kernels read them, without Triton."""

from typing import NamedTuple

from torch import Tensor

WIDEST = 256
MOST_PROGRAMS = 65_535  # CUDA's limit on the second axis of a grid


class Tiles(NamedTuple):
    """How much of the work one program takes at a time, and how."""

    block_t: int
    block_s: int
    warps: int
    stages: int


def refuse(query: Tensor, *others: Tensor) -> str | None:
    """Why no kernel can serve this query (B, H, T, D), with keys and values like it, or None."""
    B, H, _, D = query.shape
    for x in (query, *others):
        if x.stride(3) * D >= 2**31:  # offsets inside a row are 32 bits, as in `near_rows`
            return f"features that lie {x.stride(3)} apart leave no row of {D} within 2^31"
    if D > WIDEST:
        return f"heads of {D} are wider than {WIDEST}, the kernel's widest"
    if B * H > MOST_PROGRAMS:
        return f"{B} * {H} heads are more than {MOST_PROGRAMS}, the most of one launch"
    return None


def near_rows(grad: Tensor) -> Tensor:
    """A gradient whose offsets inside a row fit 32 bits; a copy only where they do not."""
    return grad if grad.stride(3) * grad.shape[3] < 2**31 else grad.contiguous()


def dense(*parameters: Tensor | None) -> list[Tensor | None]:
    """Gains and tables as the kernels read them: contiguous; a copy only where they are not."""
    return [None if x is None else x.contiguous() for x in parameters]


def mask_within(window: int | None, prefix: int, T: int, S: int) -> tuple[int | None, int]:
    """The same window and prefix in numbers that fit int32; None where all is in the window."""
    return None if window is None or window >= max(T, S) else window, min(prefix, S)
