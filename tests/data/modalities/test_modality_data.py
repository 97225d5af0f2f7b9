"""Objects with several views: subsets, batches, missing views, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pyseq.data.modalities import (
    DATA_SETS,
    Graph,
    Modality,
    ModalityData,
    find_data,
    save_npz,
    synthetic,
)
from pyseq.errors import UserError


@pytest.fixture(scope="module")
def data():
    return synthetic(30, seed=0, missing=0.2, duplicates=1)


def vector(count=3, name="x"):
    return Modality(name, "vector", np.ones((count, 2), np.float32))


def small(**changes):
    given = {
        "name": "small",
        "modalities": (vector(),),
        "label": np.array([0, 1, 0]),
        "class_names": ("a", "b"),
        "group": None,
        "present": np.ones((3, 1), bool),
    }
    return ModalityData(**{**given, **changes})


def test_a_batch_holds_the_rows_as_tensors(data):
    rows = np.array([4, 0, 7])
    batch = data.batch(rows)
    assert len(batch) == 3
    assert tuple(batch.values) == data.names
    assert {name: value.dtype for name, value in batch.values.items() if name != "graph"} == {
        "scalars": torch.float32,
        "sequence": torch.float32,
        "tokens": torch.int64,
    }
    assert batch.present.dtype == torch.bool
    assert batch.label.dtype == torch.int64
    for name in ("scalars", "sequence", "tokens"):
        np.testing.assert_array_equal(batch.values[name], data[name].values[rows])
    graph = batch.values["graph"]
    assert isinstance(graph, Graph)
    np.testing.assert_array_equal(graph.features, data["graph"].values[rows])
    np.testing.assert_array_equal(graph.adjacency, data["graph"].adjacency[rows])
    np.testing.assert_array_equal(graph.nodes, data["graph"].nodes[rows])
    np.testing.assert_array_equal(batch.present, data.present[rows])
    np.testing.assert_array_equal(batch.label, data.label[rows])


def test_a_selection_of_a_batch_is_the_batch_of_the_selection(data):
    rows = torch.tensor([5, 2])
    one, other = data.batch().select(rows), data.batch([5, 2])
    assert torch.equal(one.label, other.label)
    assert torch.equal(one.present, other.present)
    assert torch.equal(one.values["tokens"], other.values["tokens"])
    for mine, theirs in zip(one.values["graph"], other.values["graph"], strict=True):
        assert torch.equal(mine, theirs)


def test_writing_into_a_batch_leaves_the_data_alone(data):
    before = data["scalars"].values.copy()
    data.batch().values["scalars"].zero_()
    np.testing.assert_array_equal(data["scalars"].values, before)


@pytest.mark.parametrize("index", [np.array([3, 1]), np.arange(30) == 3])
def test_subsets(data, index):
    part = data.subset(index)
    assert part.classes == 4
    np.testing.assert_array_equal(part.label, data.label[index])
    np.testing.assert_array_equal(part.group, data.group[index])
    np.testing.assert_array_equal(part.present, data.present[index])
    np.testing.assert_array_equal(part["graph"].adjacency, data["graph"].adjacency[index])
    assert part.bayes_accuracy == data.bayes_posteriors[index].max(1).mean()
    assert len(data.subset(np.array([], np.int64))) == 0


def test_without_blanks_a_modality_and_leaves_the_original(data):
    less = data.without(["graph", "tokens"])
    assert less.names == data.names
    assert not less.present[:, 2:].any()
    np.testing.assert_array_equal(less.present[:, :2], data.present[:, :2])
    for array in (less["tokens"].values, less["graph"].adjacency, less["graph"].nodes):
        assert not array.any()
    assert data["graph"].adjacency.any()
    assert less.bayes_accuracy is None
    assert data.without([]) is data
    with pytest.raises(UserError, match="no modality 'colour'; it has scalars, sequence, tokens"):
        data.without("colour")


def test_values_of_missing_views_are_wiped():
    data = small(present=np.array([[True], [False], [True]]))
    np.testing.assert_array_equal(data["x"].values, [[1, 1], [0, 0], [1, 1]])


def test_padding_of_graphs_is_wiped():
    graph = Modality(
        "g",
        "graph",
        np.ones((1, 3, 1), np.float32),
        adjacency=np.ones((1, 3, 3), np.float32),
        nodes=np.array([2]),
    )
    np.testing.assert_array_equal(graph.values[0, :, 0], [1, 1, 0])
    np.testing.assert_array_equal(graph.adjacency[0], [[1, 1, 0], [1, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize("name", DATA_SETS)
def test_built_in_data_have_every_class_and_no_nan(name):
    data = find_data(name)
    assert data.name == name
    assert set(data.label) == set(range(data.classes))
    assert len(data.modalities) >= 3


def test_groups_of_columns_leave_out_none():
    from sklearn.datasets import load_breast_cancer, load_wine

    for name, table in (("wine", load_wine()), ("breast_cancer", load_breast_cancer())):
        ours = np.concatenate([m.values for m in find_data(name).modalities], axis=1)
        theirs = table["data"].astype(np.float32)
        assert sorted(map(tuple, ours.T)) == sorted(map(tuple, theirs.T))
        np.testing.assert_array_equal(find_data(name).label, table["target"])


def test_find_data_takes_settings_seeds_and_files(tmp_path):
    assert len(find_data("synthetic", count=17)) == 17
    one, other = (find_data("synthetic", seed=seed, count=17).label for seed in (0, 1))
    assert (one != other).any()
    save_npz(tmp_path / "mine.npz", synthetic(40))
    assert find_data(tmp_path / "mine.npz").name == "mine"


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("digitz", {}, "no data set 'digitz'; known are digits, wine, breast_cancer, synthetic"),
        ("nowhere.npz", {}, "nowhere.npz cannot be read: No such file"),
        ("wine", {"missing": 0.1}, "data wine has no setting missing; it has none"),
        ("synthetic", {"nois": 1}, "no setting nois; it has count, duplicates, label_noise"),
    ],
)
def test_unknown_data_and_settings(name, settings, words):
    with pytest.raises(UserError, match=words):
        find_data(name, **settings)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"modalities": (vector(), vector(4, "y")), "present": np.ones((3, 2), bool)},
            "different lengths: x 3, y 4, label 3, present 3",
        ),
        ({"group": np.array([1, 2])}, "different lengths: x 3, label 3, present 3, group 2"),
        ({"label": np.array([0, 1, 2])}, r"label 2 at row 2; 0\.\.1 fit"),
        ({"label": np.array([0, 1, -1])}, r"label -1 at row 2"),
        ({"present": np.ones((3, 2), bool)}, r"present of shape \(3, 2\); \(3, 1\) fits"),
        ({"modalities": (vector(), vector())}, "a name repeats"),
        ({"modalities": ()}, "has no modality"),
        ({"bayes_posteriors": np.ones((3, 3))}, r"posteriors \(3, 3\); \(3, 2\) fits"),
    ],
)
def test_data_that_do_not_fit_together(changes, words):
    with pytest.raises(UserError, match=words):
        small(**changes)


def test_dtypes_are_told():
    with pytest.raises(TypeError, match="label is float64 and present bool; int64 and bool fit"):
        small(label=np.array([0.0, 1.0, 0.0]))
    with pytest.raises(TypeError, match="modality x: values are float64; an array of float32 fits"):
        Modality("x", "vector", np.ones((3, 2)))


GRAPH = Modality(
    "g",
    "graph",
    np.ones((2, 3, 1), np.float32),
    adjacency=np.ones((2, 3, 3), np.float32),
    nodes=np.array([3, 2]),
)


def spoilt(array, place, value):
    array = array.copy()
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: vector(name="a.b"), r"named 'a\.b'"),
        (lambda: replace(vector(), kind="picture"), "kind 'picture'; vector, sequence, tokens, gr"),
        (lambda: replace(vector(), kind="sequence"), r"shape \(3, 2\); \(N, T, F\) fits"),
        (
            lambda: replace(vector(), values=spoilt(vector().values, (2, 1), np.nan)),
            "modality x holds nan at row 2, feature 1; finite numbers fit",
        ),
        (
            lambda: Modality(
                "s", "sequence", spoilt(np.ones((2, 4, 3), np.float32), (1, 2, 0), -np.inf)
            ),
            "modality s holds -inf at row 1, step 2, feature 0",
        ),
        (
            lambda: replace(GRAPH, values=spoilt(GRAPH.values, (1, 0, 0), np.nan)),
            "modality g holds nan at row 1, node 0, feature 0",
        ),
        (
            lambda: replace(GRAPH, adjacency=spoilt(GRAPH.adjacency, (0, 1, 2), np.inf)),
            r"modality g\.adjacency holds inf at row 0, node 1, node 2",
        ),
        (lambda: replace(GRAPH, nodes=np.array([3, 4])), r"4 nodes at row 1; 0\.\.3 fit"),
        (lambda: replace(GRAPH, adjacency=None), "without adjacency or nodes"),
        (lambda: replace(GRAPH, nodes=np.array([3])), r"nodes \(1,\); \(2, 3, 3\) and \(2,\) fit"),
        (lambda: replace(vector(), nodes=np.array([1])), "only a graph has edges"),
        (
            lambda: Modality("t", "tokens", np.array([[0, 5]]), vocabulary=5),
            r"token 5 at row 0, step 1; 0\.\.4 fit",
        ),
        (lambda: Modality("t", "tokens", np.array([[0]])), "vocabulary of 0; 1 to 1000000 fit"),
    ],
)
def test_modalities_that_make_no_sense(make, words):
    with pytest.raises(UserError, match=words):
        make()
