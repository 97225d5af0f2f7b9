"""Self-attention in which every position copies from one other."""

from torch import Tensor

from pyseq.nn.key_value_cache import KeyValueCache
from pyseq.nn.rotary_embedding import RotaryEmbedding
from pyseq.nn.self_attention import SelfAttention
from pyseq.ops.adaptive_attention import adaptive_attention
from pyseq.ops.hard_attention import hard_attention

TRAIN = ("soft", "straight_through")
SERVE = ("hard", "adaptive", "soft")


class HardAttention(SelfAttention):
    """Project to heads, copy the value of the best-matching key, project back; no biases.

    A hard choice has no gradient, so training needs a substitute: softmax attention ("soft"), or
    the hard choice with the softmax's gradient ("straight_through"). After training (`eval()`) the
    layer serves the hard choice, or softmax attention at an adaptive temperature, or as it is.

    Args:
        width (int): features of input and output; a multiple of `heads`.
        heads (int): query heads; a multiple of `key_heads`.
        key_heads (int | None): heads of keys and values, each shared by heads / key_heads query
            heads; None: as many as `heads`.
        train (str): "soft" or "straight_through": what `train()` mode computes.
        serve (str): "hard", "adaptive" or "soft": what `eval()` mode computes.
        scale (float | None): factor of the scores; None: (width / heads)^-1/2. The hard choice does
            not depend on it.
        rope (RotaryEmbedding | None): rotates queries and keys; its head_dim is width / heads.
        causal (bool): a position sees none after it.
        dropout (float): share of the output's features that training sets to 0.
        backend (str): "auto", "reference", "native" or "triton".

    Raises:
        ValueError: the sizes do not divide, `rope` is made for another head width, `scale` is not
            positive, or `train` or `serve` is unknown.

    Source: hard choice and straight-through gradient: Bengio et al. 2013, arXiv 1308.3432; adaptive
        temperature: Velickovic et al. 2024, arXiv 2410.01104.

    Example:
        >>> import torch
        >>> from pyseq.nn import HardAttention
        >>> HardAttention(64, 8, train="straight_through")(torch.randn(2, 10, 64)).shape
        torch.Size([2, 10, 64])
    """

    def __init__(
        self,
        width: int,
        heads: int,
        key_heads: int | None = None,
        *,
        train: str = "soft",
        serve: str = "hard",
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
            raise ValueError(f"HardAttention: train is {train!r}; one of {TRAIN} fits")
        if serve not in SERVE:
            raise ValueError(f"HardAttention: serve is {serve!r}; one of {SERVE} fits")
        self.train_as, self.serve_as = train, serve
        self.scale = self._checked_scale(scale)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{super().extra_repr()}, train={self.train_as!r}, serve={self.serve_as!r}"

    def _mix(
        self, query: Tensor, key: Tensor, value: Tensor, cache: KeyValueCache | None
    ) -> Tensor:
        query, key, value = self._rotate_and_append(query, key, value, cache)
        scale, causal, backend = self.scale, self.causal, self.backend
        match self.train_as if self.training else self.serve_as:
            case "soft":
                return self._soft(query, key, value, scale)
            case "adaptive":
                return adaptive_attention(
                    query, key, value, scale=scale, causal=causal, backend=backend
                )
        return hard_attention(query, key, value, scale=scale, causal=causal, backend=backend)
