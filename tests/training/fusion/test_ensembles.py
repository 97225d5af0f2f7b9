"""K-fold, ensemble, super-ensemble: who learned from what, and how they are averaged."""

from dataclasses import replace

import numpy as np
import pytest

from pyseq.training.fusion import ensembles
from pyseq.training.fusion.config import MOST_FOLDS, MOST_SEED
from pyseq.training.fusion.ensembles import (
    FOLD,
    FULL,
    MEMBER,
    FusionEnsemble,
    HeldOut,
    combine,
    ensemble,
    k_fold,
    own_seed,
    super_ensemble,
    super_weights,
)
from pyseq.training.fusion.fit import Prediction, train_fusion


def test_no_two_trainings_of_any_runs_share_a_seed():
    kinds = [(kind, number) for kind in (FOLD, MEMBER, FULL) for number in range(MOST_FOLDS + 1)]
    seeds = {own_seed(seed, *each) for seed in (0, 1, 2, MOST_SEED) for each in kinds}
    assert len(seeds) == 4 * len(kinds)
    assert max(seeds) < 2**32


@pytest.fixture
def seen(monkeypatch):
    """Rows of every training, as (train, validation, seed, width)."""
    calls = []

    def noted(config, data, train, validation, seed):
        calls.append((train, validation, seed, config.model.width))
        return train_fusion(config, data, train, validation, seed)

    monkeypatch.setattr(ensembles, "train_fusion", noted)
    return calls


@pytest.fixture(scope="module")
def both(vectors):
    """A small super-ensemble with fitted weights, and what it told."""
    from tests.training.fusion.conftest import QUICK

    told = []
    return super_ensemble(replace(QUICK, weights="fitted"), vectors, 0, told.append), told


def test_every_object_is_predicted_by_the_one_model_that_did_not_learn_it(vectors, quick, seen):
    held = k_fold(quick, vectors, 3, 0)
    known = ~np.isnan(held.probabilities[:, :, 0])  # (3, N)
    assert (known.sum(0) == 1).all()
    for model, (train, validation, _, _) in zip(known, seen, strict=True):
        assert validation is None
        assert not model[train].any()
        assert model.sum() + len(train) == len(vectors)
    members = held.ensemble.members
    assert len(members) == len({seed for _, _, seed, _ in seen}) == 3
    assert {member.weight for member in members} == {1 / 3}
    assert len({member.trained.temperature for member in members}) == 1
    right = held.out_of_fold.argmax(1) == vectors.label
    weights = known.sum(1) / len(vectors)
    assert np.dot(held.accuracies, weights) == pytest.approx(right.mean())


def test_groups_are_never_parted(vectors, quick, seen):
    grouped = replace(vectors, group=np.arange(len(vectors)) // 5)
    k_fold(quick, grouped, 3, 0)
    ensemble(quick, grouped, (16, 8), 0)
    for train, validation, _, _ in seen:
        out = np.setdiff1d(np.arange(len(vectors)), train)
        assert not set(grouped.group[train]) & set(grouped.group[out])
        assert validation is None or set(validation) == set(out)


def test_members_differ_in_width_seed_and_split(vectors, quick, seen):
    held = ensemble(quick, vectors, (16, 8, 16), 0)
    assert [width for _, _, _, width in seen] == [16, 8, 16]
    assert len({seed for _, _, seed, _ in seen}) == 3
    assert not np.array_equal(seen[0][1], seen[2][1])
    predictions = held.ensemble.member_probabilities(vectors, device="cpu")
    assert not np.allclose(predictions[0], predictions[2])


def test_all_is_averaged_by_weight_in_eval_mode(vectors, both):
    held, told = both
    members = held.ensemble.members
    assert [m.name.split()[0] for m in members] == ["fold"] * 3 + ["width"] * 2 + ["all"]
    weights = [m.weight for m in members]
    assert sum(weights) == pytest.approx(1.0)
    assert weights[-1] == pytest.approx(1 / 6)
    each = held.ensemble.member_probabilities(vectors, device="cpu")
    found = held.ensemble.probabilities(vectors, device="cpu")
    np.testing.assert_allclose(found, np.tensordot(weights, each, 1))
    np.testing.assert_array_equal(found, held.ensemble.probabilities(vectors, device="cpu"))
    assert not any(m.trained.model.training for m in members)
    assert len(told) == 6


def test_the_full_data_model_has_no_held_out_predictions(both):
    held, _ = both
    assert np.isnan(held.probabilities[-1]).all()
    assert np.isnan(held.accuracies[-1])
    full, fold = held.ensemble.members[-1].trained, held.ensemble.members[0].trained
    assert full.temperature == fold.temperature


def test_equal_weights_are_the_default(vectors, quick):
    held = super_ensemble(replace(quick, epochs=1, warmup_epochs=0), vectors, 0)
    assert {member.weight for member in held.ensemble.members} == {1 / 6}


def part(both, start: int, end: int) -> HeldOut:
    held, _ = both
    return HeldOut(
        FusionEnsemble(held.ensemble.members[start:end]), held.probabilities[start:end], held.label
    )


def test_fitted_weights_do_not_read_what_a_model_says_of_its_training_objects(both):
    folds, others = part(both, 0, 3), part(both, 3, 5)
    weights = super_weights(folds, others)
    assert weights == pytest.approx([m.weight for m in both[0].ensemble.members])
    # What is held out decides: a member that knows its held-out objects by heart gets the weight.
    truth = np.eye(folds.probabilities.shape[2])[folds.label] * 0.98 + 0.02 / 3
    knowing = others.probabilities.copy()
    known = ~np.isnan(knowing[1, :, 0])
    knowing[1, known] = truth[known]
    trained = replace(others.ensemble.members[1].trained, temperature=1.0)
    members = (others.ensemble.members[0], replace(others.ensemble.members[1], trained=trained))
    better = super_weights(folds, HeldOut(FusionEnsemble(members), knowing, others.label))
    assert better[4] > max(better[:4]) > 0
    assert better[4] > weights[4]


def test_probabilities_and_logits_are_averaged_as_said():
    p = np.array([[[0.9, 0.1]], [[0.2, 0.8]]])
    assert combine(p, [3, 1], "probabilities")[0, 0] == pytest.approx(0.725)
    odds = (0.9 / 0.1) ** 0.75 * (0.2 / 0.8) ** 0.25
    assert combine(p, [3, 1], "logits")[0, 0] == pytest.approx(odds / (1 + odds))


def test_a_way_to_predict_reaches_every_member(vectors, both):
    held, _ = both
    views = held.ensemble.member_probabilities(vectors, Prediction(tta=5), "cpu")
    plain = held.ensemble.member_probabilities(vectors, Prediction(), "cpu")
    assert (np.abs(views - plain).max((1, 2)) > 1e-5).all()
