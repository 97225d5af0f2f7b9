"""The tables of rotary position embedding."""

import torch
from torch import Tensor, nn

from pyseq.nn.checks import kinds


class RotaryEmbedding(nn.Module):
    """Cosines and sines by which queries and keys are rotated: angle = position * base^(-2i/D).

    Pair i of a head of width D is features (i, i + D/2). The tables grow to the longest request and
    are kept, in float32, per device; they are neither saved nor copied with the model.

    Args:
        head_dim (int): width D of a head; even.
        base (float): the slowest pair turns once in about 2 pi `base` positions; above 1.

    Raises:
        ValueError: `head_dim` is not a positive even number, or `base` not above 1.

    Source: Su et al. 2021, RoFormer, arXiv 2104.09864.

    Example:
        >>> from pyseq.nn import RotaryEmbedding
        >>> cos, sin = RotaryEmbedding(32)(128)
        >>> cos.shape
        torch.Size([128, 16])
    """

    def __init__(self, head_dim: int, *, base: float = 10000.0) -> None:
        super().__init__()
        kinds("RotaryEmbedding", int, head_dim=head_dim)
        if head_dim < 2 or head_dim % 2:
            raise ValueError(
                f"RotaryEmbedding: head_dim is {head_dim}; a positive even number fits"
            )
        if not base > 1:
            raise ValueError(f"RotaryEmbedding: base is {base}; a number above 1 fits")
        self.head_dim = head_dim
        self.base = base
        # Not buffers: model.bfloat16() must not round angles.
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def forward(
        self, positions: int, *, offset: int = 0, device: torch.device | str | None = None
    ) -> tuple[Tensor, Tensor]:
        """The rows of consecutive positions.

        Args:
            positions (int): rows wanted.
            offset (int): position of the first row.
            device (torch.device | str | None): where the tables are needed; None is the CPU.

        Returns:
            tuple of two Tensor (positions, head_dim / 2), float32: cosines and sines.

        Raises:
            ValueError: `positions` or `offset` is negative.
        """
        if positions < 0 or offset < 0:
            raise ValueError(
                f"RotaryEmbedding: {positions} positions from {offset}; numbers from 0 up fit"
            )
        device = torch.device("cpu" if device is None else device)
        end = offset + positions
        held = self._tables.get(device)
        if held is None or held[0].shape[0] < end:
            held = self._make(end if held is None else max(end, 2 * held[0].shape[0]), device)
            if type(held[0]) is Tensor:  # a table of a fake mode must not outlive it
                self._tables[device] = held
        cos, sin = held
        return cos[offset:end], sin[offset:end]

    def __getstate__(self) -> dict:
        """What is pickled and copied: everything but the tables."""
        return {**self.__dict__, "_tables": {}}

    def _make(self, positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
        # Tables made during a validation in inference mode must serve the training after it.
        with torch.inference_mode(False):
            # In float64: at position 100,000 a float32 angle is off by thousandths of a radian.
            pair = torch.arange(0, self.head_dim, 2, dtype=torch.float64, device=device)
            speed = self.base ** (-pair / self.head_dim)
            angle = torch.arange(positions, dtype=torch.float64, device=device)[:, None] * speed
            return angle.cos().float(), angle.sin().float()

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.head_dim}, base={self.base}"
