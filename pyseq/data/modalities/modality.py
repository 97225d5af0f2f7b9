"""Several views (modalities) of each object, some of them missing, with one label per object."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from pyseq.errors import UserError

Kind = Literal["vector", "sequence", "tokens", "graph"]

# Of ids that name something few data have more, and of numbers that are none the largest would
# ask for an embedding of each below it.
MOST_TOKENS = 1_000_000

_NO_IDS = "whole numbers that are no ids are a vector, of a dtype of floats"
_FITS = {
    "vector": "(N, F)",
    "sequence": "(N, T, F)",
    "tokens": "(N, T)",
    "graph": "(N, V, F)",
}


class Graph(NamedTuple):
    """Graphs of a batch, padded to V nodes.

    Args:
        features (Tensor (B, V, F), float32): what is known of each node; 0 in padding.
        adjacency (Tensor (B, V, V), float32): weights of edges; 0 in padding.
        nodes (Tensor (B,), int64): how many of the V nodes are real; the first ones are.
    """

    features: Tensor
    adjacency: Tensor
    nodes: Tensor


@dataclass(frozen=True, eq=False)
class Modality:
    """One view of N objects.

    Args:
        name (str): not empty and without a dot, which separates names from suffixes in files.
        kind ("vector" | "sequence" | "tokens" | "graph"): which of the forms below `values` has.
        values (ndarray): vector (N, F), float32; sequence (N, T, F), float32; tokens (N, T),
            int64, in 0..vocabulary-1; graph (N, V, F), float32, features of the nodes.
        vocabulary (int): how many different tokens there can be, up to MOST_TOKENS; 0 for the
            other kinds.
        adjacency (ndarray (N, V, V), float32 | None): weights of a graph's edges.
        nodes (ndarray (N,), int64 | None): how many of a graph's V nodes are real; what stands
            behind them, and their edges, is set to 0.

    Raises:
        TypeError: an array has another dtype.
        UserError: an unknown kind, a shape that does not fit, NaN or infinity, or a token or a
            count of nodes out of range; the sentence names the modality and the place.
    """

    name: str
    kind: Kind
    values: np.ndarray
    vocabulary: int = 0
    adjacency: np.ndarray | None = None
    nodes: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.name or "." in self.name:
            raise UserError(
                f"a modality is named {self.name!r}; a name that is not empty and has no dot fits"
            )
        if self.kind not in get_args(Kind):
            raise UserError(
                f"modality {self.name} is of kind {self.kind!r}; {', '.join(get_args(Kind))} fit"
            )
        self._check_array("values", self.values, np.int64 if self.kind == "tokens" else np.float32)
        fits = _FITS[self.kind]
        if self.values.ndim != fits.count(",") + 1 or 0 in self.values.shape[1:]:
            raise UserError(
                f"modality {self.name} has shape {self.values.shape}; {fits} fits a {self.kind},"
                " with no empty axis"
            )
        if self.kind == "tokens":
            self._check_tokens()
        else:
            self._check_finite(self.values)
        if self.kind == "graph":
            self._check_graph()
        elif self.adjacency is not None or self.nodes is not None:
            raise UserError(f"modality {self.name} is a {self.kind}; only a graph has edges")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def features(self) -> int:
        """F, numbers per object, step or node; 0 for tokens."""
        return 0 if self.kind == "tokens" else self.values.shape[-1]

    def subset(self, index: np.ndarray) -> "Modality":
        """The objects of an index (ndarray (n,), integer or bool), in its order."""
        return replace(
            self,
            values=self.values[index],
            adjacency=None if self.adjacency is None else self.adjacency[index],
            nodes=None if self.nodes is None else self.nodes[index],
        )

    def blanked(self, present: np.ndarray) -> "Modality":
        """The same with everything 0 where present (ndarray (N,), bool) is False."""
        arrays = {
            key: array
            for key in ("values", "adjacency", "nodes")
            if (array := getattr(self, key)) is not None and np.any(array[~present])
        }
        if not arrays:
            return self
        blank = {key: array.copy() for key, array in arrays.items()}
        for array in blank.values():
            array[~present] = 0
        return replace(self, **blank)

    def _check_array(self, what: str, array: np.ndarray, dtype: type) -> None:
        if not isinstance(array, np.ndarray) or array.dtype != dtype:
            got = getattr(array, "dtype", type(array).__name__)
            raise TypeError(
                f"modality {self.name}: {what} are {got}; an array of {dtype.__name__} fits"
            )

    def _check_finite(self, array: np.ndarray, what: str = "") -> None:
        if np.isfinite(array).all():
            return
        row, *place = (int(i) for i in np.argwhere(~np.isfinite(array))[0])
        axes = {1: ["feature"], 2: ["step", "feature"]}[len(place)]
        if self.kind == "graph":
            axes = ["node", "node"] if what else ["node", "feature"]
        where = ", ".join(f"{axis} {i}" for axis, i in zip(axes, place, strict=True))
        raise UserError(
            f"modality {self.name}{what} holds {array[(row, *place)]} at row {row}, {where};"
            " finite numbers fit, and a view that is missing is declared so"
        )

    def _check_tokens(self) -> None:
        if not 1 <= self.vocabulary <= MOST_TOKENS:
            raise UserError(
                f"modality {self.name} has a vocabulary of {self.vocabulary}; 1 to {MOST_TOKENS}"
                f" fit; {_NO_IDS}"
            )
        wrong = (self.values < 0) | (self.values >= self.vocabulary)
        if wrong.any():
            row, step = (int(i) for i in np.argwhere(wrong)[0])
            raise UserError(
                f"modality {self.name} holds token {self.values[row, step]} at row {row}, step"
                f" {step}; 0..{self.vocabulary - 1} fit; {_NO_IDS}"
            )

    def _check_graph(self) -> None:
        count, size = self.values.shape[:2]
        if self.adjacency is None or self.nodes is None:
            raise UserError(f"modality {self.name} is a graph without adjacency or nodes")
        self._check_array("adjacency", self.adjacency, np.float32)
        self._check_array("nodes", self.nodes, np.int64)
        if self.adjacency.shape != (count, size, size) or self.nodes.shape != (count,):
            raise UserError(
                f"modality {self.name} has node features {self.values.shape}, adjacency"
                f" {self.adjacency.shape} and nodes {self.nodes.shape};"
                f" {(count, size, size)} and {(count,)} fit"
            )
        self._check_finite(self.adjacency, ".adjacency")
        wrong = (self.nodes < 0) | (self.nodes > size)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise UserError(
                f"modality {self.name} has {self.nodes[row]} nodes at row {row}; 0..{size} fit"
            )
        real = np.arange(size) < self.nodes[:, None]  # (N, V)
        edges = real[:, :, None] & real[:, None, :]
        if np.any(self.values[~real]) or np.any(self.adjacency[~edges]):
            object.__setattr__(self, "values", self.values * real[:, :, None])
            object.__setattr__(self, "adjacency", self.adjacency * edges)


@dataclass
class Batch:
    """What a model gets to see of B objects, as tensors on one device.

    Args:
        values (dict of str to Tensor or Graph): by the name of the modality; shapes and dtypes as
            in Modality, with B in place of N.
        present (Tensor (B, M), bool): which of the M modalities, in the order of `values`, an
            object has.
        label (Tensor (B,), int64): in 0..classes-1.
    """

    values: dict[str, Tensor | Graph]
    present: Tensor
    label: Tensor

    def __len__(self) -> int:
        return len(self.label)

    def select(self, index: Tensor) -> "Batch":
        """The objects of an index (Tensor (b,), int64, on the batch's device), in its order."""
        values: dict[str, Tensor | Graph] = {
            name: Graph(*(part[index] for part in value))
            if isinstance(value, Graph)
            else value[index]
            for name, value in self.values.items()
        }
        return Batch(values, self.present[index], self.label[index])


@dataclass(frozen=True, eq=False)
class ModalityData:
    """N objects, each with up to M modalities, a label and perhaps a group.

    Args:
        name (str): of the data set.
        modalities (tuple of M Modality): at least one, all of N objects, with different names.
        label (ndarray (N,), int64): in 0..classes-1.
        class_names (tuple of str): one per class, at least two.
        group (ndarray (N,), int64 | None): objects with the same number belong together (copies,
            or one source) and must not be parted into training and test.
        present (ndarray (N, M), bool): False where this modality of this object is missing; its
            values are set to 0 there, so nothing can leak from them.
        bayes_accuracy (float | None): the best accuracy that any classifier can have, where known.
        bayes_posteriors (ndarray (N, classes), float64 | None): probabilities of the classes
            given what is present of the object, where they are known.

    Raises:
        UserError: lengths that differ, names that repeat, or labels out of range.
    """

    name: str
    modalities: tuple[Modality, ...]
    label: np.ndarray
    class_names: tuple[str, ...]
    group: np.ndarray | None
    present: np.ndarray
    bayes_accuracy: float | None = None
    bayes_posteriors: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.modalities:
            raise UserError(f"data {self.name} has no modality; at least one fits")
        if len(set(self.names)) != len(self.names):
            raise UserError(f"data {self.name} names its modalities {self.names}; a name repeats")
        self._check_lengths()
        if self.label.dtype != np.int64 or self.present.dtype != np.bool_:
            raise TypeError(
                f"data {self.name}: label is {self.label.dtype} and present"
                f" {self.present.dtype}; int64 and bool fit"
            )
        wrong = (self.label < 0) | (self.label >= self.classes)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise UserError(
                f"data {self.name} has label {self.label[row]} at row {row};"
                f" 0..{self.classes - 1} fit"
            )
        blanked = tuple(
            modality.blanked(here)
            for modality, here in zip(self.modalities, self.present.T, strict=True)
        )
        object.__setattr__(self, "modalities", blanked)

    def __len__(self) -> int:
        return len(self.label)

    @property
    def classes(self) -> int:
        """How many classes there are, in this part of the data or not."""
        return len(self.class_names)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modalities, in their order."""
        return tuple(modality.name for modality in self.modalities)

    def __getitem__(self, name: str) -> Modality:
        """A modality by its name; UserError when there is none."""
        return self.modalities[self.position(name)]

    def position(self, name: str) -> int:
        """Where a modality stands; UserError when there is none of this name."""
        if name not in self.names:
            raise UserError(
                f"data {self.name} has no modality {name!r}; it has {', '.join(self.names)}"
            )
        return self.names.index(name)

    def subset(self, index: np.ndarray) -> "ModalityData":
        """Some of the objects; the classes stay.

        Args:
            index (ndarray (n,), integer or bool): which ones, in which order.

        Returns:
            ModalityData: of n objects; a known Bayes accuracy is the mean over these.
        """
        index = np.asarray(index)
        posteriors = None if self.bayes_posteriors is None else self.bayes_posteriors[index]
        some = posteriors is not None and len(posteriors) > 0
        return replace(
            self,
            modalities=tuple(modality.subset(index) for modality in self.modalities),
            label=self.label[index],
            group=None if self.group is None else self.group[index],
            present=self.present[index],
            bayes_accuracy=float(posteriors.max(1).mean()) if some else None,  # type: ignore[union-attr]
            bayes_posteriors=posteriors,
        )

    def without(self, names: str | Iterable[str]) -> "ModalityData":
        """The same objects with modalities declared missing; the modalities keep their places.

        Args:
            names (str or iterable of str): which ones.

        Returns:
            ModalityData: without Bayes accuracy and posteriors, which held for more information.

        Raises:
            UserError: there is no modality of a name.
        """
        names = [names] if isinstance(names, str) else list(names)
        present = self.present.copy()
        present[:, [self.position(name) for name in names]] = False
        if (present == self.present).all():
            return self
        return replace(self, present=present, bayes_accuracy=None, bayes_posteriors=None)

    def batch(
        self,
        index: np.ndarray | Sequence[int] | None = None,
        device: torch.device | str = "cpu",
    ) -> Batch:
        """Objects as tensors.

        Args:
            index (ndarray (B,) or sequence, integer or bool): which ones; None is all of them.
            device (torch.device or str): where the tensors shall be.

        Returns:
            Batch: copies, so nobody changes the data by them.
        """
        chosen = np.arange(len(self)) if index is None else np.asarray(index)

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array[chosen]).to(device)

        values: dict[str, Tensor | Graph] = {}
        for modality in self.modalities:
            if modality.adjacency is not None and modality.nodes is not None:
                values[modality.name] = Graph(
                    tensor(modality.values), tensor(modality.adjacency), tensor(modality.nodes)
                )
            else:
                values[modality.name] = tensor(modality.values)
        return Batch(values, tensor(self.present), tensor(self.label))

    def _check_lengths(self) -> None:
        lengths = {modality.name: len(modality) for modality in self.modalities}
        lengths["label"] = len(self.label)
        lengths["present"] = len(self.present)
        if self.group is not None:
            lengths["group"] = len(self.group)
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise UserError(
                f"data {self.name} has arrays of different lengths: {told}; one row per object"
                " in each fits"
            )
        if self.present.shape != (len(self), len(self.modalities)):
            raise UserError(
                f"data {self.name} has present of shape {self.present.shape};"
                f" {(len(self), len(self.modalities))} fits"
            )
        if self.bayes_posteriors is not None and self.bayes_posteriors.shape != (
            len(self),
            self.classes,
        ):
            raise UserError(
                f"data {self.name} has posteriors {self.bayes_posteriors.shape};"
                f" {(len(self), self.classes)} fits"
            )
