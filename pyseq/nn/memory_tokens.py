"""Learned tokens that a sequence can read."""

import torch
from torch import Tensor, nn

from pyseq.nn.checks import kinds, sequence

READS = ("prefix", "gate")


class MemoryTokens(nn.Module):
    """Learned tokens, put in front of a sequence or read by every position on its own.

    "prefix" puts them in front, for the attention layers that follow; `remove` drops them again.
    They stand before all positions and never see the sequence, so causal layers stay causal; an
    attention with a window reaches them only if its `prefix` is `count`. Where later layers have a
    cache, put the tokens in front of the first piece only.

    "gate" adds to every position what it reads, and no position:
    x_t + sigmoid(w x_t) softmax(W x_t tokens^T / sqrt(width)) tokens, w and W without biases.

    Args:
        count (int): tokens.
        width (int): features of a token and of the sequence.
        read (str): "prefix" or "gate".

    Raises:
        ValueError: `count` or `width` is not positive, or `read` is another word.

    Source: Burtsev et al. 2020, Memory Transformer, arXiv 2006.11527; Darcet et al. 2023, Vision
        Transformers Need Registers, arXiv 2309.16588.

    Example:
        >>> import torch
        >>> from pyseq.nn import MemoryTokens
        >>> memory, x = MemoryTokens(4, 64), torch.randn(2, 10, 64)
        >>> memory(x).shape
        torch.Size([2, 14, 64])
        >>> torch.equal(memory.remove(memory(x)), x)
        True
    """

    def __init__(self, count: int, width: int, *, read: str = "prefix") -> None:
        super().__init__()
        kinds("MemoryTokens", int, count=count, width=width)
        if count < 1 or width < 1:
            raise ValueError(f"MemoryTokens: {count} tokens of width {width}; positive sizes fit")
        if read not in READS:
            raise ValueError(f"MemoryTokens: read is {read!r}; 'prefix' or 'gate' fits")
        self.count, self.width, self.read = count, width, read
        self.tokens = nn.Parameter(torch.randn(count, width) * 0.02)
        if read == "gate":
            self.query = nn.Linear(width, width, bias=False)
            self.gate = nn.Linear(width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Put the tokens in front of a sequence, or let its positions read them.

        Args:
            x (Tensor (B, T, width), floating): the sequences.

        Returns:
            Tensor (B, count + T, width) for "prefix", (B, T, width) for "gate"; dtype of x.

        Raises:
            ValueError: x has another shape.
        """
        sequence("MemoryTokens", x, self.width)
        if self.read == "prefix":
            return torch.cat((self.tokens.to(x.dtype).expand(len(x), -1, -1), x), 1)
        logits = self.query(x) @ self.tokens.mT * self.width**-0.5  # (B, T, count)
        found = torch.softmax(logits, -1) @ self.tokens
        return (x + torch.sigmoid(self.gate(x)) * found).to(x.dtype)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.count}, {self.width}, read={self.read!r}"

    def remove(self, x: Tensor) -> Tensor:
        """Drop the positions that `forward` put in front; with "gate" there are none.

        Args:
            x (Tensor (B, count + T, features), floating): what later layers made of the output.

        Returns:
            Tensor (B, T, features), dtype of x: a view.

        Raises:
            ValueError: x has fewer positions than there are tokens in front.
        """
        if self.read == "gate":
            return x
        if x.dim() < 2 or x.shape[1] < self.count:
            raise ValueError(
                f"MemoryTokens: x has shape {tuple(x.shape)}; at least the {self.count}"
                " positions in front fit"
            )
        return x[:, self.count :]
