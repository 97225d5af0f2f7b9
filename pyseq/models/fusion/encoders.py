"""One modality of a batch as tokens of the model's width."""

import torch
from torch import Tensor, nn

from pyseq.errors import UserError
from pyseq.models.fusion.config import FusionConfig
from pyseq.models.fusion.residual import ResidualLayer
from pyseq.models.fusion.shape import ModalityShape
from pyseq.nn import CosineAttention, PatchEmbedding


class VectorEncoder(nn.Module):
    """A vector as one token: a map to the width, residual layers, a norm.

    Args:
        shape (ModalityShape): of the modality.
        config (FusionConfig): sizes and options.
    """

    def __init__(self, shape: ModalityShape, config: FusionConfig) -> None:
        super().__init__()
        self.first = nn.Linear(shape.features, config.width)
        self.stages = _residual_layers(config)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, values: Tensor) -> Tensor:
        """Encode values (B, F) as (B, 1, C)."""
        return self.norm(self.stages(self.first(values)))[:, None]


class SequenceEncoder(nn.Module):
    """A sequence as one token per patch of steps: patches, trained positions, Transformer blocks.

    A last patch that is not full is filled with copies of the last step.

    Args:
        shape (ModalityShape): of the modality.
        config (FusionConfig): sizes and options.

    Raises:
        UserError: the whole sequence is one patch.
    """

    def __init__(self, shape: ModalityShape, config: FusionConfig) -> None:
        super().__init__()
        if shape.length <= config.patch:
            raise UserError(
                f"modality {shape.name} has {shape.length} steps, one patch of {config.patch};"
                " attention needs two, a smaller patch fits"
            )
        tokens = -(-shape.length // config.patch)
        self.fill = tokens * config.patch - shape.length
        # Steps of several features, one after the other, are a series whose patches are these.
        self.patches = PatchEmbedding(config.patch * shape.features, config.width)
        self.blocks = PositionedBlocks(tokens, config)

    def forward(self, values: Tensor) -> Tensor:
        """Encode values (B, T, F) as (B, N, C)."""
        if self.fill:
            values = torch.cat((values, values[:, -1:].expand(-1, self.fill, -1)), 1)
        return self.blocks(self.patches(values.flatten(1)).embeddings)


class TokenEncoder(nn.Module):
    """Token ids as one token each: an embedding, trained positions, Transformer blocks.

    Args:
        shape (ModalityShape): of the modality.
        config (FusionConfig): sizes and options.

    Raises:
        UserError: there is one position.
    """

    def __init__(self, shape: ModalityShape, config: FusionConfig) -> None:
        super().__init__()
        if shape.length < 2:
            raise UserError(
                f"modality {shape.name} has one token per object; attention needs two, a vector"
                " of 0 and 1 fits"
            )
        self.embedding = nn.Embedding(shape.vocabulary, config.width)
        self.blocks = PositionedBlocks(shape.length, config)

    def forward(self, values: Tensor) -> Tensor:
        """Encode values (B, T) int64 as (B, T, C)."""
        return self.blocks(self.embedding(values))


class PositionedBlocks(nn.Module):
    """Trained positions added to a sequence, Transformer blocks over it, a norm.

    Args:
        length (int): positions.
        config (FusionConfig): encoder_layers is the number of blocks.
    """

    def __init__(self, length: int, config: FusionConfig) -> None:
        super().__init__()
        # As large as what they are added to: small ones leave early training blind to order.
        self.positions = nn.Parameter(torch.randn(length, config.width))
        self.blocks = nn.Sequential(*(SelfBlock(config) for _ in range(config.encoder_layers)))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the positions of x (B, length, C)."""
        return self.norm(self.blocks(x + self.positions))


class SelfBlock(nn.Module):
    """A Transformer block over one modality: `CosineAttention`, then a residual layer.

    Args:
        config (FusionConfig): sizes and options.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.attention = CosineAttention(
            config.width, config.heads, None, causal=False, dropout=config.dropout
        )
        self.residual = ResidualLayer(config.width, config.expansion, config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the positions of x (B, T, C)."""
        return self.residual(x + self.attention(self.norm(x)))


class GraphEncoder(nn.Module):
    """A graph as one token: rounds of messages among its nodes, then a summary of the nodes.

    A node's state starts as a map of its features and of the logarithms of 1 + its degrees, by
    row and by column, and 1 + the number of nodes; a degree sums absolute weights. A round adds
    dropout(W_2 gelu(W_1 [norm(h_i), sum_j A_ij norm(h_j)])) to node i's state h_i. A is the
    adjacency with a loop at every node, divided by the roots of both ends' degrees, the loop
    counted. The token is a map of the nodes' mean and of the largest of each of their features, so
    that neither the order of nodes nor the places after the last one matter.

    Args:
        shape (ModalityShape): of the modality.
        config (FusionConfig): encoder_layers is the number of rounds.

    Source: Gilmer et al. 2017, Neural Message Passing, arXiv 1704.01212; the normalisation: Kipf
        and Welling 2017, arXiv 1609.02907, eq. 2.
    """

    def __init__(self, shape: ModalityShape, config: FusionConfig) -> None:
        super().__init__()
        C = config.width
        self.first = nn.Linear(shape.features + 3, C)
        self.norms = nn.ModuleList([nn.LayerNorm(C) for _ in range(config.encoder_layers)])
        self.rounds = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Linear(2 * C, config.expansion * C),
                    nn.GELU(),
                    nn.Linear(config.expansion * C, C),
                    nn.Dropout(config.dropout),
                )
                for _ in range(config.encoder_layers)
            ]
        )
        self.pool = nn.Linear(2 * C, C)
        self.norm = nn.LayerNorm(C)

    def forward(self, values: Tensor, adjacency: Tensor, nodes: Tensor) -> Tensor:
        """Encode values (B, V, F), adjacency (B, V, V) and nodes (B,) as (B, 1, C)."""
        real = torch.arange(values.shape[1], device=values.device) < nodes[:, None]  # (B, V)
        hidden = ~real[..., None]
        among = real[:, :, None] & real[:, None, :]
        adjacency = adjacency.masked_fill(~among, 0)
        # The normalisation takes degrees away, so nodes are told theirs, and how many they are.
        count = real.sum(1, keepdim=True)  # (B, 1)
        sizes = (adjacency.abs().sum(2), adjacency.abs().sum(1), count.expand_as(real))
        known = torch.stack([size.to(values.dtype).log1p() for size in sizes], -1)  # (B, V, 3)
        h = self.first(torch.cat((values, known), -1).masked_fill(hidden, 0))
        A = normalised_adjacency(adjacency, real)
        for norm, update in zip(self.norms, self.rounds, strict=True):
            own = norm(h)
            h = h + update(torch.cat((own, A.to(own.dtype) @ own), -1))
        mean = h.masked_fill(hidden, 0).sum(1) / count.clamp(min=1)
        largest = h.masked_fill(hidden, -torch.inf).amax(1).masked_fill(count == 0, 0)
        return self.norm(self.pool(torch.cat((mean, largest), -1)))[:, None]


def normalised_adjacency(adjacency: Tensor, real: Tensor) -> Tensor:
    """D^-1/2 (A + I) D'^-1/2 among the real (B, V) nodes; A (B, V, V) is 0 elsewhere."""
    looped = adjacency + torch.diag_embed(real.to(adjacency.dtype))
    rows, columns = (looped.abs().sum(axis, keepdim=True) for axis in (2, 1))
    # A weight of -1 on a loop can leave a node without any; its row then is 0 all the same.
    smallest = torch.finfo(looped.dtype).tiny ** 0.5
    return looped / (rows * columns).sqrt().clamp(min=smallest)


ENCODERS: dict[str, type[nn.Module]] = {
    "vector": VectorEncoder,
    "sequence": SequenceEncoder,
    "tokens": TokenEncoder,
    "graph": GraphEncoder,
}


def _residual_layers(config: FusionConfig) -> nn.Sequential:
    layers = (
        ResidualLayer(config.width, config.expansion, config.dropout)
        for _ in range(config.encoder_layers)
    )
    return nn.Sequential(*layers)


def hide(values: Tensor | tuple[Tensor, ...], present: Tensor) -> tuple[Tensor, ...]:
    """Everything of objects whose modality is missing set to 0; present (B,)."""
    parts = (values,) if isinstance(values, Tensor) else tuple(values)
    return tuple(x.masked_fill(~present.view(-1, *[1] * (x.dim() - 1)), 0) for x in parts)
