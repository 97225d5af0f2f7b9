"""Causal self-attention of several models at once."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from pyseq.models.rules.stacked import Stacked, StackedLinear, draw, draw_normal
from pyseq.nn import KeyValueCache, RotaryEmbedding
from pyseq.ops import cosine_attention, hard_attention, prepare_keys, softmax_attention
from pyseq.ops import dropout as drops

SCALE_START, SCALE_MAX = 10.0, 50.0  # inverse temperature of cosine attention, as CosineAttention's


class StackedAttention(Stacked):
    """Project to heads, attend causally, project back; each seed by itself.

    Args:
        seeds (int): S.
        width (int): features of input and output; a multiple of `heads`.
        heads (int): H.
        kind (str): "softmax", "cosine" (normalised queries and keys, a trained inverse temperature
            per head) or "hard" (the value of the best key, straight-through gradient).
        dropout (float): share of the softmax weights that training drops; other kinds drop none.
        rope (bool): queries and keys are rotated by their positions.
        reach (int | None): softmax only: a trained number per head and distance is added to the
            logits, the same for all distances from `reach` on; 0 before training.
        init (str): "torch": as nn.MultiheadAttention; "normal": deviation .02, biases 0.
    """

    def __init__(
        self,
        seeds: int,
        width: int,
        heads: int,
        *,
        kind: str = "softmax",
        dropout: float = 0.0,
        rope: bool = False,
        reach: int | None = None,
        init: str = "torch",
    ) -> None:
        super().__init__()
        self.heads, self.kind, self.dropout, self.init = heads, kind, dropout, init
        self.query_key_value = StackedLinear(seeds, width, 3 * width)
        self.out = StackedLinear(seeds, width, width)
        self.rope = RotaryEmbedding(width // heads) if rope else None
        self.temperature = nn.Parameter(torch.empty(seeds, heads)) if kind == "cosine" else None
        self.bias = None if reach is None else nn.Parameter(torch.empty(seeds, heads, reach + 1))

    def reset(self, generators: Sequence[Generator]) -> None:
        for layer, xavier in ((self.query_key_value, True), (self.out, False)):
            if self.init == "normal":
                draw_normal(layer.weight, generators, 0.02)
            elif xavier:
                draw(layer.weight, generators, lambda w, g: nn.init.xavier_uniform_(w, generator=g))
            else:
                layer.reset(generators)
            nn.init.zeros_(layer.bias)
        for parameter in (self.temperature, self.bias):
            if parameter is not None:
                nn.init.zeros_(parameter)

    def forward(
        self,
        x: Tensor,
        *,
        lengths: Tensor | None = None,
        cache: KeyValueCache | None = None,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """Attend from every position of x, or of a piece that follows what the cache holds.

        Args:
            x (Tensor (S, B, T, width), float32): the sequences.
            lengths (Tensor (S, B), int64 | None): keys from there on are not seen; softmax only.
            cache (KeyValueCache | None): the positions before x.
            maps (list | None): the weights (S, B, H, T, keys) are appended to it.

        Returns:
            Tensor (S, B, T, width), float32.
        """
        S = len(x)
        joint = self.query_key_value(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = joint.permute(3, 0, 1, 4, 2, 5)  # each (S, B, H, T, D)
        if self.kind == "cosine":  # the op has a scale per head, so seeds become heads
            query, key, value = (t.transpose(0, 1).flatten(1, 2) for t in (query, key, value))
        else:
            query, key, value = (t.flatten(0, 1) for t in (query, key, value))
            query, key = self._rotated(query, key, 0 if cache is None else cache.length)
        if cache is not None:
            key, value = cache.append(key, value)
        lengths = None if lengths is None else lengths.flatten()
        if maps is not None:
            # The output is linear in the values: mixing unit vectors gives the weights.
            K, D = key.shape[2:]
            units = torch.eye(K, -(-K // D) * D, dtype=x.dtype, device=x.device).split(D, dim=1)
            shares = [self._mix(query, key, u.expand_as(key), lengths, S) for u in units]
            maps.append(self._unfolded(torch.cat(shares, -1)[..., :K], S))
        mixed = self._unfolded(self._mix(query, key, value, lengths, S), S)
        return self.out(mixed.transpose(2, 3).flatten(3))

    def _mix(
        self, query: Tensor, key: Tensor, value: Tensor, lengths: Tensor | None, S: int
    ) -> Tensor:
        if self.kind == "hard":
            return hard_attention(query, key, value, causal=True)
        if self.temperature is not None:
            start = math.log(SCALE_START / (SCALE_MAX - SCALE_START))
            scale = SCALE_MAX * torch.sigmoid(self.temperature.flatten() + start)
            rope = None if self.rope is None else self.rope(key.shape[2], device=key.device)
            return cosine_attention(
                query, key, value, scale=scale, rope=rope, causal=True, scale_bound=SCALE_MAX
            )
        if query.shape[2] == 1 and self.bias is None and not (self.training or query.requires_grad):
            # A step of decoding is all reading of keys, which torch does five times as fast.
            return _newest_attention(query, key, value, lengths)
        dropout = self.dropout if self.training else 0.0
        seed = draw_seed() if dropout > 0 else 0
        if self.bias is None:
            return softmax_attention(
                query, key, value, causal=True, lengths=lengths, dropout=dropout, seed=seed
            )
        bias = self._bias(query.shape[2], key.shape[2]).repeat_interleave(len(query) // S, 0)
        return biased_attention(
            query, key, value, bias, lengths=lengths, dropout=dropout, seed=seed
        )

    def _bias(self, T: int, K: int) -> Tensor:
        """What is added to the logits, (S, H, T, keys)."""
        assert self.bias is not None
        device = self.bias.device
        position = torch.arange(K, device=device)
        distance = position[K - T :, None] - position
        return self.bias[..., distance.clamp(0, self.bias.shape[2] - 1)]

    def _rotated(self, query: Tensor, key: Tensor, position: int) -> tuple[Tensor, Tensor]:
        if self.rope is None:
            return query, key
        tables = self.rope(query.shape[2], offset=position, device=query.device)
        return (
            prepare_keys(query, norm=None, rope=tables),
            prepare_keys(key, norm=None, rope=tables),
        )

    def _unfolded(self, x: Tensor, S: int) -> Tensor:
        """(S, B, H, T, ...) of what forward folded for the ops."""
        if self.kind == "cosine":
            return x.unflatten(1, (S, -1)).transpose(0, 1)
        return x.unflatten(0, (S, -1))


def _newest_attention(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor | None) -> Tensor:
    """What one query, which stands at the last key, takes: (B, H, 1, D)."""
    seen = None
    if lengths is not None:
        position = torch.arange(key.shape[2], device=key.device)
        seen = position < lengths[:, None, None, None]  # (B, 1, 1, keys)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=seen)


def draw_seed() -> Tensor:
    """A fresh seed for an op's dropout, () int64, from torch's generator."""
    return torch.randint(2**62, ())


def biased_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    *,
    lengths: Tensor | None,
    dropout: float,
    seed: int | Tensor,
) -> Tensor:
    """`pyseq.ops.softmax_attention`, causal, with bias (B, H, T, keys) added to the logits."""
    T, K = query.shape[2], key.shape[2]
    position = torch.arange(K, device=query.device)
    seen = position <= position[K - T :, None]  # (T, K)
    if lengths is not None:
        seen = seen & (position < lengths[:, None, None, None])  # (B, 1, T, K)
    logits = query @ key.mT * query.shape[3] ** -0.5 + bias
    weights = logits.masked_fill(~seen, -torch.inf).softmax(-1)
    number = drops.as_tensor(seed)
    factors = drops.factors(number, dropout, weights.shape, query.device, query.dtype)
    return (weights * factors) @ value
