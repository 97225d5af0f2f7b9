"""Rows for training, validation and test: every class in each, no group in two."""

import numpy as np

from pyseq.data.modalities.modality import ModalityData
from pyseq.errors import UserError

Indices = np.ndarray  # (n,), int64, increasing


def locked_split(
    data: ModalityData, seed: int, shares: tuple[float, float, float] = (0.6, 0.2, 0.2)
) -> tuple[Indices, Indices, Indices]:
    """One split, stratified by class, whole groups together.

    Groups come in random order, larger ones first, and each goes where the largest part of its
    classes' share is still lacking. Without groups the counts of a class are thus its shares up
    to rounding, but for one object of each class that every part gets first.

    Args:
        data (ModalityData): each class with at least three objects or groups.
        seed (int): of the order; at least 0.
        shares (tuple of 3 floats): of training, validation and test; positive, of sum 1.

    Returns:
        tuple of three ndarray (n,), int64: increasing row numbers, every row once.

    Raises:
        UserError: shares that do not fit, or a class that cannot be in all three.
    """
    if len(shares) != 3 or not (min(shares) > 0 and abs(sum(shares) - 1) <= 1e-6):
        raise UserError(f"split shares are {shares}; three positive ones that sum to 1 fit")
    _check_members(data, 3, grouped=True, what="training, validation and test")
    part = _assign(data, np.array(shares), np.random.default_rng(seed))
    split = tuple(np.flatnonzero(part == which) for which in range(3))
    for name, rows in zip(("training", "validation", "test"), split, strict=True):
        _check_every_class(data, rows, name)
    return split  # type: ignore[return-value]


def folds(
    data: ModalityData, k: int, seed: int, grouped: bool = True
) -> list[tuple[Indices, Indices]]:
    """K folds, stratified by class, whole groups together.

    Args:
        data (ModalityData): each class with at least k objects or groups.
        k (int): at least 2.
        seed (int): of the order; at least 0.
        grouped (bool): False parts groups, to show what leaks then.

    Returns:
        list of k (training, test): ndarrays (n,), int64; every row is in one test fold.

    Raises:
        UserError: k too small, or a class with fewer than k members.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if k < 2:
        raise UserError(f"{k} folds; at least 2 fit")
    _check_members(data, k, grouped=grouped, what=f"{k} folds")
    by_group = grouped and data.group is not None
    splitter = (StratifiedGroupKFold if by_group else StratifiedKFold)(
        k, shuffle=True, random_state=seed
    )
    parts = list(splitter.split(np.zeros(len(data)), data.label, data.group if by_group else None))
    for training, test in parts:
        _check_every_class(data, training, "the training part of a fold")
        if len(test) == 0:
            raise UserError(f"data {data.name} has too few groups for {k} folds; fewer folds fit")
    return parts


def _check_members(data: ModalityData, least: int, *, grouped: bool, what: str) -> None:
    by_group = grouped and data.group is not None
    for y, name in enumerate(data.class_names):
        rows = np.flatnonzero(data.label == y)
        count = len(np.unique(data.group[rows])) if by_group else len(rows)  # type: ignore[index]
        if count < least:
            members = ("group" if by_group else "member") + ("s" if count != 1 else "")
            raise UserError(
                f"data {data.name}: class {name} has {count} {members}; at least {least} fit, for"
                f" {what}"
            )


def _check_every_class(data: ModalityData, rows: Indices, where: str) -> None:
    there = np.bincount(data.label[rows], minlength=data.classes) > 0
    if not there.all():
        raise UserError(
            f"data {data.name}: no object of class {data.class_names[int(np.argmin(there))]} is in"
            f" {where}, as the groups are too few or too large; more or smaller groups fit"
        )


def _assign(data: ModalityData, shares: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Which part each row goes to, (N,)."""
    group = np.arange(len(data)) if data.group is None else data.group
    different, group = np.unique(group, return_inverse=True)
    members = np.zeros((len(different), data.classes))  # objects of each class in each group
    np.add.at(members, (group, data.label), 1)
    wanted = shares[:, None] * members.sum(0)  # (3, classes)
    lacking = wanted.copy()
    order = random.permutation(len(different))
    order = order[np.argsort(-members.sum(1)[order], kind="stable")]
    part = np.empty(len(different), np.int64)
    for one in order:
        # share of what a part wants of this group's classes and does not have yet
        part[one] = np.argmax((lacking / wanted) @ members[one])
        lacking[part[one]] -= members[one]
    return part[group]
