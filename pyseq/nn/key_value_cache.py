"""Keys and values that step-by-step decoding has seen so far."""

import torch
from torch import Tensor

from pyseq.nn.checks import kinds


class KeyValueCache:
    """Buffers for the keys and values of one attention layer, which grow by doubling.

    What is appended is kept without its graph: the cache is for inference.

    Args:
        capacity (int): positions to make room for at first; 0 leaves it to the first `append`.

    Attributes:
        length (int): positions held.

    Raises:
        ValueError: `capacity` is negative.

    Example:
        >>> import torch
        >>> from pyseq.nn import KeyValueCache
        >>> cache = KeyValueCache()
        >>> key, value = cache.append(torch.zeros(2, 4, 3, 8), torch.zeros(2, 4, 3, 8))
        >>> key, value = cache.append(torch.zeros(2, 4, 1, 8), torch.zeros(2, 4, 1, 8))
        >>> cache.length, key.shape
        (4, torch.Size([2, 4, 4, 8]))
    """

    def __init__(self, capacity: int = 0) -> None:
        kinds("KeyValueCache", int, capacity=capacity)
        if capacity < 0:
            raise ValueError(f"KeyValueCache: capacity is {capacity}; 0 or more fits")
        self.length = 0
        self._capacity = capacity
        self._buffers: tuple[Tensor, Tensor] | None = None

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add positions at the end and return all that are held.

        Args:
            key (Tensor (B, G, T, D), floating): keys of the next T positions.
            value (Tensor (B, G, T, D), dtype of key): their values.

        Returns:
            tuple of two Tensor (B, G, length, D): views of the buffers, valid until the next call.

        Raises:
            ValueError: the shape (but for T), dtype or device is not that of what is held.
        """
        if key.dim() != 4:
            raise ValueError(f"KeyValueCache: key {tuple(key.shape)}; (B, G, T, D) fits")
        if self._buffers is None and (value.shape != key.shape or value.dtype != key.dtype):
            raise ValueError(
                f"KeyValueCache: key {tuple(key.shape)} in {key.dtype}, value {tuple(value.shape)}"
                f" in {value.dtype}; equal ones fit"
            )
        end = self.length + key.shape[2]
        keys, values = self._room_for(end, key)
        for buffer, x, name in ((keys, key, "key"), (values, value, "value")):
            fits = (*buffer.shape[:2], key.shape[2], buffer.shape[3])
            if x.shape != fits or x.dtype != buffer.dtype or x.device != buffer.device:
                raise ValueError(
                    f"KeyValueCache: {name} {tuple(x.shape)} in {x.dtype} on {x.device};"
                    f" {fits} in {buffer.dtype} on {buffer.device} fits"
                )
            buffer[:, :, self.length : end] = x.detach()
        self.length = end
        return keys[:, :, :end], values[:, :, :end]

    def _room_for(self, end: int, like: Tensor) -> tuple[Tensor, Tensor]:
        held = self._buffers
        if held is None or held[0].shape[2] < end:
            like = like if held is None else held[0]
            B, G, _, D = like.shape
            self._capacity = max(end, 2 * self.length, self._capacity)
            with torch.inference_mode(False):  # what began in inference mode may go on outside
                fresh = [like.new_zeros((B, G, self._capacity, D)) for _ in range(2)]
            if held is not None:
                for new, old in zip(fresh, held, strict=True):
                    new[:, :, : self.length] = old[:, :, : self.length]
            self._buffers = fresh[0], fresh[1]
        assert self._buffers is not None
        return self._buffers
