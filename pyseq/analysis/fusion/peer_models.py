"""What scikit-learn's classifiers reach on the same objects, tuned inside, by the same folds.

Each outer fold's candidates are compared on inner folds of its training part only; the winner is
trained on all of that part and predicts the outer fold once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pyseq.data.modalities import Modality, ModalityData

PEERS = ("SVC", "HistGradientBoosting", "LogisticRegression")
INNER_FOLDS = 3
CLEAN = "clean"


@dataclass(frozen=True)
class Peer:
    """One kind of classifier under nested cross-validation.

    Attributes:
        name (str): one of `PEERS`.
        probabilities (mapping str -> array (N, C), float64): out-of-fold predictions of the data
            as they are ("clean") and of each other version of them.
        chosen (sequence of mappings): settings that won on the inner folds of each outer fold.
    """

    name: str
    probabilities: Mapping[str, NDArray[np.float64]]
    chosen: Sequence[Mapping[str, Any]]


def peers(
    data: ModalityData,
    outer: Sequence[tuple[NDArray, NDArray]],
    seed: int,
    *,
    names: Sequence[str] = PEERS,
    versions: Mapping[str, ModalityData] | None = None,
    inner: int = INNER_FOLDS,
) -> list[Peer]:
    """Out-of-fold predictions of tuned classifiers.

    Candidates are chosen by accuracy. The SVC is multi-class by its decision values, whose softmax
    at a temperature that fits out-of-fold decision values of the training part gives its
    probabilities: its likeliest class is the one it would have named, but as these values are
    mostly counts of votes, its NLL is worse than its accuracy would let one think.

    Args:
        data (ModalityData): N objects of C classes.
        outer (sequence of (array, array), int): training and test rows of each fold; test rows do
            not repeat.
        seed (int): of the inner folds and of the boosting.
        names (sequence of str): of `PEERS`.
        versions (mapping str -> ModalityData, or None): the same objects otherwise, such as with
            noise or without a view: predicted by what was trained on `data`.
        inner (int): folds inside; 2 or more. Where data have groups, they keep them together.

    Returns:
        list of Peer: in the order of names. Objects of no test part have rows of NaN.

    Raises:
        ValueError: an unknown name, test rows that repeat, or a version of other objects.
    """
    if unknown := set(names) - set(PEERS):
        raise ValueError(f"peers: {', '.join(sorted(unknown))}; known are {', '.join(PEERS)}")
    tested = np.concatenate([np.asarray(test) for _, test in outer])
    if np.unique(tested).size != tested.size:
        raise ValueError("peers: an object is tested in two folds; each is tested once at the most")
    views = {CLEAN: data, **(versions or {})}
    for name, version in views.items():
        if not np.array_equal(version.label, data.label):
            raise ValueError(f"peers: version {name!r} holds other objects; the labels must agree")
    columns = {name: features(version) for name, version in views.items()}
    found = []
    for name in names:
        out = {view: np.full((len(data), data.classes), np.nan) for view in views}
        chosen = []
        for train, test in outer:
            model, settings = _tuned(name, columns[CLEAN][train], data, train, seed, inner)
            chosen.append(settings)
            for view in views:
                known = model.classes_  # a class may be missing from this training part
                rows = np.zeros((len(test), data.classes))
                rows[:, known] = model.predict_proba(columns[view][test])
                out[view][test] = rows
        found.append(Peer(name, out, chosen))
    return found


def features(data: ModalityData) -> NDArray[np.float64]:
    """All modalities of each object in one row, for classifiers that know no others.

    Vectors and sequences are laid out as they are, tokens counted, graphs summed up by what does
    not depend on the nodes' order: how many nodes, how dense, largest to least degree, mean,
    deviation and extremes of the nodes' features.

    Args:
        data (ModalityData): N objects.

    Returns:
        array (N, F), float64: NaN where the object's modality is missing.
    """
    parts = []
    for k, modality in enumerate(data.modalities):
        part = _columns(modality)
        part[~data.present[:, k]] = np.nan
        parts.append(part)
    return np.concatenate(parts, axis=1)


def _columns(modality: Modality) -> NDArray[np.float64]:
    count = len(modality)
    if modality.kind == "tokens":
        counts = np.zeros((count, modality.vocabulary))
        rows = np.repeat(np.arange(count), modality.values.shape[1])
        np.add.at(counts, (rows, modality.values.ravel()), 1)
        return counts
    if modality.kind == "graph":
        return _graph_columns(modality)
    return modality.values.reshape(count, -1).astype(np.float64)


def _graph_columns(modality: Modality) -> NDArray[np.float64]:
    values, edges, nodes = modality.values, modality.adjacency, modality.nodes
    assert edges is not None
    assert nodes is not None
    real = np.arange(values.shape[1]) < nodes[:, None]  # (N, V)
    n = np.maximum(nodes, 1)[:, None]
    degree = edges.sum(2, dtype=np.float64)
    pairs = np.maximum(n * (n - 1), 1)
    mean = values.sum(1, dtype=np.float64) / n  # padding holds zeros
    spread = np.sqrt((np.square(values - mean[:, None]) * real[..., None]).sum(1) / n)
    least = np.where(real[..., None], values, np.inf).min(1)
    most = np.where(real[..., None], values, -np.inf).max(1)
    empty = nodes == 0  # no node has no extremes
    least[empty], most[empty] = 0, 0
    ordered = -np.sort(-degree, axis=1)
    density = degree.sum(1, keepdims=True) / pairs
    return np.concatenate([nodes[:, None], density, ordered, mean, spread, least, most], axis=1)


def _tuned(
    name: str,
    columns: NDArray[np.float64],
    data: ModalityData,
    train: NDArray,
    seed: int,
    inner: int,
) -> tuple[Any, dict[str, Any]]:
    """The best candidate, trained on these rows, and its settings."""
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold

    label = data.label[train]
    kind = StratifiedKFold if data.group is None else StratifiedGroupKFold
    split = kind(inner, shuffle=True, random_state=seed)
    group = None if data.group is None else data.group[train]
    parts = list(split.split(columns, label, group))
    candidate, grid = _candidate(name, seed)
    search = GridSearchCV(candidate, grid, scoring="accuracy", cv=parts)
    search.fit(columns, label)
    settings = {key.rpartition("__")[2]: value for key, value in search.best_params_.items()}
    model = search.best_estimator_
    if name == "SVC":
        model = _ProbableSVC(model, columns, label, parts)
    return model, settings


def _candidate(name: str, seed: int) -> tuple[Any, dict[str, list]]:
    """An estimator and the settings among which it is tuned."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    def numbers(last: Any) -> Any:
        imputer = SimpleImputer(add_indicator=True, keep_empty_features=True)
        return make_pipeline(imputer, StandardScaler(), last)

    if name == "HistGradientBoosting":  # missing values are a branch of its trees
        # Few leaves and a round number of trees: a tenth of the time of the defaults.
        model = HistGradientBoostingClassifier(max_iter=100, max_leaf_nodes=8, random_state=seed)
        return model, {"learning_rate": [0.1, 0.3]}
    if name == "LogisticRegression":
        return numbers(LogisticRegression(max_iter=2000)), {
            "logisticregression__C": [0.003, 0.03, 0.3, 3.0]
        }
    return numbers(SVC(cache_size=400, break_ties=True)), {
        "svc__C": [1.0, 3.0, 10.0, 30.0],
        "svc__gamma": ["scale", *_GAMMAS],
    }


# Of standardised columns: "scale" is one over their number.
_GAMMAS = (1e-4, 1e-3, 1e-2)


class _ProbableSVC:
    """An SVC whose decision values become probabilities by a softmax at one temperature."""

    def __init__(
        self, model: Any, columns: NDArray, label: NDArray, parts: list[tuple[NDArray, NDArray]]
    ) -> None:
        from scipy.optimize import minimize_scalar
        from scipy.special import log_softmax
        from sklearn.base import clone

        self.model, self.classes_ = model, model.classes_
        values, came = [], []
        for train, test in parts:
            part = clone(model).fit(columns[train], label[train])
            if not np.array_equal(part.classes_, self.classes_):
                continue  # its values would stand for other classes
            values.append(_decisions(part, columns[test]))
            came.append(np.searchsorted(self.classes_, label[test]))
        self.sharpness = 1.0
        if values:
            z, y = np.concatenate(values), np.concatenate(came)
            rows = np.arange(y.size)
            found = minimize_scalar(
                lambda log: -log_softmax(z * np.exp(log), axis=1)[rows, y].mean(),
                bounds=(-5.0, 5.0),
                method="bounded",
            )
            self.sharpness = float(np.exp(found.x))

    def predict_proba(self, columns: NDArray) -> NDArray[np.float64]:
        """Probabilities (N, C) of `classes_`."""
        from scipy.special import softmax

        return softmax(self.sharpness * _decisions(self.model, columns), axis=1)


def _decisions(model: Any, columns: NDArray) -> NDArray[np.float64]:
    """Decision values with a column for each class, two classes too."""
    values = model.decision_function(columns)
    return np.stack([-values, values], 1) if values.ndim == 1 else values
