"""Attention among the tokens of several modalities."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyseq.models.fusion.residual import ResidualLayer
from pyseq.ops import prepare_keys, softmax_attention

# Inverse temperature of cosines, as CosineAttention has it: before training, and its bound.
SCALE_START, SCALE_MAX = 10.0, 50.0
LAYER = "CrossModalAttention"


class CrossModalAttention(nn.Module):
    """Let every token read the tokens of its own and of all other modalities.

    One softmax runs over the tokens of all modalities, so that a query weighs its own modality
    against the others; then follows a residual layer. All outputs are computed from the tokens that
    came in: a loop that writes back modality by modality would let later ones read earlier ones'
    updates, and the result would depend on the order of the list. Here it does not: modalities in
    another order come out in that order, with the same numbers within rounding.

    A missing modality is read by none; its own tokens still read those that are there. A query that
    finds nothing to read adds the output map's bias.

    Args:
        width (int): C; a multiple of `heads`.
        heads (int): H.
        kind (str): "softmax": queries and keys are compared by products, times (C / H)^-0.5;
            "cosine": by cosines, times a trained number per head in (0, 50), 10 at first.
        expansion (int): the residual layer has expansion * C hidden features.
        dropout (float): share of what both halves add that training sets to 0.

    Raises:
        ValueError: heads do not divide the width, or the kind is another word.

    Source: Vaswani et al. 2017, arXiv 1706.03762; the norm before each half: Xiong et al. 2020,
        arXiv 2002.04745; cosines: Henry et al. 2020, arXiv 2010.04245.

    Example:
        >>> import torch
        >>> from pyseq.models.fusion import CrossModalAttention
        >>> image, text = torch.randn(2, 4, 64), torch.randn(2, 1, 64)
        >>> present = torch.tensor([[True, True], [True, False]])
        >>> [x.shape for x in CrossModalAttention(64, 8)([image, text], present)]
        [torch.Size([2, 4, 64]), torch.Size([2, 1, 64])]
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        kind: str = "softmax",
        expansion: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if heads < 1 or width < 1 or width % heads:
            raise ValueError(f"{LAYER}: {heads} heads and a width of {width}; a divisor fits")
        if kind not in ("softmax", "cosine"):
            raise ValueError(f"{LAYER}: kind is {kind!r}; 'softmax' or 'cosine' fits")
        self.width, self.heads, self.kind = width, heads, kind
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        # A key's bias would move all logits of a query alike, which no softmax notices.
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.residual = ResidualLayer(width, expansion, dropout)
        self.temperature = nn.Parameter(torch.zeros(heads)) if kind == "cosine" else None

    def forward(self, tokens: Sequence[Tensor], present: Tensor) -> list[Tensor]:
        """Update the tokens of all modalities at once.

        Args:
            tokens (list of M Tensor (B, T_m, C), floating): of every modality; left as they are.
            present (Tensor (B, M), bool): False: nothing of this modality is read.

        Returns:
            list of M Tensor (B, T_m, C): the updated tokens.

        Raises:
            TypeError: `present` is no tensor of bools.
            ValueError: shapes do not fit, or there is one token of one modality alone, over which
                a softmax is 1 whatever is learned.
        """
        check_tokens(LAYER, tokens, present, self.width)
        counts = [x.shape[1] for x in tokens]
        if sum(counts) == 1:
            raise ValueError(
                f"{LAYER}: one token of one modality; attention over a single token has weight 1"
                f" whatever is learned, two tokens or more fit; tokens {tuple(tokens[0].shape)}"
            )
        x = torch.cat(list(tokens), 1)  # (B, S, C)
        x = x + self.dropout(self.out(self._mix(self.norm(x), seen_tokens(present, counts))))
        return list(self.residual(x).split(counts, 1))

    def _mix(self, x: Tensor, seen: Tensor) -> Tensor:
        """What the tokens x (B, S, C) read of those that are seen (B, S): (B, S, C)."""
        # The op hides the end of a sequence of keys, so those that are seen are put in front.
        order = torch.argsort(~seen, dim=1, stable=True)
        keys = x.gather(1, order[..., None].expand_as(x))
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, S, D)
        joint = self.key_value(keys).unflatten(-1, (2, self.heads, -1))
        key, value = joint.permute(2, 0, 3, 1, 4)  # each (B, H, S, D)
        scale = None
        if self.temperature is not None:
            start = math.log(SCALE_START / (SCALE_MAX - SCALE_START))
            temperature = SCALE_MAX * torch.sigmoid(self.temperature.float() + start)
            query, key = prepare_keys(query, norm="l2"), prepare_keys(key, norm="l2")
            query, scale = query * temperature.to(query.dtype)[:, None, None], 1.0
        mixed = softmax_attention(query, key, value, scale=scale, lengths=seen.sum(1))
        return mixed.transpose(1, 2).flatten(2)


def seen_tokens(present: Tensor, counts: Sequence[int]) -> Tensor:
    """Which tokens belong to a modality that is there: (B, M) -> (B, sum of counts)."""
    columns = [present[:, m : m + 1].expand(-1, T) for m, T in enumerate(counts)]
    return torch.cat(columns, 1)


def check_tokens(caller: str, tokens: Sequence[Tensor], present: Tensor, width: int) -> None:
    """Tokens (B, T_m, width) of M modalities, and bools (B, M)."""
    if not isinstance(present, Tensor) or present.dtype != torch.bool:
        kind = present.dtype if isinstance(present, Tensor) else type(present).__name__
        raise TypeError(f"{caller}: present is {kind}; a tensor of bools fits")
    shapes = [tuple(x.shape) for x in tokens]
    if not shapes:
        raise ValueError(f"{caller}: no modality; at least one fits")
    B = shapes[0][0]
    if any(len(s) != 3 or s[0] != B or s[1] < 1 or s[2] != width for s in shapes):
        raise ValueError(f"{caller}: tokens {shapes}; (B, T, {width}) with T of at least 1 fit")
    if present.shape != (B, len(shapes)):
        raise ValueError(
            f"{caller}: present has shape {tuple(present.shape)}; ({B}, {len(shapes)}) fits;"
            f" tokens {shapes}"
        )
