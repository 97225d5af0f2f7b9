"""The recurrent network of the rule-extrapolation paper, and what may be changed in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pyseq.errors import UserError
from pyseq.models.rules.attention import StackedAttention
from pyseq.models.rules.options import check_choices, check_shares, check_sizes
from pyseq.models.rules.recurrence import CellLayer, FusedLayers, Recurrence, State
from pyseq.models.rules.rule_model import Description, RuleModel
from pyseq.models.rules.stacked import StackedEmbedding, StackedLinear, StackedList
from pyseq.nn import KeyValueCache


@dataclass(frozen=True)
class LSTMConfig:
    """Sizes and options of an `LSTM`; the defaults are those of the published runs.

    Attributes:
        embedding (int): features of a token.
        hidden (int): features of a layer's state.
        layers (int): layers on top of each other.
        dropout (float): share of the last layer's output that training drops; there is none between
            the layers, as in the official code.
        cell (str): "lstm" or "gru".
        layer_norm (bool): the LSTM's gates and cell state are layer-normalised.
        peephole (bool): the LSTM's gates see the cell state.
        residual (bool): every layer but the first adds its input to its output.
        attention (str): "none", or causal attention over the last layer's outputs, added to them:
            "softmax" or "cosine".
        attention_heads (int): its heads; a divisor of hidden.
        bidirectional (bool): refused: the way back reads the token that is to be predicted.
    """

    embedding: int = 10
    hidden: int = 64
    layers: int = 5
    dropout: float = 0.4
    cell: Literal["lstm", "gru"] = "lstm"
    layer_norm: bool = False
    peephole: bool = False
    residual: bool = False
    attention: Literal["none", "softmax", "cosine"] = "none"
    attention_heads: int = 4
    bidirectional: bool = False

    def __post_init__(self) -> None:
        check_sizes(self, "embedding", "hidden", "layers", "attention_heads")
        check_shares(self, "dropout")
        check_choices(self)
        if self.bidirectional:
            raise UserError(
                "bidirectional is refused: the layer that runs backwards reads the next token,"
                " which is what the model is to predict"
            )
        if self.cell != "lstm" and (self.layer_norm or self.peephole):
            raise UserError(
                f"layer_norm and peephole are forms of the LSTM's cell; {self.cell} fits neither"
            )
        if self.attention != "none" and self.hidden % self.attention_heads:
            raise UserError(f"{self.attention_heads} heads do not divide hidden {self.hidden}")


@dataclass
class LSTMCache:
    """What an `LSTM` remembers of the sequences it has seen.

    Attributes:
        states (list of State | None): of every `Recurrence`; None before the first token.
        attention (KeyValueCache): what the attention on top has seen.
    """

    states: list[State | None]
    attention: KeyValueCache


class LSTM(RuleModel):
    """Embedding, recurrent layers, dropout, logits.

    Source: Meszaros et al. 2024, Rule Extrapolation in Language Models, arXiv 2409.13728; LSTM:
        Hochreiter and Schmidhuber 1997; peepholes: Gers et al. 2002, JMLR 3; layer normalisation:
        Ba et al. 2016, arXiv 1607.06450; GRU: Cho et al. 2014, arXiv 1406.1078.
    """

    kind = "lstm"
    config: LSTMConfig

    def __init__(
        self, config: LSTMConfig, *, classes: int, max_length: int, seeds: Sequence[int]
    ) -> None:
        super().__init__(config, classes=classes, max_length=max_length, seeds=seeds)
        S, hidden, c = len(seeds), config.hidden, config
        self.embedding = StackedEmbedding(S, classes, c.embedding)
        widths = [c.embedding] + [hidden] * (c.layers - 1)
        layers: list[Recurrence]
        if c.layer_norm or c.peephole:
            options = {"layer_norm": c.layer_norm, "peephole": c.peephole}
            layers = [CellLayer(S, width, hidden, **options) for width in widths]
        elif c.residual:
            layers = [FusedLayers(S, width, hidden, 1, cell=c.cell) for width in widths]
        else:
            layers = [FusedLayers(S, c.embedding, hidden, c.layers, cell=c.cell)]
        self.recurrences = StackedList(layers)
        self.mixer = (
            None
            if c.attention == "none"
            else StackedAttention(S, hidden, c.attention_heads, kind=c.attention)
        )
        self.out = StackedLinear(S, hidden, classes)

    def forward(self, tokens: Tensor, *, cache: LSTMCache | None = None) -> Tensor:
        x = self._features(tokens, cache)
        if self.mixer is not None:
            x = x + self.mixer(x, cache=None if cache is None else cache.attention)
        return self.out(F.dropout(x, self.config.dropout, self.training))

    def new_cache(self) -> LSTMCache:
        return LSTMCache([None] * len(self.recurrences), KeyValueCache())

    def attention(self, tokens: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        if self.mixer is not None:
            with torch.no_grad():
                self.mixer(self._features(tokens, None), maps=maps)
        return maps

    def describe(self) -> Description:
        c = self.config
        name = c.cell.upper()
        options = [
            word
            for word, present in (
                ("layer-normalised cells", c.layer_norm),
                ("peepholes", c.peephole),
                ("residual layers", c.residual),
                (f"causal {c.attention} attention on top", c.attention != "none"),
            )
            if present
        ]
        text = (
            f"{name}: embedding {c.embedding}, {c.layers} layers of {c.hidden}, dropout"
            f" {c.dropout} before the logits"
        )
        return Description(name, self._parameters_of_one(), ", ".join([text, *options]))

    def _features(self, tokens: Tensor, cache: LSTMCache | None) -> Tensor:
        """The last layer's outputs, (S, B, T, hidden)."""
        self._check(tokens)
        x = self.embedding(tokens)
        for i in range(len(self.recurrences)):
            y, state = self.recurrences[i](x, None if cache is None else cache.states[i])
            x = x + y if self.config.residual and i > 0 else y
            if cache is not None:
                cache.states[i] = tuple(part.detach() for part in state)
        return x
