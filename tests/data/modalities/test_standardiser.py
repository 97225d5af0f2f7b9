"""Standardising by the training rows only, and corruption in its units."""

import json

import numpy as np
import pytest

from pyseq.data.modalities import Standardiser, breast_cancer, corrupted, digits, synthetic
from pyseq.errors import UserError


@pytest.fixture(scope="module")
def data():
    return synthetic(400, seed=0, missing=0.3)


def test_training_rows_get_mean_0_and_deviation_1(data):
    done = Standardiser.fit(data).apply(data)
    scalars = done["scalars"].values[data.present[:, 0]]
    np.testing.assert_allclose(scalars.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scalars.std(0), 1, atol=1e-6)
    steps = done["sequence"].values[data.present[:, 1]].reshape(-1, 2)
    np.testing.assert_allclose(steps.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(steps.std(0), 1, atol=1e-6)
    graph = done["graph"]
    nodes = np.concatenate([v[:n] for v, n in zip(graph.values, graph.nodes, strict=True)])
    np.testing.assert_allclose(nodes.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(nodes.std(0), 1, atol=1e-6)


def test_only_training_rows_count():
    data = breast_cancer()
    training = np.arange(300)
    changed = breast_cancer()
    for modality in changed.modalities:
        modality.values[300:] *= 100
    before = Standardiser.fit(data.subset(training))
    after = Standardiser.fit(changed.subset(training))
    done = before.apply(data)
    for name in data.names:
        np.testing.assert_array_equal(before.mean[name], after.mean[name])
        np.testing.assert_array_equal(before.deviation[name], after.deviation[name])
        raw = data[name].values.astype(np.float64)
        expected = (raw - raw[:300].mean(0)) / raw[:300].std(0)
        np.testing.assert_allclose(done[name].values, expected, rtol=1e-4, atol=1e-5)


def test_missing_views_padding_tokens_and_edges_stay(data):
    done = Standardiser.fit(data).apply(data)
    for modality, present in zip(done.modalities, done.present.T, strict=True):
        assert not modality.values[~present].any()
    graph = done["graph"]
    assert all(not v[n:].any() for v, n in zip(graph.values, graph.nodes, strict=True))
    np.testing.assert_array_equal(done["tokens"].values, data["tokens"].values)
    np.testing.assert_array_equal(graph.adjacency, data["graph"].adjacency)
    assert done.bayes_accuracy == data.bayes_accuracy


def test_a_feature_that_does_not_vary_becomes_0():
    data = digits()
    assert (data["pixels"].values[:, 0] == 0).all()
    shifted = data["pixels"].values
    shifted[:, 0] = 0.1  # in float32 not the mean of itself in float64 sums
    done = Standardiser.fit(data).apply(data)["pixels"].values
    assert np.abs(done[:, 0]).max() < 1e-6
    assert np.isfinite(done).all()


def test_a_modality_that_is_never_there_gets_0_and_1(data):
    standardiser = Standardiser.fit(data.without("scalars"))
    np.testing.assert_array_equal(standardiser.mean["scalars"], 0)
    np.testing.assert_array_equal(standardiser.deviation["scalars"], 1)


def test_it_survives_json(data):
    standardiser = Standardiser.fit(data)
    again = Standardiser.from_dict(json.loads(json.dumps(standardiser.to_dict())))
    for one, other in zip(
        standardiser.apply(data).modalities, again.apply(data).modalities, strict=True
    ):
        np.testing.assert_array_equal(one.values, other.values)


def test_data_of_another_kind_are_refused(data):
    standardiser = Standardiser.fit(data)
    with pytest.raises(UserError, match="modality pixels was not there in training; scalars, seq"):
        standardiser.apply(digits())
    standardiser.mean["scalars"] = np.zeros(3)
    with pytest.raises(UserError, match="scalars has 8 features; in training it had 3"):
        standardiser.apply(data)


def test_noise_is_in_units_of_the_training_deviation(data):
    standardiser = Standardiser.fit(data)
    ready = standardiser.apply(data)
    noisy = corrupted(ready, noise=0.5, seed=1)
    for name in ("scalars", "sequence"):
        here = data.present[:, data.position(name)]
        change = (noisy[name].values - ready[name].values)[here]
        assert change.std() == pytest.approx(0.5, rel=0.06)
        assert not noisy[name].values[~here].any()
    np.testing.assert_array_equal(noisy["tokens"].values, ready["tokens"].values)
    graph = noisy["graph"]
    assert all(not v[n:].any() for v, n in zip(graph.values, graph.nodes, strict=True))
    assert noisy.bayes_accuracy is None
    assert noisy.bayes_posteriors is None


def test_raw_data_with_their_standardiser_get_the_same_noise(data):
    standardiser = Standardiser.fit(data)
    raw = standardiser.apply(corrupted(data, noise=0.5, seed=1, standardiser=standardiser))
    ready = corrupted(standardiser.apply(data), noise=0.5, seed=1)
    for one, other in zip(raw.modalities, ready.modalities, strict=True):
        np.testing.assert_allclose(one.values, other.values, atol=1e-5)


def test_missing_views_leave_the_noise_of_others_alone(data):
    both = corrupted(data, noise=0.5, missing=["scalars"], seed=1)
    noisy = corrupted(data, noise=0.5, seed=1)
    assert not both.present[:, 0].any()
    assert not both["scalars"].values.any()
    np.testing.assert_array_equal(both["sequence"].values, noisy["sequence"].values)
    other = corrupted(data, noise=0.5, seed=2)
    assert (other["sequence"].values != noisy["sequence"].values).any()


def test_nothing_done_is_the_data_themselves(data):
    assert corrupted(data) is data


def test_corruption_errors(data):
    with pytest.raises(UserError, match="no modality 'colour'; it has scalars, sequence, tokens"):
        corrupted(data, missing=["colour"])
    with pytest.raises(UserError, match=r"noise is -0\.1"):
        corrupted(data, noise=-0.1)
    with pytest.raises(UserError, match="the seed of the noise is -1; 0 or more fits"):
        corrupted(data, noise=0.1, seed=-1)
