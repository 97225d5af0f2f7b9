"""Every feature at mean 0 and deviation 1, as the training rows know them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pyseq.data.modalities.modality import Modality, ModalityData
from pyseq.errors import UserError


@dataclass(frozen=True, eq=False)
class Standardiser:
    """Means and deviations of each feature, kept with a model to serve it.

    Steps of a sequence and real nodes of a graph share the statistics of a feature; tokens and
    edges have none and stay as they are.

    Args:
        mean (dict of str to ndarray (F,), float64): by the name of the modality, in its units.
        deviation (dict of str to ndarray (F,), float64): positive; 1 for a feature that does not
            vary.
    """

    mean: Mapping[str, np.ndarray]
    deviation: Mapping[str, np.ndarray]

    @classmethod
    def fit(cls, data: ModalityData) -> "Standardiser":
        """Statistics of data, which should be the training rows only.

        Args:
            data (ModalityData): missing views are left out; a modality of which nothing is
                present gets mean 0 and deviation 1.

        Returns:
            Standardiser.
        """
        means, deviations = {}, {}
        for modality, present in zip(data.modalities, data.present.T, strict=True):
            if modality.kind == "tokens":
                continue
            rows = modality.values[real_places(modality, present)].astype(np.float64)
            mean = rows.mean(0) if len(rows) else np.zeros(modality.features)
            deviation = rows.std(0) if len(rows) else np.ones(modality.features)
            # float32 values that are all the same may differ from their mean by rounding
            constant = deviation <= 1e-7 * np.abs(mean)
            means[modality.name] = mean
            deviations[modality.name] = np.where(constant, 1.0, deviation)
        return cls(means, deviations)

    def apply(self, data: ModalityData) -> ModalityData:
        """Data in units of the training deviation from the training mean.

        Args:
            data (ModalityData): any rows with the modalities of the training.

        Returns:
            ModalityData: missing views and padding stay 0. Posteriors stay what they were, as
            this loses no information.

        Raises:
            UserError: a modality that was not there in training, or has another number of
            features.
        """
        modalities = []
        for modality, present in zip(data.modalities, data.present.T, strict=True):
            if modality.kind == "tokens":
                modalities.append(modality)
                continue
            mean, deviation = self.of(modality)
            real = real_places(modality, present)
            values = (modality.values - mean) / deviation
            values = np.where(real[..., None], values, 0).astype(np.float32)
            modalities.append(replace(modality, values=values))
        return replace(data, modalities=tuple(modalities))

    def of(self, modality: Modality) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation (F,) of a modality's features; UserError when they do not fit it."""
        if modality.name not in self.mean:
            raise UserError(
                f"modality {modality.name} was not there in training; {', '.join(self.mean)} were"
            )
        mean = self.mean[modality.name]
        if len(mean) != modality.features:
            raise UserError(
                f"modality {modality.name} has {modality.features} features; in training it had"
                f" {len(mean)}"
            )
        return mean, self.deviation[modality.name]

    def to_dict(self) -> dict[str, dict[str, list[float]]]:
        """Numbers and names only, for JSON; from_dict gives the same standardiser back."""
        return {
            name: {"mean": self.mean[name].tolist(), "deviation": self.deviation[name].tolist()}
            for name in self.mean
        }

    @classmethod
    def from_dict(cls, kept: Mapping[str, Mapping[str, list[float]]]) -> "Standardiser":
        """What to_dict gave."""
        return cls(
            {name: np.array(each["mean"], np.float64) for name, each in kept.items()},
            {name: np.array(each["deviation"], np.float64) for name, each in kept.items()},
        )


def real_places(modality: Modality, present: np.ndarray) -> np.ndarray:
    """Which places of a modality hold features of something that is there.

    Args:
        modality (Modality): not of tokens.
        present (ndarray (N,), bool): which objects have it.

    Returns:
        ndarray, bool, of the shape of the values without their last axis: False in missing
        objects and in the padding of graphs.
    """
    real = np.broadcast_to(
        present.reshape(-1, *[1] * (modality.values.ndim - 2)), modality.values.shape[:-1]
    )
    if modality.nodes is None:
        return real
    return real & (np.arange(modality.values.shape[1]) < modality.nodes[:, None])
