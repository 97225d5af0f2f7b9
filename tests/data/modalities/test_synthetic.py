"""The synthetic law: posteriors against brute force and against what really comes."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats
from sklearn.neighbors import KNeighborsClassifier

from pyseq.data.modalities import ModalityData, SyntheticLaw, folds, synthetic
from pyseq.data.modalities.modality import Modality
from pyseq.errors import UserError

NAMES = ("scalars", "sequence", "tokens", "graph")
SUBSETS = [names for size in range(1, 5) for names in combinations(NAMES, size)]


@pytest.fixture(scope="module")
def many():
    return synthetic(20_000, seed=5)


def only(data, names):
    return data.without([name for name in data.names if name not in names])


def brute_force(data: ModalityData, row: int, names, noise: float) -> np.ndarray:
    """Posterior from the docstring of SyntheticLaw, one density after the other."""
    joint = np.zeros(4)
    normal = stats.norm(scale=noise)
    for y, sign in product(range(4), (1, -1)):
        a, b = (1, 1, -1, -1)[y], (1, -1, 1, -1)[y]
        density = 1.0
        if "scalars" in names:
            mean = [1.1 * a / 2] * 4 + [1.5 * sign / 2] * 4
            density *= np.prod(normal.pdf(data["scalars"].values[row] - mean))
        if "tokens" in names:
            law = (0.38, 0.24, 0.16, 0.11, 0.07, 0.04)
            for token in data["tokens"].values[row]:
                density *= law[token] if sign * b == 1 else law[5 - token]
        if "sequence" in names:
            for t in range(8):
                angle = 2 * np.pi * (y + 1) * t / 8
                for channel, wave in enumerate((np.cos(angle), np.sin(angle))):
                    value = data["sequence"].values[row, t, channel]
                    density *= normal.pdf(value - 1.4 / 8**0.5 * wave)
        if "graph" in names:
            graph = data["graph"]
            for i in range(graph.nodes[row]):
                for j in range(i):
                    chance = (0.35, 0.45, 0.55, 0.65)[y]
                    density *= chance if graph.adjacency[row, i, j] else 1 - chance
        joint[y] += density
    return joint / joint.sum()


@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
def test_posteriors_are_those_of_brute_force(names):
    data = only(synthetic(5, seed=2, noise=1.3), names)
    posteriors = SyntheticLaw(noise=1.3).posteriors(data)
    for row in range(5):
        expected = brute_force(data, row, names, 1.3)
        np.testing.assert_allclose(posteriors[row], expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
def test_labels_come_as_often_as_posteriors_say(many, names):
    """What is drawn follows the law that the posteriors are of."""
    data = only(many, names)
    assert_calibrated(SyntheticLaw().posteriors(data), data.label)


def assert_calibrated(posteriors, label):
    best = posteriors.max(1)
    right = posteriors.argmax(1) == label
    for low, high in ((0, 1), (0.2, 0.5), (0.5, 0.8), (0.8, 0.95), (0.95, 1)):
        here = (best > low) & (best <= high)
        # the sum of independent coins with probabilities `best`, as normal; 4.5 deviations
        deviation = np.sqrt((best * (1 - best))[here].sum())
        assert abs((right.astype(float) - best)[here].sum()) <= 4.5 * deviation + 1e-9
    for y in range(posteriors.shape[1]):
        p = posteriors[:, y]
        assert abs(((label == y) - p).sum()) <= 4.5 * np.sqrt((p * (1 - p)).sum())


def test_bayes_accuracy_is_near_nine_tenths_and_is_what_the_best_classifier_gets(many):
    assert 0.9 < many.bayes_accuracy < 0.93
    frequency = (many.bayes_posteriors.argmax(1) == many.label).mean()
    assert frequency == pytest.approx(many.bayes_accuracy, abs=4.5 * np.sqrt(0.08 / len(many)))


def test_fusion_matters(many):
    """Tokens alone are worth nothing, and with scalars much; each modality adds something."""
    law = SyntheticLaw()
    accuracy = {names: law.scored(only(many, names))[0] for names in SUBSETS}
    assert accuracy["tokens",] == pytest.approx(0.25, abs=1e-9)
    assert accuracy["scalars", "tokens"] > accuracy["scalars",] + 0.25
    for three in combinations(NAMES, 3):
        assert accuracy[three] < many.bayes_accuracy - 0.02


@pytest.mark.parametrize("settings", [{"missing": 0.3}, {"label_noise": 0.2}, {"noise": 0.5}])
def test_settings_keep_the_posteriors_true(settings):
    data = synthetic(8000, seed=3, **settings)
    assert_calibrated(data.bayes_posteriors, data.label)
    assert data.bayes_accuracy == data.bayes_posteriors.max(1).mean()


def test_missing_modalities_are_zero_and_one_is_always_left():
    data = synthetic(4000, seed=1, missing=0.5)
    assert data.present.any(1).all()
    # of 4 with probability 1/2 each, given that not all are lost: 1/2 * (1 - 1/8) / (1 - 1/16)
    assert (~data.present).mean() == pytest.approx(0.5 * (7 / 8) / (15 / 16), abs=0.02)
    for modality, present in zip(data.modalities, data.present.T, strict=True):
        assert not modality.values[~present].any()
        assert modality.values[present].any()
    assert not data["graph"].nodes[~data.present[:, 3]].any()


def test_every_copy_follows_the_law_by_itself():
    data = synthetic(20_000, seed=4, duplicates=3)
    for copy in range(4):
        rows = np.arange(copy, 20_000, 4)
        assert_calibrated(data.bayes_posteriors[rows], data.label[rows])


def test_copies_are_near_and_share_label_and_group():
    data = synthetic(1000, seed=4, duplicates=1, label_noise=0.3)
    np.testing.assert_array_equal(data.group, np.arange(1000) // 2)
    np.testing.assert_array_equal(data.label[::2], data.label[1::2])
    scalars = data["scalars"].values
    near = np.linalg.norm(scalars[::2] - scalars[1::2], axis=1)
    far = np.linalg.norm(scalars[::2] - np.roll(scalars[1::2], 1, axis=0), axis=1)
    assert near.max() < far.min() + 1
    assert near.mean() < far.mean() / 5
    assert (near > 0).all()


def test_copies_look_better_under_a_random_split_than_under_a_grouped_one():
    """One nearest neighbour: it memorises, so copies in the training part give it the answer."""
    data = synthetic(2000, seed=6, duplicates=3, label_noise=0.1)
    features = np.concatenate(
        [data["scalars"].values, data["sequence"].values.reshape(len(data), -1)], axis=1
    )

    def accuracy(grouped):
        right = 0
        for training, test in folds(data, 5, 0, grouped=grouped):
            nearest = KNeighborsClassifier(1).fit(features[training], data.label[training])
            right += (nearest.predict(features[test]) == data.label[test]).sum()
        return right / len(data)

    leaking, honest = accuracy(grouped=False), accuracy(grouped=True)
    # above what is possible on new objects, which shows that it is a leak
    assert leaking > data.bayes_accuracy + 0.1
    assert honest < data.bayes_accuracy - 0.1


def test_the_same_seed_gives_the_same_objects():
    first, again, other = synthetic(50, seed=1), synthetic(50, seed=1), synthetic(50, seed=2)
    np.testing.assert_array_equal(first["sequence"].values, again["sequence"].values)
    np.testing.assert_array_equal(first.label, again.label)
    assert (first["sequence"].values != other["sequence"].values).any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"count": 0}, "count 0"),
        ({"duplicates": -1}, "duplicates -1"),
        ({"missing": 1.0}, r"missing is 1\.0; 0 up to \.9 fits"),
        ({"noise": 0.0}, r"noise is 0\.0; a positive number fits"),
        ({"label_noise": 0.8}, r"label_noise is 0\.8"),
    ],
)
def test_arguments_out_of_range(settings, words):
    with pytest.raises(UserError, match=words):
        synthetic(**settings)


def test_graphs_are_undirected_without_loops_and_padded():
    graph = synthetic(300, seed=0)["graph"]
    assert isinstance(graph, Modality)
    np.testing.assert_array_equal(graph.adjacency, graph.adjacency.transpose(0, 2, 1))
    assert not np.diagonal(graph.adjacency, axis1=1, axis2=2).any()
    assert set(np.unique(graph.nodes)) == {5, 6, 7, 8}
    for row in (0, 1, 2):
        assert not graph.values[row, graph.nodes[row] :].any()
        assert not graph.adjacency[row, graph.nodes[row] :].any()
