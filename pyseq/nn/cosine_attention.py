"""Self-attention over cosine similarities, with a trained temperature for each head."""

import math

import torch
from torch import Tensor, nn

from pyseq.nn.key_value_cache import KeyValueCache
from pyseq.nn.rotary_embedding import RotaryEmbedding
from pyseq.nn.self_attention import SelfAttention
from pyseq.ops.checks import NORMS, count
from pyseq.ops.cosine_attention import cosine_attention
from pyseq.ops.cosine_decode import cosine_decode
from pyseq.ops.prepare_keys import prepare_keys


class CosineAttention(SelfAttention):
    """Project to heads, attend with `pyseq.ops.cosine_attention`, project back; no biases.

    The scale of head h is scale_max * sigmoid(temperature_h + a constant), so that it cannot leave
    [0, scale_max] and the op may rely on the bound. Its gradient shrinks with the distance to the
    bound, but unlike a clamp's it lets a head come back. `temperature` starts at 0, where the scale
    is `scale_init`: weight decay pulls towards that.

    Args:
        width (int): features of input and output; a multiple of `heads`.
        heads (int): query heads; a multiple of `key_heads`.
        key_heads (int | None): heads of keys and values, each shared by heads / key_heads query
            heads; None: as many as `heads`.
        norm (str | None): "l2", "rms", "layer" or None, as in the op.
        scale_init (float): scale of every head before training, in (0, scale_max); no unit.
        scale_max (float): bound of the scale; positive.
        rope (RotaryEmbedding | None): rotates queries and keys; its head_dim is width / heads.
        causal (bool): a position sees none after it, but for those of the prefix, which see each
            other.
        window (int | None): a position sees only those fewer than `window` away.
        prefix (int): the first `prefix` positions are seen by all, each other included: a place for
            memory tokens, not for symbols that are to be predicted. With a cache, the first piece
            must hold all of them.
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
        key_heads: int | None = 4,
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
        super().__init__(
            width,
            heads,
            heads if key_heads is None else key_heads,
            rope=rope,
            causal=causal,
            dropout=dropout,
            backend=backend,
        )
        if norm not in NORMS:
            raise ValueError(f"CosineAttention: norm is {norm!r}; one of {NORMS} fits")
        if window is not None:
            count("CosineAttention", "window", window, 1)
        count("CosineAttention", "prefix", prefix, 0)
        if not 0 < scale_init < scale_max < math.inf:
            raise ValueError(
                f"CosineAttention: scale_init is {scale_init}, scale_max {scale_max};"
                " 0 < scale_init < scale_max fits"
            )
        self.norm, self.window, self.prefix = norm, window, prefix
        self.scale_max = scale_max
        self.temperature = nn.Parameter(torch.zeros(heads))
        self._start = math.log(scale_init / (scale_max - scale_init))

    def scale(self) -> Tensor:
        """The inverse temperature of every head.

        Returns:
            Tensor (heads,), float32: in [0, scale_max]; no unit.
        """
        return self.scale_max * torch.sigmoid(self.temperature.float() + self._start)

    def extra_repr(self) -> str:
        """What `print` shows."""
        parts = (super().extra_repr(), f"norm={self.norm!r}", f"scale_max={self.scale_max}")
        return ", ".join((*parts, f"window={self.window}", f"prefix={self.prefix}"))

    def _mix(
        self, query: Tensor, key: Tensor, value: Tensor, cache: KeyValueCache | None
    ) -> Tensor:
        T, device = query.shape[2], query.device
        held = 0 if cache is None else cache.length
        rope = None if self.rope is None else self.rope(held + T, device=device)
        if cache is not None:
            if held + T < self.prefix:
                raise ValueError(
                    f"CosineAttention: the first piece has {T} positions; at least the prefix,"
                    f" {self.prefix}, fits, because its positions see each other"
                )
            prepared = prepare_keys(
                key, norm=self.norm, rope=rope, position=held, backend=self.backend
            )
            keys, values = cache.append(prepared, value)
            if held > 0:
                return cosine_decode(
                    query,
                    keys,
                    values,
                    scale=self.scale(),
                    norm=self.norm,
                    rope=rope,
                    window=self.window,
                    prefix=self.prefix,
                    scale_bound=self.scale_max,
                    backend=self.backend,
                )
        return cosine_attention(
            query,
            key,
            value,
            scale=self.scale(),
            norm=self.norm,
            rope=rope,
            causal=self.causal,
            window=self.window,
            prefix=self.prefix,
            scale_bound=self.scale_max,
            backend=self.backend,
        )
