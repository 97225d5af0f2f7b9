from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.svm import SVC

from pyseq.analysis.fusion import peer_models as room
from pyseq.analysis.fusion.peer_models import CLEAN, PEERS, features, peers
from pyseq.data.modalities import Modality, ModalityData


def vectors(*parts, label, group=None):
    names = [f"view {k}" for k in range(len(parts))]
    modalities = tuple(
        Modality(name, "vector", np.asarray(part, np.float32))
        for name, part in zip(names, parts, strict=True)
    )
    present = np.ones((len(label), len(parts)), bool)
    classes = tuple(f"class {k}" for k in range(int(max(label)) + 1))
    return ModalityData("made", modalities, np.asarray(label), classes, group, present)


def iris():
    found = load_iris()
    return vectors(found.data[:, :2], found.data[:, 2:], label=found.target.astype(np.int64))


def folds(data, count=3):
    split = StratifiedKFold(count, shuffle=True, random_state=0)
    return list(split.split(data.label, data.label))


@pytest.fixture(scope="module")
def few_candidates():
    """The same code with less to choose from, to keep the tests short."""
    return lambda name, seed, real=room._candidate: _fewer(*real(name, seed))


def _fewer(model, grid):
    if "max_iter" in model.get_params():
        model.set_params(max_iter=20)
    return model, {key: values[-2:] for key, values in grid.items()}


def test_every_peer_knows_irises_with_and_without_a_view(monkeypatch, few_candidates):
    monkeypatch.setattr(room, "_candidate", few_candidates)
    data = iris()
    blind = data.without("view 1")
    found = peers(data, folds(data), 0, versions={"petals missing": blind})
    assert [peer.name for peer in found] == list(PEERS)
    for peer in found:
        given = peer.probabilities[CLEAN]
        np.testing.assert_allclose(given.sum(1), 1)
        clean = (given.argmax(1) == data.label).mean()
        without = (peer.probabilities["petals missing"].argmax(1) == data.label).mean()
        assert clean > 0.9
        assert without < clean - 0.1
        assert len(peer.chosen) == 3


def test_nothing_of_a_test_fold_reaches_its_model(monkeypatch, few_candidates):
    """Labels that only say which fold an object is in cannot be learned from the other folds."""
    monkeypatch.setattr(room, "_candidate", few_candidates)
    data = iris()
    outer = folds(data)
    train, test = outer[0]
    other = data.label.copy()
    other[test] = (other[test] + 1) % 3
    poisoned = replace(data, label=other)
    first = peers(data, outer[:1], 0, names=["SVC", "LogisticRegression"])
    second = peers(poisoned, outer[:1], 0, names=["SVC", "LogisticRegression"])
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.probabilities[CLEAN], two.probabilities[CLEAN])
        assert np.isnan(one.probabilities[CLEAN][train]).all()


def test_groups_stay_together_inside_too():
    """Copies with labels by lot: who lets copies leak into inner folds finds them predictable."""
    random = np.random.default_rng(1)
    label, values = random.integers(2, size=60), random.normal(size=(60, 2))
    group = np.repeat(np.arange(60), 3)
    copies = values[group] + 0.001 * random.normal(size=(180, 2))
    data = vectors(copies, label=label[group].astype(np.int64), group=group)
    seen = []

    class Split(StratifiedGroupKFold):
        def split(self, x, y, groups):
            for train, test in super().split(x, y, groups):
                seen.append(set(groups[train]) & set(groups[test]))
                yield train, test

    outer = list(StratifiedGroupKFold(3).split(label[group], label[group], group))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sklearn.model_selection.StratifiedGroupKFold", Split)
        found = peers(data, outer, 0, names=["SVC"])[0].probabilities[CLEAN]
    assert seen == [set()] * 9
    assert 0.3 < (found.argmax(1) == data.label).mean() < 0.7


@pytest.mark.parametrize("classes", [2, 3])
def test_the_svc_names_the_class_it_would_name_anyway(classes):
    data = iris()
    data = data.subset(np.flatnonzero(data.label < classes))
    outer = folds(data)
    found = peers(data, outer[:1], 0, names=["SVC"])[0]
    train, test = outer[0]
    columns = features(data)
    mean, spread = columns[train].mean(0), columns[train].std(0)
    plain = SVC(**found.chosen[0]).fit((columns[train] - mean) / spread, data.label[train])
    named = plain.predict((columns[test] - mean) / spread)
    np.testing.assert_array_equal(found.probabilities[CLEAN][test].argmax(1), named)


def test_rows_hold_every_kind_of_modality():
    graph = Modality(
        "graph",
        "graph",
        np.array([[[1], [3], [0]], [[2], [0], [0]]], np.float32),
        adjacency=np.array([[[0, 1, 0], [1, 0, 0], [0, 0, 0]], np.zeros((3, 3))], np.float32),
        nodes=np.array([2, 1]),
    )
    tokens = Modality("tokens", "tokens", np.array([[2, 0, 2], [1, 1, 1]]), vocabulary=3)
    steps = Modality("steps", "sequence", np.arange(8, dtype=np.float32).reshape(2, 2, 2))
    present = np.array([[True, True, True], [True, True, False]])
    data = ModalityData("made", (graph, tokens, steps), np.array([0, 1]), ("a", "b"), None, present)
    rows = features(data)
    # Nodes, density, degrees from the largest, mean, deviation, least, most; counts; steps.
    np.testing.assert_allclose(rows[0], [2, 1, 1, 1, 0, 2, 1, 1, 3, 1, 0, 2, 0, 1, 2, 3])
    np.testing.assert_allclose(rows[1][:12], [1, 0, 0, 0, 0, 2, 0, 2, 2, 0, 3, 0])
    assert np.isnan(rows[1][12:]).all()


def test_nodes_in_another_order_are_the_same_graph():
    random = np.random.default_rng(2)
    values = random.normal(size=(1, 4, 2)).astype(np.float32)
    edges = (random.random((1, 4, 4)) < 0.5).astype(np.float32)
    edges = np.maximum(edges, edges.transpose(0, 2, 1))
    order = [2, 0, 3, 1]

    def row(values, edges):
        graph = Modality("graph", "graph", values, adjacency=edges, nodes=np.array([4]))
        present = np.ones((1, 1), bool)
        return features(ModalityData("one", (graph,), np.array([0]), ("a", "b"), None, present))

    other = row(values[:, order], edges[:, order][:, :, order])
    np.testing.assert_allclose(row(values, edges), other, rtol=1e-6)


def test_what_makes_no_sense_is_refused():
    data = iris()
    outer = folds(data)
    with pytest.raises(ValueError, match="forest; known are SVC"):
        peers(data, outer, 0, names=["forest"])
    with pytest.raises(ValueError, match="tested in two folds"):
        peers(data, [outer[0], outer[0]], 0)
    with pytest.raises(ValueError, match="'half' holds other objects"):
        peers(data, outer, 0, versions={"half": data.subset(np.arange(75))})
