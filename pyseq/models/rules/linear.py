"""The paper's linear model, one weight per pair of positions, and what may stand between layers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from pyseq.errors import UserError
from pyseq.models.rules.options import check_choices, check_sizes
from pyseq.models.rules.rule_model import Description, RuleModel
from pyseq.models.rules.stacked import (
    Stacked,
    StackedEmbedding,
    StackedLayerNorm,
    StackedList,
    draw,
    draw_uniform,
)


@dataclass(frozen=True)
class LinearConfig:
    """Sizes and options of a `Linear`; the defaults are those of the published runs.

    Attributes:
        embedding (int): features of a token, and of every layer's output but the last's.
        variant (str): "official": the mask is upside down, so that the logits after token t read
            the tokens from t on, and decoding reads the logits of the last position, which no token
            of an unfinished word reaches: every completion repeats one token. "fixed": the logits
            after token t read the tokens up to t, and decoding reads those of the newest token.
        bias (bool): whether every position has a bias of its own.
        init (str): "xavier": as the official code, whose fans are of the wrong axes: at max_length
            256 and 5 classes the weights' deviation is .0024, where between .02 and .32 would keep
            the inputs' variance; "normal": outputs begin with that variance.
        layers (int): maps after each other.
        layer_norm (bool): each layer's output but the last's is layer-normalised; with this or an
            activation the model is no longer linear.
        residual (bool): each layer but the last adds its input to its output.
        activation (str): "none", "relu", "gelu" or "tanh", on each layer's output but the last's.
    """

    embedding: int = 10
    variant: Literal["official", "fixed"] = "official"
    bias: bool = True
    init: Literal["xavier", "normal"] = "xavier"
    layers: int = 1
    layer_norm: bool = False
    residual: bool = False
    activation: Literal["none", "relu", "gelu", "tanh"] = "none"

    def __post_init__(self) -> None:
        check_sizes(self, "embedding", "layers")
        check_choices(self)
        between = self.layer_norm or self.residual or self.activation != "none"
        if between and self.layers == 1:
            raise UserError(
                "layer_norm, residual and activation stand between layers, but layers is 1;"
                " at least 2 fits"
            )


@dataclass
class LinearCache:
    """What a `Linear` remembers of the sequences it has seen.

    Attributes:
        length (int): tokens seen.
        sums (list over layers of Tensor (S, B, L, outputs) | None): "fixed": what the inputs so far
            add up to in every position.
        tokens (Tensor (S, B, length), int64 | None): "official": the tokens themselves.
    """

    length: int = 0
    sums: list[Tensor | None] = field(default_factory=list)
    tokens: Tensor | None = None


class PositionLayer(Stacked):
    """y_t = sum over s of W_(s, t) x_s + b_t, over the positions s that t reads.

    Args:
        seeds (int): S.
        positions (int): L.
        inputs (int): features of x.
        outputs (int): features of y.
        bias (bool): whether there is a b.
        causal (bool): t reads s <= t; otherwise s >= t.
        init (str): "xavier" or "normal".

    Attributes:
        weight (Parameter (S, L, inputs, L, outputs)): of (source, feature, target, feature); in
            memory each seed's has the official code's layout.
        bias (Parameter (S, L, outputs) | None): 0 before training.
    """

    def __init__(
        self,
        seeds: int,
        positions: int,
        inputs: int,
        outputs: int,
        *,
        bias: bool,
        causal: bool,
        init: str,
    ) -> None:
        super().__init__()
        self.causal, self.init = causal, init
        shape = (seeds, positions, inputs, positions, outputs)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(seeds, positions, outputs)) if bias else None

    def reset(self, generators: Sequence[Generator]) -> None:
        _, L, inputs, _, outputs = self.weight.shape
        if self.init == "xavier":
            # torch takes the first two axes for output and input channels, the rest for a kernel
            draw_uniform(self.weight, generators, (6 / ((L + inputs) * L * outputs)) ** 0.5)
        else:
            read = self._mask().sum(0) * inputs  # (L,), numbers that a target reads
            deviation = read[:, None] ** -0.5  # (L, 1)
            draw(
                self.weight,
                generators,
                lambda w, g: w.normal_(generator=g).mul_(deviation),
            )
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (S, B, T, inputs), zeros after it, to positions 0 to T - 1: (S, B, T, outputs)."""
        T = x.shape[2]
        y = self._joint(x, self._masked(slice(T), slice(T)))
        return y if self.bias is None else y + self.bias[:, None, :T]

    def last(self, x: Tensor) -> Tensor:
        """The last position, L - 1, alone: (S, B, outputs)."""
        y = self._joint(x, self._masked(slice(x.shape[2]), slice(-1, None)))[:, :, 0]
        return y if self.bias is None else y + self.bias[:, None, -1]

    def step(self, x: Tensor, sums: Tensor | None, start: int) -> tuple[Tensor, Tensor]:
        """Causal only: x (S, B, T, inputs) stands at `start`; sums (S, B, L, outputs) from before.

        Gives the outputs of its positions and the new sums; no gradient.
        """
        S, B, T, _ = x.shape
        L = self.weight.shape[1]
        if sums is None:
            sums = x.new_zeros(S, B, L, self.weight.shape[4])
        stop = start + T
        with torch.no_grad():
            sums = sums.clone()
            sums[:, :, start:] += self._joint(x, self._masked(slice(start, stop), slice(start, L)))
        y = sums[:, :, start:stop]
        return y if self.bias is None else y + self.bias[:, None, start:stop], sums

    def _joint(self, x: Tensor, weight: Tensor) -> Tensor:
        """x (S, B, T, inputs) by weight (S, T, inputs, N, outputs): (S, B, N, outputs)."""
        y = torch.bmm(x.flatten(2), weight.flatten(3).flatten(1, 2))
        return y.unflatten(2, weight.shape[3:])

    def _masked(self, source: slice, target: slice) -> Tensor:
        mask = self._mask()[source, target]
        return self.weight[:, source, :, target] * mask[:, None, :, None]

    def _mask(self) -> Tensor:
        """Which source, first axis, is read by which target: (L, L) float32."""
        L = self.weight.shape[1]
        ones = torch.ones(L, L, device=self.weight.device)
        return ones.triu() if self.causal else ones.tril()


class Linear(RuleModel):
    """Embedding, then weights for every pair of positions; `LinearConfig` says what is wrong in it.

    There is a weight for each of max_length + 1 positions: sequences cannot be longer.

    Source: Meszaros et al. 2024, Rule Extrapolation in Language Models, arXiv 2409.13728.
    """

    kind = "linear"
    config: LinearConfig

    def __init__(
        self, config: LinearConfig, *, classes: int, max_length: int, seeds: Sequence[int]
    ) -> None:
        super().__init__(config, classes=classes, max_length=max_length, seeds=seeds)
        S, width = len(seeds), config.embedding
        self.positions = max_length + 1
        self.embedding = StackedEmbedding(S, classes, width)
        self.layers = StackedList(
            [
                PositionLayer(
                    S,
                    self.positions,
                    width,
                    classes if i == config.layers - 1 else width,
                    bias=config.bias,
                    causal=config.variant == "fixed",
                    init=config.init,
                )
                for i in range(config.layers)
            ]
        )
        norms = config.layers - 1 if config.layer_norm else 0
        self.norms = StackedList([StackedLayerNorm(S, width) for _ in range(norms)])

    def forward(self, tokens: Tensor, *, cache: LinearCache | None = None) -> Tensor:
        """As `RuleModel.forward`, but that the official variant is not causal.

        What that says of a token depends on those after it, so that with a cache, where they have
        not come, its answers differ from those to the whole sequence.
        """
        start = 0 if cache is None else cache.length
        self._check_room(tokens, start)
        if self.config.variant == "official":
            x = self._hidden(self._with_zeros(tokens, cache))
            return self.layers[-1](x)[:, :, start : start + tokens.shape[2]]
        x = self.embedding(tokens)
        if cache is None:
            return self.layers[-1](self._hidden(x))
        cache.length += tokens.shape[2]
        for i in range(len(self.layers)):
            y, cache.sums[i] = self.layers[i].step(x, cache.sums[i], start)
            x = y if i == len(self.layers) - 1 else self._between(i, x, y)
        return x

    def new_cache(self) -> LinearCache:
        return LinearCache(sums=[None] * self.config.layers)

    def next_logits(self, tokens: Tensor, *, cache: LinearCache | None = None) -> Tensor:
        """As `RuleModel.next_logits`; the official variant reads the last of all positions."""
        if self.config.variant == "fixed":
            return super().next_logits(tokens, cache=cache)
        self._check_room(tokens, 0 if cache is None else cache.length)
        return self.layers[-1].last(self._hidden(self._with_zeros(tokens, cache)))

    def describe(self) -> Description:
        c = self.config
        between = [
            word
            for word, present in (
                ("LayerNorm", c.layer_norm),
                (c.activation, c.activation != "none"),
                ("residuals", c.residual),
            )
            if present
        ]
        linear = not c.layer_norm and c.activation == "none"
        name = "Linear" if linear else "position-wise network"
        maps = f"{c.layers} layer{'s' if c.layers > 1 else ''} of weights for pairs of positions"
        text = f"{name}: {maps}, embedding {c.embedding}, {c.variant} mask and decoding"
        if not linear:
            text += f"; not linear: {' and '.join(between)} between the layers"
        elif between:
            text += f"; {between[0]} between the layers, which keep it linear"
        return Description(name, self._parameters_of_one(), text)

    def _hidden(self, x: Tensor) -> Tensor:
        """What the last layer reads, of the embedded tokens x."""
        for i in range(len(self.layers) - 1):
            x = self._between(i, x, self.layers[i](x))
        return x

    def _between(self, i: int, x: Tensor, y: Tensor) -> Tensor:
        """The output of layer i, whose map made y of x."""
        if self.config.layer_norm:
            y = self.norms[i](y)
        if self.config.activation != "none":
            y = getattr(torch if self.config.activation == "tanh" else F, self.config.activation)(y)
        return x + y if self.config.residual else y

    def _with_zeros(self, tokens: Tensor, cache: LinearCache | None) -> Tensor:
        """All tokens so far embedded, and zeros up to the last position, as the official code."""
        if cache is not None:
            held = [] if cache.tokens is None else [cache.tokens]
            tokens = cache.tokens = torch.cat([*held, tokens], 2)
            cache.length = tokens.shape[2]
        return F.pad(self.embedding(tokens), (0, 0, 0, self.positions - tokens.shape[2]))

    def _check_room(self, tokens: Tensor, start: int) -> None:
        self._check(tokens)
        if start + tokens.shape[2] > self.positions:
            raise ValueError(
                f"Linear: {start + tokens.shape[2]} tokens; at most max_length + 1 ="
                f" {self.positions} fit; tokens {tuple(tokens.shape)}"
            )
