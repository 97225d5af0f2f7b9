"""Data as they may come when a model is used: noisier, or without a view."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from pyseq.data.modalities.modality import ModalityData
from pyseq.data.modalities.standardiser import Standardiser, real_places
from pyseq.errors import UserError


def corrupted(
    data: ModalityData,
    *,
    noise: float = 0.0,
    missing: str | Iterable[str] = (),
    seed: int = 0,
    standardiser: Standardiser | None = None,
) -> ModalityData:
    """Data with normal noise on every feature, or with views missing.

    Tokens and edges get no noise. What is missing and what is padding stays 0.

    Args:
        data (ModalityData): standardised, or raw together with its standardiser.
        noise (float): deviation of the noise, in units of the training deviation; at least 0.
        missing (str or iterable of str): modalities to declare missing.
        seed (int): of the noise. Each modality has noise of its own, the same whatever else is
            missing.
        standardiser (Standardiser | None): for raw data, what holds the training deviations.

    Returns:
        ModalityData: without Bayes accuracy and posteriors where something was done.

    Raises:
        UserError: an unknown modality, a negative noise or a negative seed.
    """
    if seed < 0:
        raise UserError(f"the seed of the noise is {seed}; 0 or more fits")
    if not 0 <= noise < np.inf:
        raise UserError(f"noise is {noise}; 0 or a positive number of training deviations fits")
    data = data.without(missing)
    if noise == 0:
        return data
    modalities = []
    seeds = np.random.SeedSequence(seed).spawn(len(data.modalities))
    for modality, present, own_seed in zip(data.modalities, data.present.T, seeds, strict=True):
        if modality.kind == "tokens":
            modalities.append(modality)
            continue
        deviation = 1.0 if standardiser is None else standardiser.of(modality)[1]
        drawn = np.random.default_rng(own_seed).standard_normal(modality.values.shape)
        drawn *= noise * deviation * real_places(modality, present)[..., None]
        values = (modality.values + drawn).astype(np.float32)
        modalities.append(replace(modality, values=values))
    return replace(data, modalities=tuple(modalities), bayes_accuracy=None, bayes_posteriors=None)
