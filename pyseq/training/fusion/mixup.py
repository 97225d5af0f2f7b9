"""Mixup of objects with several modalities, between their encoders and the fusion."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Pairing:
    """Which objects of a batch are mixed, and how: one answer for all modalities and the labels.

    Attributes:
        partner (Tensor (B,), int64): the object that each is mixed with, a permutation.
        weight (Tensor (B,), float32): share of the object itself, 0 to 1.
    """

    partner: Tensor
    weight: Tensor

    def mix(self, values: Tensor) -> Tensor:
        """Weighted mean of each object's values and its partner's.

        Args:
            values (Tensor (B, ...), floating): embeddings of a modality, or targets.

        Returns:
            Tensor (B, ...): dtype of values.
        """
        weight = self.weight.to(values).view(-1, *[1] * (values.ndim - 1))
        return weight * values + (1 - weight) * values[self.partner]


class Mixup:
    """Draws pairings, and mixes embeddings, presence and targets by them.

    Embeddings and not inputs are mixed: token ids have no mean, nor have graphs. A pair keeps the
    modalities that both have, as a mixture with a modality of one of them alone would carry a label
    that its values do not; a pair that has none in common is left as it is.

    Args:
        alpha (pair of float): range from which each batch draws its alpha, evenly; its weight is
            then Beta(alpha, alpha). 0 < low <= high.
        seed (int): of all draws.

    Raises:
        ValueError: the range makes no sense.

    Source: Zhang et al. 2018 (arXiv 1710.09412); of hidden states: Verma et al. 2019, Manifold
        Mixup (arXiv 1806.05236).
    """

    def __init__(self, alpha: tuple[float, float], seed: int):
        low, high = alpha
        if not 0 < low <= high < float("inf"):
            raise ValueError(f"Mixup: alpha {low} to {high}; a rising range above 0 fits")
        self.alpha = (low, high)
        self._random = np.random.default_rng([seed, 0x3A1])

    def draw(self, count: int) -> Pairing:
        """A pairing of so many objects, with one weight for the batch."""
        alpha = self._random.uniform(*self.alpha)
        weight = float(self._random.beta(alpha, alpha))
        partner = torch.from_numpy(self._random.permutation(count))
        return Pairing(partner, torch.full((count,), weight))

    def __call__(
        self, tokens: list[Tensor], present: Tensor, targets: Tensor
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Mix a batch.

        Args:
            tokens (list of Tensor (B, T_m, C), floating): embeddings of each modality.
            present (Tensor (B, M), bool): which modalities the objects have.
            targets (Tensor (B, classes), floating): distributions over classes.

        Returns:
            (list of Tensor, Tensor, Tensor): the same kinds of things, mixed.
        """
        drawn = self.draw(len(present))
        partner = drawn.partner.to(present.device)
        both = present & present[partner]
        shared = both.any(1)
        weight = drawn.weight.to(present.device).where(shared, 1.0)
        pairing = Pairing(partner, weight)
        mixed = [pairing.mix(values) for values in tokens]
        return mixed, both.where(shared[:, None], present), pairing.mix(targets)
