"""Self-attention that sharpens itself where many keys share the weight."""

from collections.abc import Sequence

from torch import Tensor

from pyseq.nn.key_value_cache import KeyValueCache
from pyseq.nn.rotary_embedding import RotaryEmbedding
from pyseq.nn.self_attention import SelfAttention
from pyseq.ops.adaptive_attention import adaptive_attention
from pyseq.ops.adaptive_attention.api import check_coefficients

TRAIN = ("soft", "adaptive")


class AdaptiveAttention(SelfAttention):
    """Project to heads, attend at a temperature set by the entropy, project back; no biases.

    The method is meant for serving: a layer trained with softmax attention spreads its weight over
    the more keys of longer sequences, and the temperature takes that back. Over more than about 381
    equally weighted keys the published coefficients leave softmax attention as it is.

    Args:
        width (int): features of input and output; a multiple of `heads`.
        heads (int): query heads; a multiple of `key_heads`.
        key_heads (int | None): heads of keys and values, each shared by heads / key_heads query
            heads; None: as many as `heads`.
        train (str): "soft" or "adaptive": what `train()` mode computes; `eval()` is adaptive.
        coefficients (Sequence[float] | None): of the polynomial in the entropy, highest power
            first; None: the published ones.
        scale (float | None): factor of the logits; None: (width / heads)^-1/2.
        rope (RotaryEmbedding | None): rotates queries and keys; its head_dim is width / heads.
        causal (bool): a position sees none after it.
        dropout (float): share of the output's features that training sets to 0.
        backend (str): "auto", "reference", "native" or "triton".

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: the sizes do not divide, `rope` is made for another head width, `scale` is not
            positive, `coefficients` are none or not finite, or `train` is unknown.

    Source: Velickovic et al. 2024, Softmax Is Not Enough, arXiv 2410.01104.

    Example:
        >>> import torch
        >>> from pyseq.nn import AdaptiveAttention
        >>> AdaptiveAttention(64, 8)(torch.randn(2, 10, 64)).shape
        torch.Size([2, 10, 64])
    """

    def __init__(
        self,
        width: int,
        heads: int,
        key_heads: int | None = None,
        *,
        train: str = "soft",
        coefficients: Sequence[float] | None = None,
        scale: float | None = None,
        rope: RotaryEmbedding | None = None,
        causal: bool = True,
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
        if train not in TRAIN:
            raise ValueError(f"AdaptiveAttention: train is {train!r}; one of {TRAIN} fits")
        if coefficients is not None:
            check_coefficients("AdaptiveAttention", coefficients)
        self.train_as = train
        self.coefficients = None if coefficients is None else tuple(coefficients)
        self.scale = self._checked_scale(scale)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{super().extra_repr()}, train={self.train_as!r}"

    def _mix(
        self, query: Tensor, key: Tensor, value: Tensor, cache: KeyValueCache | None
    ) -> Tensor:
        query, key, value = self._rotate_and_append(query, key, value, cache)
        if self.training and self.train_as == "soft":
            return self._soft(query, key, value, self.scale)
        return adaptive_attention(
            query,
            key,
            value,
            scale=self.scale,
            causal=self.causal,
            coefficients=self.coefficients,
            backend=self.backend,
        )
