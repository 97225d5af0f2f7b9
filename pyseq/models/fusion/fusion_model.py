"""A classifier of objects that are seen in several modalities."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyseq.data.modalities import Batch
from pyseq.errors import UserError
from pyseq.models.fusion.attention import CrossModalAttention, check_tokens
from pyseq.models.fusion.config import FusionConfig
from pyseq.models.fusion.encoders import ENCODERS, hide
from pyseq.models.fusion.residual import ResidualLayer
from pyseq.models.fusion.shape import DataShape

MODEL = "FusionModel"


class FusionModel(nn.Module):
    """Encode every modality, let them meet, classify.

    `embed` makes tokens of the modalities, `classify` logits of the tokens; what mixes objects in
    training works on the tokens between the two. In `classify` no modality reads the tokens of one
    that is missing, and a trained vector takes the place of its state. In training some modalities
    count as missing, as `modality_dropout` says.

    Attention's fused state is the mean of the states of the modalities that are there, each the
    mean of its tokens, and for each that is missing its trained vector over M is added. These
    vectors start at 0, so a model that never saw a gap in training reads nothing untrained in one.

    Args:
        config (FusionConfig): sizes and options.
        shape (DataShape): of the data; the order of its modalities is that of `present`.

    Attributes:
        config, shape: as given.

    Raises:
        UserError: attention over the one token of one modality, or an encoder refuses its modality.
    """

    def __init__(self, config: FusionConfig, shape: DataShape) -> None:
        super().__init__()
        self.config, self.shape = config, shape
        M, C = len(shape.modalities), config.width
        if config.fusion == "attention" and M == 1 and shape.kinds[0] in ("vector", "graph"):
            raise UserError(
                f"modality {shape.names[0]} alone is one token, and attention over one token does"
                " nothing; fusion concatenation fits"
            )
        self.encoders = nn.ModuleList([ENCODERS[m.kind](m, config) for m in shape.modalities])
        self.modality = nn.Parameter(torch.randn(M, C) * 0.02)
        self.missing = nn.Parameter(torch.zeros(M, C))
        self.fusion: nn.ModuleList | nn.Sequential
        if config.fusion == "attention":
            self.fusion = nn.ModuleList([_attention(config) for _ in range(config.fusion_layers)])
        else:
            count = concatenation_layers(config, M)
            self.fusion = nn.Sequential(nn.Linear(M * C, C), *_residual_layers(config, count))
        self.norm = nn.LayerNorm(C)
        self.classifier = nn.Sequential(
            *_residual_layers(config, config.classifier_layers),
            nn.LayerNorm(C),
            nn.Linear(C, shape.classes),
        )
        self.prior: Tensor
        # It is in the shape, so files need not hold it twice.
        self.register_buffer("prior", torch.tensor(shape.class_shares).log(), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Say which class every object may be of.

        Args:
            batch (Batch): B objects, with the shape's modalities in its order.

        Returns:
            Tensor (B, classes), float32: logits in nats; of an object without any modality, the
                logarithms of the class shares.

        Raises:
            TypeError: `present` is no tensor of bools.
            ValueError: the batch has other modalities, or a shape does not fit.
        """
        return self.classify(self.embed(batch), batch.present)

    def embed(self, batch: Batch) -> list[Tensor]:
        """Encode every modality by itself.

        Args:
            batch (Batch): as in `forward`.

        Returns:
            list of M Tensor (B, T_m, width), float32: tokens with their modality's embedding added.
                Those of missing modalities mean nothing, and do not depend on the values.

        Raises:
            TypeError, ValueError: as `forward`.
        """
        self._check(batch)
        tokens = []
        for m, name in enumerate(self.shape.names):
            # Values that are missing reach no encoder: a NaN among them would reach its gradients.
            values = hide(batch.values[name], batch.present[:, m])
            tokens.append(self.encoders[m](*values) + self.modality[m])
        return tokens

    def classify(self, tokens: Sequence[Tensor], present: Tensor) -> Tensor:
        """Fuse and classify what `embed` gave, or mixtures of that.

        Args:
            tokens (list of M Tensor (B, T_m, width), float32): of every modality.
            present (Tensor (B, M), bool): False: this modality's tokens are not read.

        Returns:
            Tensor (B, classes), float32: logits in nats, as of `forward`.

        Raises:
            TypeError: `present` is no tensor of bools.
            ValueError: shapes do not fit.
        """
        check_tokens(MODEL, tokens, present, self.config.width)
        if len(tokens) != len(self.encoders):
            raise ValueError(f"{MODEL}: {len(tokens)} modalities; {len(self.encoders)} fit")
        if self.training:
            present = drop_modalities(present, self.config.modality_dropout)
        logits = self.classifier(self._fuse(list(tokens), present))
        return torch.where(present.any(1, keepdim=True), logits, self.prior.to(logits.dtype))

    def describe(self) -> str:
        """One line with sizes, options and the number of parameters."""
        c = self.config
        met = (
            f"{c.fusion_layers} layers of {c.attention} attention with {c.heads} heads"
            if c.fusion == "attention"
            else f"concatenation and {len(self.fusion) - 1} residual layers"
        )
        kinds = ", ".join(f"{m.name} ({m.kind})" for m in self.shape.modalities)
        count = sum(p.numel() for p in self.parameters())
        return (
            f"{kinds}; width {c.width}, {c.encoder_layers} stages per encoder, {met},"
            f" {c.classifier_layers} layers of classifier, {count:,} parameters"
        )

    def _fuse(self, tokens: list[Tensor], present: Tensor) -> Tensor:
        """One state for every object, (B, C)."""
        there = present[..., None]  # (B, M, 1)
        if isinstance(self.fusion, nn.Sequential):
            states = torch.stack([x.mean(1) for x in tokens], 1)  # (B, M, C)
            states = torch.where(there, states, self.missing.to(states.dtype))
            return self.norm(self.fusion(states.flatten(1)))
        for layer in self.fusion:
            tokens = layer(tokens, present)
        # A long modality counts as much as a short one.
        states = torch.stack([self.norm(x).mean(1) for x in tokens], 1)
        mean = states.masked_fill(~there, 0).sum(1) / there.sum(1).clamp(min=1)
        gaps = self.missing.to(mean.dtype).masked_fill(there, 0)  # (B, M, C)
        return mean + gaps.mean(1)

    def _check(self, batch: Batch) -> None:
        if tuple(batch.values) != self.shape.names:  # present has a column for each, in this order
            raise ValueError(
                f"{MODEL}: the batch has modalities {', '.join(batch.values) or 'none'};"
                f" {', '.join(self.shape.names)}, in this order, fit"
            )
        B, M = len(batch.present), len(self.encoders)
        if batch.present.dtype != torch.bool:
            raise TypeError(f"{MODEL}: present is {batch.present.dtype}; a tensor of bools fits")
        if batch.present.shape != (B, M):
            raise ValueError(
                f"{MODEL}: present has shape {tuple(batch.present.shape)}; ({B}, {M}) fits,"
                f" of modalities {', '.join(self.shape.names)}"
            )
        for m in self.shape.modalities:
            parts = batch.values[m.name]
            got = tuple(parts.shape) if isinstance(parts, Tensor) else tuple(parts[0].shape)
            fits: tuple[int | str, ...] = {
                "vector": (B, m.features),
                "sequence": (B, m.length, m.features),
                "tokens": (B, m.length),
                "graph": (B, "V", m.features),
            }[m.kind]
            same = len(got) == len(fits) and all(
                f == "V" or g == f for g, f in zip(got, fits, strict=True)
            )
            if not same:
                wanted = ", ".join(map(str, fits))
                raise ValueError(f"{MODEL}: {m.name} has shape {got}; ({wanted}) fits")


def drop_modalities(present: Tensor, probability: float) -> Tensor:
    """Hide some modalities of every object, never all that are there.

    Args:
        present (Tensor (B, M), bool): which are there.
        probability (float): of each to be hidden; where all of an object's would be, one stays,
            each with the same chance, so that of a single modality nothing is hidden.

    Returns:
        Tensor (B, M), bool: which stay.
    """
    if probability == 0:
        return present
    draw = torch.rand(present.shape, device=present.device)
    last = draw.masked_fill(~present, -1).argmax(1, keepdim=True)  # the least likely to be hidden
    stays = (draw >= probability).scatter(1, last, True)
    return present & stays


def concatenation_layers(config: FusionConfig, modalities: int) -> int:
    """Residual layers after a concatenation, for the parameters that attention would have."""
    # In units of width^2: attention has 4 maps and a residual layer, concatenation M at its entry.
    residual = 2 * config.expansion
    left = config.fusion_layers * (4 + residual) - modalities
    return max(0, round(left / residual))


def _attention(config: FusionConfig) -> CrossModalAttention:
    return CrossModalAttention(
        config.width,
        config.heads,
        kind=config.attention,
        expansion=config.expansion,
        dropout=config.dropout,
    )


def _residual_layers(config: FusionConfig, count: int) -> list[nn.Module]:
    return [ResidualLayer(config.width, config.expansion, config.dropout) for _ in range(count)]
