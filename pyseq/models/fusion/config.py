"""Sizes and options of a fusion model."""

from dataclasses import dataclass
from typing import Literal

from pyseq.errors import UserError
from pyseq.models.rules.options import check_choices, check_shares, check_sizes


@dataclass(frozen=True)
class FusionConfig:
    """Sizes and options of a `FusionModel`.

    Attributes:
        width (int): features of a token, from the encoders to the classifier; a multiple of heads.
        encoder_layers (int): stages of every modality's encoder: residual layers for vectors,
            Transformer blocks for sequences and tokens, rounds of messages for graphs.
        fusion (str): how modalities meet. "attention": tokens of all modalities read each other,
            fusion_layers times; "concatenation": the modalities' states side by side through
            residual layers, about as many parameters as the attention would have.
        fusion_layers (int): `CrossModalAttention` layers.
        heads (int): attention heads.
        attention (str): how queries and keys are compared. "softmax": scaled products; "cosine":
            cosines, with a trained inverse temperature per head.
        expansion (int): a residual layer has expansion * width hidden features.
        classifier_layers (int): residual layers between the fused state and the classes.
        dropout (float): share of every residual layer's output that training drops.
        modality_dropout (float): probability that training hides a modality that is there, for each
            object and modality; at least one of those that are there stays.
        patch (int): steps of a sequence that make one token.
    """

    width: int = 512
    encoder_layers: int = 2
    fusion: Literal["attention", "concatenation"] = "attention"
    fusion_layers: int = 2
    heads: int = 8
    attention: Literal["softmax", "cosine"] = "softmax"
    expansion: int = 2
    classifier_layers: int = 5
    dropout: float = 0.1
    modality_dropout: float = 0.1
    patch: int = 4

    def __post_init__(self) -> None:
        check_sizes(self, "width", "encoder_layers", "fusion_layers", "heads", "expansion")
        check_sizes(self, "classifier_layers", "patch")
        check_shares(self, "dropout", "modality_dropout")
        check_choices(self)
        if self.width % self.heads:
            raise UserError(f"{self.heads} heads do not divide width {self.width}")
