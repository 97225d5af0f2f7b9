"""Splits: stratified, whole groups together, every row once."""

import numpy as np
import pytest

from pyseq.data.modalities import Modality, ModalityData, digits, folds, locked_split, synthetic
from pyseq.errors import UserError


def labelled(label, group=None):
    label = np.array(label)
    values = np.zeros((len(label), 1), np.float32)
    return ModalityData(
        name="small",
        modalities=(Modality("x", "vector", values),),
        label=label,
        class_names=tuple("abc"[: label.max() + 1]),
        group=None if group is None else np.array(group),
        present=np.ones((len(label), 1), bool),
    )


def random_groups(seed):
    """About 300 objects in groups of 1 to 9, some with objects of more than one class."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 10, 60)
    group = np.repeat(np.arange(60), sizes)
    label = np.where(random.random(len(group)) < 0.9, group % 3, random.integers(0, 3, len(group)))
    shuffled = random.permutation(len(group))
    return labelled(label[shuffled], group[shuffled])


@pytest.mark.parametrize("seed", range(5))
def test_locked_split_has_each_class_by_its_share(seed):
    data = digits()
    split = locked_split(data, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(split)), np.arange(1797))
    total = np.bincount(data.label)
    for rows, share in zip(split, (0.6, 0.2, 0.2), strict=True):
        assert (np.diff(rows) > 0).all()
        assert np.abs(np.bincount(data.label[rows]) - share * total).max() <= 1


@pytest.mark.parametrize("seed", range(5))
def test_locked_split_keeps_groups_together(seed):
    data = random_groups(seed)
    split = locked_split(data, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(split)), np.arange(len(data)))
    groups = [set(data.group[rows]) for rows in split]
    assert sum(len(part) for part in groups) == len(set(data.group))
    total = np.bincount(data.label)
    for rows, share in zip(split, (0.6, 0.2, 0.2), strict=True):
        assert np.abs(np.bincount(data.label[rows], minlength=3) / total - share).max() < 0.08


def test_seeds_give_other_splits_and_the_same_seed_the_same():
    data = digits()
    np.testing.assert_array_equal(locked_split(data, 1)[2], locked_split(data, 1)[2])
    assert set(locked_split(data, 1)[2]) != set(locked_split(data, 2)[2])
    first, again, other = (folds(data, 3, seed)[0][1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


def test_every_row_is_as_likely_in_the_test_part():
    data = labelled([0, 1] * 10)
    counts = np.zeros(20)
    for seed in range(300):
        counts[locked_split(data, seed)[2]] += 1
    # binomial with p = .2 over 300 seeds: mean 60, deviation 7
    assert np.abs(counts - 60).max() < 4.5 * 7


def test_a_class_of_three_is_once_in_each_part():
    data = labelled([0] * 40 + [1] * 3)
    for rows in locked_split(data, 0):
        assert (data.label[rows] == 1).sum() == 1


def test_folds_are_stratified_and_cover_every_row():
    data = digits()
    parts = folds(data, 5, 0)
    assert len(parts) == 5
    np.testing.assert_array_equal(np.sort(np.concatenate([t for _, t in parts])), np.arange(1797))
    for training, test in parts:
        np.testing.assert_array_equal(np.union1d(training, test), np.arange(1797))
        assert len(np.intersect1d(training, test)) == 0
        assert np.abs(np.bincount(data.label[test]) - np.bincount(data.label) / 5).max() < 1


def test_folds_keep_groups_together_unless_told_otherwise():
    data = synthetic(400, seed=0, duplicates=3)
    for training, test in folds(data, 5, 0):
        assert not set(data.group[training]) & set(data.group[test])
    training, test = folds(data, 5, 0, grouped=False)[0]
    assert set(data.group[training]) & set(data.group[test])


@pytest.mark.parametrize("seed", range(3))
def test_grouped_folds_are_stratified(seed):
    data = random_groups(seed)
    parts = folds(data, 3, seed)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([t for _, t in parts])), np.arange(len(data))
    )
    for _, test in parts:
        shares = np.bincount(data.label[test], minlength=3) / np.bincount(data.label)
        assert np.abs(shares - 1 / 3).max() < 0.12


@pytest.mark.parametrize(
    ("data", "split", "words"),
    [
        (labelled([0, 0, 0, 1]), lambda d: locked_split(d, 0), "class b has 1 member; at least 3"),
        (labelled([0, 0, 0, 1]), lambda d: folds(d, 2, 0), "class b has 1 member; at least 2 fit"),
        (
            labelled([0, 0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 4, 4, 4]),
            lambda d: folds(d, 2, 0),
            "class b has 1 group; at least 2 fit, for 2 folds",
        ),
        (
            labelled([0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 1]),
            lambda d: locked_split(d, 0),
            "class b has 2 groups; at least 3 fit, for training, validation and test",
        ),
        (labelled([0, 0, 1, 1]), lambda d: folds(d, 1, 0), "1 folds; at least 2 fit"),
        (labelled([0, 0, 1, 1]), lambda d: locked_split(d, 0, (0.5, 0.5, 0.5)), "split shares"),
        (labelled([0, 0, 1, 1]), lambda d: locked_split(d, 0, (1.0, 0.0, 0.0)), "split shares"),
    ],
)
def test_errors(data, split, words):
    with pytest.raises(UserError, match=words):
        split(data)
