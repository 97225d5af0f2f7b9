"""A gated feed-forward layer."""

import torch
from torch import Tensor, nn

from pyseq.nn.checks import kinds


class SwiGLU(nn.Module):
    """Widen, gate and narrow again: (silu(x W_g) * x W_v) W_o, without biases.

    Args:
        width (int): features of input and output.
        hidden (int): features of the gate and of what it gates; 8/3 of `width` costs as much as a
            plain layer of four times the width.

    Raises:
        ValueError: a size is not positive.

    Source: Shazeer 2020, GLU Variants Improve Transformer, arXiv 2002.05202.

    Example:
        >>> import torch
        >>> from pyseq.nn import SwiGLU
        >>> SwiGLU(64, 172)(torch.randn(2, 10, 64)).shape
        torch.Size([2, 10, 64])
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        kinds("SwiGLU", int, width=width, hidden=hidden)
        if width < 1 or hidden < 1:
            raise ValueError(f"SwiGLU: width {width} and hidden {hidden}; positive sizes fit")
        self.gate_and_value = nn.Linear(width, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to every row.

        Args:
            x (Tensor (..., width), floating): the rows.

        Returns:
            Tensor (..., width), dtype of x.
        """
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        return self.out(torch.nn.functional.silu(gate) * value)
