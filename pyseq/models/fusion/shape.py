"""What a fusion model must know of the data before it sees any."""

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from pyseq.data.modalities import Kind, Modality, ModalityData
from pyseq.errors import UserError


@dataclass(frozen=True)
class ModalityShape:
    """Sizes of one modality.

    Attributes:
        name (str): what batches call it.
        kind (str): "vector", "sequence", "tokens" or "graph".
        features (int): of a vector, of a step or of a node; 0 for tokens.
        length (int): steps of a sequence, or tokens; 0 for vectors and graphs.
        vocabulary (int): tokens that are told apart; 0 for other kinds.
    """

    name: str
    kind: Kind
    features: int = 0
    length: int = 0
    vocabulary: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            known = ", ".join(get_args(Kind))
            raise UserError(f"modality {self.name} is of kind {self.kind}; one of {known} fits")
        needed = {
            "features": self.kind != "tokens",
            "length": self.kind in ("sequence", "tokens"),
            "vocabulary": self.kind == "tokens",
        }
        for size, is_needed in needed.items():
            if is_needed and getattr(self, size) < 1:
                raise UserError(
                    f"modality {self.name}, a {self.kind}, has {size} {getattr(self, size)};"
                    " at least 1 fits"
                )


@dataclass(frozen=True)
class DataShape:
    """Sizes of all modalities, and how frequent the classes are.

    Attributes:
        modalities (tuple of ModalityShape): in the order of a batch's `present`.
        class_shares (tuple of float): probability of every class before anything is seen, which is
            what a model says of an object all of whose modalities are missing; positive, sum 1.
    """

    modalities: tuple[ModalityShape, ...]
    class_shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.modalities:
            raise UserError("the data have no modality; at least 1 fits")
        if len(set(self.names)) < len(self.names):
            raise UserError(f"modalities are called {', '.join(self.names)}; each name once fits")
        if self.classes < 2:
            raise UserError(f"the data have {self.classes} classes; at least 2 fit")
        if min(self.class_shares) <= 0 or abs(sum(self.class_shares) - 1) > 1e-6:
            raise UserError(f"class shares {self.class_shares}; positive numbers of sum 1 fit")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(m.name for m in self.modalities)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(m.kind for m in self.modalities)

    @property
    def classes(self) -> int:
        return len(self.class_shares)

    @staticmethod
    def of(data: ModalityData) -> "DataShape":
        """The shape of data; of the training rows, because classes are counted.

        Args:
            data (ModalityData): N objects.

        Returns:
            DataShape: a class's share is (its objects + 1) / (N + classes), so that none is 0.
        """
        counts = np.bincount(data.label, minlength=data.classes) + 1.0
        shares = tuple(float(share) for share in counts / counts.sum())
        return DataShape(tuple(_shape(m) for m in data.modalities), shares)

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> "DataShape":
        """The shape that `dataclasses.asdict` made `fields` of."""
        modalities = tuple(ModalityShape(**m) for m in fields["modalities"])
        return DataShape(modalities, tuple(fields["class_shares"]))


def _shape(modality: Modality) -> ModalityShape:
    has_length = modality.kind in ("sequence", "tokens")
    return ModalityShape(
        modality.name,
        modality.kind,
        features=modality.features,
        length=modality.values.shape[1] if has_length else 0,
        vocabulary=modality.vocabulary,
    )
