"""What the Triton gather can serve, told without importing Triton."""

from torch import Tensor

BLOCK = 1024  # symbols per program: 2 KiB read, 8 KiB written as int64
LONGEST = 65_535 * BLOCK  # CUDA's limit on the second axis of a grid


def refuse(stream: Tensor, length: int) -> str | None:
    """Why the kernel cannot serve windows of `length` symbols of this stream, or None."""
    if stream.device.type != "cuda":
        return f"the stream is on {stream.device}, not on cuda"
    if length > LONGEST:
        return f"a window of {length} symbols is longer than {LONGEST}, the kernel's longest"
    return None
