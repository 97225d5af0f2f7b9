"""The decoder-only Transformer of the rule-extrapolation paper, and what may be changed in it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from pyseq.data.grammars import PAD
from pyseq.errors import UserError
from pyseq.models.rules.attention import StackedAttention, draw_seed
from pyseq.models.rules.options import check_choices, check_shares, check_sizes
from pyseq.models.rules.rule_model import Description, RuleModel
from pyseq.models.rules.stacked import (
    Stacked,
    StackedEmbedding,
    StackedLayerNorm,
    StackedLinear,
    StackedList,
    draw_normal,
)
from pyseq.nn import KeyValueCache
from pyseq.ops import feed_forward


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and options of a `Transformer`; the defaults are those of the published runs.

    Attributes:
        width (int): features of a token; a multiple of heads.
        heads (int): attention heads.
        layers (int): blocks.
        feed_forward (int): features between the two maps of a block's second half.
        dropout (float): share that training drops: of the embedding, of the softmax weights, of the
            feed-forward's hidden features and of both halves' outputs.
        norm (str): "post": each half's sum is normalised, as published; "pre": each half's input
            is, and the last block's output.
        norm_eps (float): added to the variance in the normalisation.
        positions (str): "none", as published (the official code adds its table along the batch, so
            that a word's logits depend on its row; that is left out); "sinusoidal": added to the
            embedding; "rope": queries and keys are rotated; "relative": a trained number per head
            and distance is added to the logits.
        reach (int): distances from this on share a number, with positions "relative".
        attention (str): "softmax"; "cosine": of normalised queries and keys; "hard": one key each.
        activation (str): "relu" or "gelu".
        init (str): "torch": as nn.TransformerEncoder, whose blocks all begin as copies of one;
            "normal": every weight from a normal distribution of deviation .02, biases 0.
    """

    width: int = 10
    heads: int = 5
    layers: int = 7
    feed_forward: int = 1024
    dropout: float = 0.1
    norm: Literal["post", "pre"] = "post"
    norm_eps: float = 6e-3
    positions: Literal["none", "sinusoidal", "rope", "relative"] = "none"
    reach: int = 32
    attention: Literal["softmax", "cosine", "hard"] = "softmax"
    activation: Literal["relu", "gelu"] = "relu"
    init: Literal["torch", "normal"] = "torch"

    def __post_init__(self) -> None:
        check_sizes(self, "width", "heads", "layers", "feed_forward", "reach")
        check_shares(self, "dropout")
        check_choices(self)
        if self.width % self.heads:
            raise UserError(f"{self.heads} heads do not divide width {self.width}")
        if self.positions == "rope" and self.width // self.heads % 2:
            raise UserError(
                f"positions rope turns pairs of features, but {self.heads} heads of width"
                f" {self.width} have {self.width // self.heads} each; an even number fits"
            )
        if self.positions == "relative" and self.attention != "softmax":
            raise UserError(
                f"positions relative are added to softmax's logits; attention {self.attention}"
                " has none"
            )
        if not self.norm_eps > 0:
            raise UserError(f"norm_eps is {self.norm_eps}; a positive number fits")


@dataclass
class TransformerCache:
    """What a `Transformer` remembers of the sequences it has seen.

    Attributes:
        layers (list of KeyValueCache): of every block.
        length (int): tokens seen.
        visible (Tensor (S, B), int64 | None): of those, the ones before the first PAD.
    """

    layers: list[KeyValueCache] = field(default_factory=list)
    length: int = 0
    visible: Tensor | None = None


class TransformerBlock(Stacked):
    """Attention and feed-forward, each with a residual and a normalisation.

    Args:
        seeds (int): S.
        config (TransformerConfig): sizes and options.
    """

    def __init__(self, seeds: int, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.attention = StackedAttention(
            seeds,
            width,
            config.heads,
            kind=config.attention,
            dropout=config.dropout,
            rope=config.positions == "rope",
            reach=config.reach if config.positions == "relative" else None,
            init=config.init,
        )
        self.wide = StackedLinear(seeds, width, config.feed_forward)
        self.narrow = StackedLinear(seeds, config.feed_forward, width)
        self.norm_1 = StackedLayerNorm(seeds, width, eps=config.norm_eps)
        self.norm_2 = StackedLayerNorm(seeds, width, eps=config.norm_eps)

    def reset(self, generators: Sequence[Generator]) -> None:
        super().reset(generators)
        if self.config.init == "normal":
            _reset_normal((self.wide, self.narrow), generators)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor,
        cache: KeyValueCache | None,
        maps: list[Tensor] | None,
    ) -> Tensor:
        """Map x (S, B, T, width) to the same shape; keys from lengths (S, B) on are not seen."""
        pre = self.config.norm == "pre"
        inner = self.norm_1(x) if pre else x
        x = x + self._drop(self.attention(inner, lengths=lengths, cache=cache, maps=maps))
        x = x if pre else self.norm_1(x)
        x = x + self._drop(self._feed_forward(self.norm_2(x) if pre else x))
        return x if pre else self.norm_2(x)

    def _feed_forward(self, x: Tensor) -> Tensor:
        dropout = self.config.dropout if self.training else 0.0
        return feed_forward(
            x.flatten(1, 2),
            self.wide.weight,
            self.wide.bias,
            self.narrow.weight,
            self.narrow.bias,
            activation=self.config.activation,
            dropout=dropout,
            seed=draw_seed() if dropout > 0 else 0,
        ).view(x.shape)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training)


class Transformer(RuleModel):
    """Embedding times sqrt(width), blocks, logits.

    No query sees a PAD as key, nor what follows the first PAD of a sequence, as with the official
    code's padding mask; a query at PAD sees the word before it. (There, a token that a model writes
    after a PAD would be seen again.) The cosine and hard kinds of attention have no such mask: in
    them, and only after the first PAD, PADs are keys as well.

    Source: Meszaros et al. 2024, Rule Extrapolation in Language Models, arXiv 2409.13728; blocks:
        Vaswani et al. 2017, arXiv 1706.03762; "pre": Xiong et al. 2020, arXiv 2002.04745;
        "relative": Shaw et al. 2018, arXiv 1803.02155, as one number per distance: Raffel et al.
        2020, arXiv 1910.10683.
    """

    kind = "transformer"
    config: TransformerConfig

    def __init__(
        self,
        config: TransformerConfig,
        *,
        classes: int,
        max_length: int,
        seeds: Sequence[int],
    ) -> None:
        super().__init__(config, classes=classes, max_length=max_length, seeds=seeds)
        S = len(seeds)
        self.embedding = StackedEmbedding(S, classes, config.width)
        self.blocks = StackedList([TransformerBlock(S, config) for _ in range(config.layers)])
        pre = config.norm == "pre"
        self.norm = StackedLayerNorm(S, config.width, eps=config.norm_eps) if pre else None
        self.out = StackedLinear(S, config.width, classes)

    def reset(self, generators: Sequence[Generator]) -> None:
        super().reset(generators)
        if self.config.init == "normal":
            draw_normal(self.embedding.weight, generators, 0.02)
            _reset_normal((self.out,), generators)
        else:
            first = self.blocks[0].state_dict()
            for i in range(1, len(self.blocks)):
                self.blocks[i].load_state_dict(first)

    def forward(self, tokens: Tensor, *, cache: TransformerCache | None = None) -> Tensor:
        return self._logits(tokens, cache, None)

    def new_cache(self) -> TransformerCache:
        return TransformerCache([KeyValueCache() for _ in range(self.config.layers)])

    def attention(self, tokens: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                self._logits(tokens, None, maps)
        finally:
            self.train(training)
        return maps

    def describe(self) -> Description:
        c = self.config
        text = (
            f"Transformer: {c.layers} blocks of width {c.width}, {c.heads} heads, feed-forward"
            f" {c.feed_forward} ({c.activation}), {c.norm}-norm, attention {c.attention},"
            f" positions {c.positions}, dropout {c.dropout}"
        )
        return Description("Transformer", self._parameters_of_one(), text)

    def _logits(
        self, tokens: Tensor, cache: TransformerCache | None, maps: list[Tensor] | None
    ) -> Tensor:
        self._check(tokens)
        start = 0 if cache is None else cache.length
        lengths = self._visible(tokens, cache)
        x = self.embedding(tokens) * math.sqrt(self.config.width)
        if self.config.positions == "sinusoidal":
            x = x + sinusoids(start + tokens.shape[2], self.config.width, x.device)[start:]
        x = F.dropout(x, self.config.dropout, self.training)
        for i in range(len(self.blocks)):
            x = self.blocks[i](x, lengths, None if cache is None else cache.layers[i], maps)
        return self.out(x if self.norm is None else self.norm(x))

    def _visible(self, tokens: Tensor, cache: TransformerCache | None) -> Tensor:
        """How many keys of every sequence may be seen, (S, B) int64."""
        visible = (tokens != PAD).cumprod(2).sum(2)
        if cache is None or cache.visible is None:
            visible = visible.clamp(min=1)  # a softmax needs one key
        else:
            whole = cache.visible == cache.length
            visible = torch.where(whole, cache.length + visible, cache.visible)
        if cache is not None:
            cache.visible, cache.length = visible, cache.length + tokens.shape[2]
        return visible


def sinusoids(positions: int, width: int, device: torch.device) -> Tensor:
    """Position p, feature 2i: sin(p 10000^(-2i/width)), feature 2i + 1 its cosine; (P, width)."""
    feature = torch.arange(0, width, 2, dtype=torch.float64, device=device)
    speed = 10000.0 ** (-feature / width)
    angle = torch.arange(positions, dtype=torch.float64, device=device)[:, None] * speed
    return torch.stack((angle.sin(), angle.cos()), 2).flatten(1)[:, :width].float()


def _reset_normal(layers: Sequence[StackedLinear], generators: Sequence[Generator]) -> None:
    for layer in layers:
        draw_normal(layer.weight, generators, 0.02)
        nn.init.zeros_(layer.bias)
