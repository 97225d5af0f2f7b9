"""A run: what the test part may influence, and what a model's file brings back."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest

from pyseq.data.modalities import Standardiser, locked_split
from pyseq.errors import UserError
from pyseq.training.fusion.config import TrainFusionConfig
from pyseq.training.fusion.fit import Prediction
from pyseq.training.fusion.model_store import StoredEnsemble, load_ensemble, save_ensemble
from pyseq.training.fusion.run import SplitData, fingerprint, predicted_parts, train_strategy


@pytest.fixture(scope="module")
def split(vectors):
    return SplitData(vectors, *locked_split(vectors, 0))


@pytest.fixture
def stored(vectors, quick, split):
    config = replace(quick, snapshots=True, tta=2, strategy="ensemble")
    held = train_strategy(config, split)
    return StoredEnsemble(
        held.ensemble, config, vectors.class_names, fingerprint(vectors),
        Standardiser.fit(split.development),
    )  # fmt: skip


def test_the_test_part_influences_no_model_weight_or_temperature(vectors, quick, split):
    config = replace(
        quick, strategy="super_ensemble", weights="fitted", epochs=2, widths=(16,), folds=2
    )
    modalities = []
    for modality in vectors.modalities:
        values = modality.values.copy()
        values[split.test] += 100
        modalities.append(replace(modality, values=values))
    label = vectors.label.copy()
    label[split.test] = label[split.test][::-1]
    other = replace(vectors, modalities=tuple(modalities), label=label)
    first = train_strategy(config, split).ensemble
    second = train_strategy(config, replace(split, data=other)).ensemble
    for one, two in zip(first.members, second.members, strict=True):
        assert one.weight == two.weight
        assert one.trained.temperature == two.trained.temperature
    here = first.member_probabilities(vectors, device="cpu")
    np.testing.assert_array_equal(here, second.member_probabilities(vectors, device="cpu"))


def test_every_object_is_for_training_validation_or_test(vectors, split):
    rows = np.concatenate([split.train, split.validation, split.test])
    assert sorted(rows) == list(range(len(vectors)))
    assert len(split.development) + len(split.tested) == len(vectors)


def test_the_parts_of_a_super_ensemble_are_averages_of_its_members(vectors, quick, split):
    config = replace(quick, strategy="super_ensemble", epochs=1, warmup_epochs=0, folds=2)
    served = train_strategy(config, split).ensemble
    found = predicted_parts(config, served, split.tested)
    each = served.member_probabilities(split.tested, device="cpu")
    assert list(found) == ["super-ensemble", "k-fold", "ensemble", "full-data model"]
    np.testing.assert_allclose(found["super-ensemble"], each.mean(0))
    np.testing.assert_allclose(found["k-fold"], each[:2].mean(0))
    np.testing.assert_allclose(found["ensemble"], each[2:4].mean(0))
    np.testing.assert_allclose(found["full-data model"], each[4])


def test_a_file_predicts_what_was_trained(vectors, stored, tmp_path):
    save_ensemble(tmp_path / "model.safetensors", stored)
    again = load_ensemble(tmp_path / "model.safetensors")
    assert again.config == stored.config
    assert again.fingerprint == stored.fingerprint
    before = stored.ensemble.probabilities(vectors, device="cpu")
    np.testing.assert_array_equal(before, again.ensemble.probabilities(vectors, device="cpu"))
    plain = Prediction(snapshots=True)
    assert not np.array_equal(before, again.ensemble.probabilities(vectors, plain, "cpu"))


def test_modalities_in_another_order_are_put_in_order(vectors, stored):
    turned = replace(
        vectors, modalities=vectors.modalities[::-1], present=vectors.present[:, ::-1].copy()
    ).without("left")
    back = stored.conformed(turned)
    assert back.names == vectors.names
    np.testing.assert_array_equal(back.present, vectors.without("left").present)
    np.testing.assert_array_equal(
        stored.ensemble.probabilities(back, device="cpu"),
        stored.ensemble.probabilities(vectors.without("left"), device="cpu"),
    )


def test_data_that_do_not_fit_a_model_are_refused(vectors, stored):
    renamed = dataclasses.replace(vectors.modalities[0], name="middle")
    with pytest.raises(UserError, match="has modality middle, which the model does not know"):
        stored.conformed(replace(vectors, modalities=(renamed, vectors.modalities[1])))
    alone = replace(
        vectors, modalities=vectors.modalities[:1], present=vectors.present[:, :1].copy()
    )
    with pytest.raises(UserError, match="has no modality right"):
        stored.conformed(alone)
    narrow = replace(vectors.modalities[1], values=vectors.modalities[1].values[:, :1].copy())
    with pytest.raises(UserError, match="modality right is a vector of 1 features"):
        stored.conformed(replace(vectors, modalities=(vectors.modalities[0], narrow)))
    names = tuple("abcdefgh")[: vectors.classes]
    with pytest.raises(UserError, match="has classes a, b"):
        stored.conformed(replace(vectors, class_names=names))


def test_data_with_some_of_the_classes_get_the_models_numbers(vectors, stored):
    rows = np.flatnonzero(vectors.label >= 2)
    some = vectors.subset(rows)
    few = replace(
        some, label=3 - some.label, class_names=(vectors.class_names[3], vectors.class_names[2]),
        bayes_accuracy=None, bayes_posteriors=None,
    )  # fmt: skip
    back = stored.conformed(few)
    assert back.class_names == vectors.class_names
    np.testing.assert_array_equal(back.label, vectors.label[rows])


def test_data_with_some_of_the_tokens_are_scored(four_kinds, quick):
    config = replace(quick, epochs=1)
    held = train_strategy(config, SplitData(four_kinds, *locked_split(four_kinds, 0)))
    standardiser = Standardiser.fit(four_kinds)
    stored = StoredEnsemble(held.ensemble, config, four_kinds.class_names, "", standardiser)
    # Of a file, whose vocabulary is its largest token + 1.
    tokens = four_kinds["tokens"]
    rows = np.flatnonzero(tokens.values.max(1) < tokens.vocabulary - 1)
    few = four_kinds.subset(rows)
    place = few.position("tokens")
    modalities = list(few.modalities)
    modalities[place] = replace(modalities[place], vocabulary=tokens.vocabulary - 1)
    few = replace(few, modalities=tuple(modalities))
    found = stored.ensemble.probabilities(stored.conformed(few), device="cpu")
    whole = stored.ensemble.probabilities(four_kinds, device="cpu")
    np.testing.assert_allclose(found, whole[rows], atol=1e-6)
    more = replace(tokens, vocabulary=tokens.vocabulary + 1)
    modalities = [more if m is tokens else m for m in four_kinds.modalities]
    with pytest.raises(UserError, match="vocabulary 7; in training it was a tokens of 0, 8 and 6"):
        stored.conformed(replace(four_kinds, modalities=tuple(modalities)))


def test_a_fingerprint_is_of_the_values(vectors):
    changed = vectors.modalities[0].values.copy()
    changed[5, 0] += 1
    first = replace(vectors.modalities[0], values=changed)
    other = replace(vectors, modalities=(first, vectors.modalities[1]))
    assert fingerprint(vectors) == fingerprint(replace(vectors, name="another"))
    assert fingerprint(vectors) != fingerprint(other)


def test_a_fingerprint_is_the_same_for_modalities_in_another_order(four_kinds):
    assert not four_kinds.present.all()
    turned = replace(
        four_kinds,
        modalities=four_kinds.modalities[::-1],
        present=four_kinds.present[:, ::-1].copy(),
    )
    assert fingerprint(turned) == fingerprint(four_kinds)
    hidden = replace(turned, present=four_kinds.present)
    assert fingerprint(hidden) != fingerprint(four_kinds)


def test_settings_survive_yaml(quick):
    import yaml

    config = replace(quick, mixup_alpha=(0.1, 0.4), widths=(16, 8))
    assert TrainFusionConfig.from_dict(yaml.safe_load(config.to_yaml())) == config
