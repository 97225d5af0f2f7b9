"""Self-attention over cosine similarities, with a trained temperature for each head."""

import math

import torch
from torch import Tensor, nn

from pyseq.nn.rotary_embedding import RotaryEmbedding
from pyseq.ops.checks import NORMS
from pyseq.ops.cosine_attention import cosine_attention


class CosineAttention(nn.Module):
    """Project to heads, attend with `pyseq.ops.cosine_attention`, project back; no biases.

    The scale of head h is scale_max * sigmoid(temperature_h + a constant), so that it cannot leave
    (0, scale_max] and the op may rely on the bound. Its gradient shrinks with the distance to the
    bound, but unlike a clamp's it lets a head come back. `temperature` starts at 0, where the scale
    is `scale_init`: weight decay pulls towards that.

    Args:
        width (int): features of input and output; a multiple of `heads`.
        heads (int): query heads; a multiple of `key_heads`.
        key_heads (int): heads of keys and values, each shared by heads / key_heads query heads.
        norm (str | None): "l2", "rms", "layer" or None, as in the op.
        scale_init (float): scale of every head before training, in (0, scale_max); no unit.
        scale_max (float): bound of the scale; positive.
        rope (RotaryEmbedding | None): rotates queries and keys; its head_dim is width / heads.
        causal (bool): a position sees none after it.
        window (int | None): a position sees only those fewer than `window` away.
        prefix (int): the first `prefix` positions are seen by all.
        dropout (float): share of the output's features that training sets to 0.
        backend (str): "auto", "reference", "native" or "triton".

    Raises:
        ValueError: the sizes do not divide, a number is out of its range, or `rope` is made for
            another head width.

    Source: Henry et al. 2020, arXiv 2010.04245; Ainslie et al. 2023, arXiv 2305.13245.

    Example:
        >>> import torch
        >>> from pyseq.nn import CosineAttention, RotaryEmbedding
        >>> CosineAttention(64, 8, rope=RotaryEmbedding(8))(torch.randn(2, 10, 64)).shape
        torch.Size([2, 10, 64])
    """

    def __init__(
        self,
        width: int,
        heads: int,
        key_heads: int = 4,
        *,
        norm: str | None = "l2",
        scale_init: float = 10.0,
        scale_max: float = 50.0,
        rope: RotaryEmbedding | None = None,
        causal: bool = True,
        window: int | None = None,
        prefix: int = 0,
        dropout: float = 0.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if heads < 1 or width < 1 or width % heads:
            raise ValueError(
                f"CosineAttention: {heads} heads cannot share a width of {width};"
                " width must be a multiple of heads"
            )
        if key_heads < 1 or heads % key_heads:
            raise ValueError(
                f"CosineAttention: {heads} heads cannot share {key_heads} key heads;"
                " heads must be a multiple of key_heads"
            )
        if norm not in NORMS:
            raise ValueError(f"CosineAttention: norm is {norm!r}; one of {NORMS} fits")
        if window is not None and window < 1:
            raise ValueError(f"CosineAttention: window is {window}; at least 1, or None, fits")
        if prefix < 0:
            raise ValueError(f"CosineAttention: prefix is {prefix}; 0 or more fits")
        if not 0 < scale_init < scale_max < math.inf:
            raise ValueError(
                f"CosineAttention: scale_init is {scale_init}, scale_max {scale_max};"
                " 0 < scale_init < scale_max fits"
            )
        if rope is not None and rope.head_dim != width // heads:
            raise ValueError(
                f"CosineAttention: rope turns heads of width {rope.head_dim};"
                f" width / heads, {width // heads}, fits"
            )
        self.heads, self.key_heads, self.head_dim = heads, key_heads, width // heads
        self.norm, self.causal, self.window, self.prefix = norm, causal, window, prefix
        self.scale_max, self.backend = scale_max, backend
        self.rope = rope
        self.query_key_value = nn.Linear(width, (heads + 2 * key_heads) * self.head_dim, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.temperature = nn.Parameter(torch.zeros(heads))
        self._start = math.log(scale_init / (scale_max - scale_init))

    def scale(self) -> Tensor:
        """The inverse temperature of every head.

        Returns:
            Tensor (heads,), float32: in (0, scale_max]; no unit.
        """
        return self.scale_max * torch.sigmoid(self.temperature.float() + self._start)

    def forward(self, x: Tensor) -> Tensor:
        """Attend from every position of a sequence.

        Args:
            x (Tensor (B, T, width), floating): the sequences.

        Returns:
            Tensor (B, T, width), dtype of x.
        """
        B, T, width = x.shape
        by_head = (
            self.query_key_value(x)
            .view(B, T, self.heads + 2 * self.key_heads, self.head_dim)
            .transpose(1, 2)
        )
        query, key, value = by_head.split((self.heads, self.key_heads, self.key_heads), dim=1)
        mixed = cosine_attention(
            query,
            key,
            value,
            scale=self.scale(),
            norm=self.norm,
            rope=None if self.rope is None else self.rope(T, device=x.device),
            causal=self.causal,
            window=self.window,
            prefix=self.prefix,
            scale_bound=self.scale_max,
            backend=self.backend,
        )
        # out keeps the memory order of query, (B, T, H, D), so this is a view
        return self.dropout(self.out(mixed.transpose(1, 2).reshape(B, T, width)))
