"""One training: what it keeps, what it looks at, and that its seed settles it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pyseq.analysis.fusion.probabilities import nats
from pyseq.data.modalities import Standardiser
from pyseq.errors import UserError
from pyseq.models.fusion import DataShape, build_fusion_model
from pyseq.training.cyclic_cosine import CyclicCosine
from pyseq.training.fusion.fit import Prediction, train_fusion
from pyseq.training.fusion.module import FusionTraining, IndexBatches, model_logits

ROWS = np.arange(150)
TRAIN, VALIDATION, REST = ROWS[:90], ROWS[90:120], ROWS[120:]
PLAIN = Prediction(calibrated=False)


@pytest.fixture
def trained(vectors, quick):
    return train_fusion(quick, vectors, TRAIN, VALIDATION, 0)


def log_loss(probabilities: np.ndarray, label: np.ndarray) -> float:
    return float(nats(probabilities, label).mean())


def weights(trained) -> torch.Tensor:
    return torch.cat([value.flatten() for value in trained.model.state_dict().values()])


def test_it_keeps_the_epoch_with_the_lowest_validation_loss(vectors, quick, monkeypatch):
    config = replace(quick, schedule="constant", warmup_epochs=0)
    losses = iter([0.5, 0.2, 0.4, 0.2])
    monkeypatch.setattr(FusionTraining, "_validate", lambda *_: {"validation_loss": next(losses)})
    kept = train_fusion(replace(config, epochs=4), vectors, TRAIN, VALIDATION, 0)
    short = train_fusion(replace(config, epochs=2), vectors, TRAIN, None, 0)
    longer = train_fusion(replace(config, epochs=4), vectors, TRAIN, None, 0)
    assert kept.best_epoch == 2
    assert [row["epoch"] for row in kept.history] == [1, 2, 3, 4]
    assert torch.equal(weights(kept), weights(short))
    assert not torch.equal(weights(kept), weights(longer))


def test_the_validation_loss_is_that_of_the_kept_model(vectors, trained):
    found = trained.probabilities(vectors.subset(VALIDATION), PLAIN, "cpu")
    row = trained.history[trained.best_epoch - 1]
    label = vectors.label[VALIDATION]
    assert log_loss(found, label) == pytest.approx(row["validation_loss"], rel=1e-5)
    assert float((found.argmax(1) == label).mean()) == row["validation_accuracy"]


def test_without_validation_it_keeps_the_last_epoch(vectors, quick):
    trained = train_fusion(quick, vectors, TRAIN, None, 0)
    assert trained.best_epoch == quick.epochs
    assert trained.temperature == 1.0
    assert "validation_loss" not in trained.history[0]


def test_rows_that_are_not_named_have_no_influence(vectors, quick):
    trained = train_fusion(quick, vectors, TRAIN, VALIDATION, 0)
    values = [m.values.copy() for m in vectors.modalities]
    label = vectors.label.copy()
    for value in values:
        value[REST] = 1e3
    label[REST] = 0
    changed = [replace(m, values=v) for m, v in zip(vectors.modalities, values, strict=True)]
    other = replace(vectors, label=label, modalities=tuple(changed))
    again = train_fusion(quick, other, TRAIN, VALIDATION, 0)
    assert torch.equal(weights(trained), weights(again))
    assert trained.temperature == again.temperature
    assert trained.history == again.history


def test_the_standardiser_knows_training_rows_only(vectors, quick, trained):
    expected = Standardiser.fit(vectors.subset(TRAIN)).to_dict()
    assert trained.standardiser.to_dict() == expected
    assert expected != Standardiser.fit(vectors).to_dict()


def test_a_seed_settles_everything_and_the_callers_generator_stays(vectors, quick):
    config = replace(quick, mixup_alpha=(0.1, 0.4))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = train_fusion(config, vectors, TRAIN, VALIDATION, 4)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    second = train_fusion(config, vectors, TRAIN, VALIDATION, 4)
    other = train_fusion(config, vectors, TRAIN, VALIDATION, 5)
    assert torch.equal(weights(first), weights(second))
    assert not torch.allclose(weights(first), weights(other))


def test_it_learns_every_kind_of_modality(four_kinds, quick):
    config = replace(quick, epochs=8, label_smoothing=0.0, lr=5e-3)
    trained = train_fusion(config, four_kinds, ROWS[:120], ROWS[120:], 0)
    losses = [row["train_loss"] for row in trained.history]
    assert losses[-1] < 0.8 * losses[0]
    found = trained.probabilities(four_kinds, device="cpu")
    assert found.dtype == np.float64
    assert found.shape == (150, four_kinds.classes)
    np.testing.assert_allclose(found.sum(1), 1.0)


def test_the_temperature_lowers_the_validation_loss(vectors, trained):
    held = vectors.subset(VALIDATION)
    plain, fitted = trained.probabilities(held, PLAIN, "cpu"), trained.probabilities(held)
    assert trained.temperature != 1.0
    assert log_loss(fitted, held.label) < log_loss(plain, held.label)
    np.testing.assert_array_equal(plain.argmax(1), fitted.argmax(1))


def test_snapshots_are_the_ends_of_cycles_and_are_averaged(vectors, quick):
    config = replace(quick, epochs=5, warmup_epochs=1, cycle_epochs=2, snapshots=True)
    trained = train_fusion(config, vectors, TRAIN, None, 0)
    assert len(trained.snapshots) == 2  # after epochs 3 and 5
    held = vectors.subset(REST)
    each = []
    for model in trained.snapshots:
        alone = replace(trained, model=model)
        each.append(alone.probabilities(held, PLAIN, "cpu"))
    assert not np.allclose(*each)
    averaged = trained.probabilities(held, Prediction(snapshots=True, calibrated=False), "cpu")
    np.testing.assert_allclose(averaged, np.mean(each, 0))
    np.testing.assert_array_equal(each[1], trained.probabilities(held, PLAIN, "cpu"))


def test_snapshots_that_were_not_kept_are_refused(vectors, trained):
    with pytest.raises(ValueError, match="a training with snapshots fits"):
        trained.probabilities(vectors, Prediction(snapshots=True))


@pytest.mark.parametrize("using", [Prediction(tta=5), Prediction(mc_dropout=3),
                                   Prediction(tta=3, mc_dropout=2)])  # fmt: skip
def test_views_and_passes_change_predictions_and_their_seed_settles_them(vectors, trained, using):
    once = trained.probabilities(vectors, Prediction(), "cpu")
    first, second = (trained.probabilities(vectors, using, "cpu") for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - once).max() > 1e-5
    np.testing.assert_allclose(first.sum(1), 1.0)
    assert not trained.model.training


@pytest.mark.parametrize("schedule", ["cyclic", "cosine", "constant"])
def test_rates_rise_and_then_follow_the_schedule(vectors, quick, schedule):
    config = replace(
        quick, schedule=schedule, epochs=6, warmup_epochs=2, cycle_epochs=2, lr=1e-3, batch=90
    )
    rates = [row["lr"] for row in train_fusion(config, vectors, TRAIN, None, 0).history]
    low = 1e-5
    half = low + (1e-3 - low) / 2
    after = {
        "cyclic": [1e-3, half, 8e-4, low + (8e-4 - low) / 2],
        "cosine": [low + (1e-3 - low) * (1 + np.cos(np.pi * k / 4)) / 2 for k in range(4)],
        "constant": [1e-3] * 4,
    }[schedule]
    assert rates == pytest.approx([low, half, *after])  # one step per epoch


@pytest.mark.parametrize("schedule", ["cyclic", "cosine", "constant"])
@pytest.mark.parametrize("warmup_epochs", [1, 3])
def test_a_rise_may_fill_the_whole_training(vectors, quick, schedule, warmup_epochs):
    config = replace(
        quick, schedule=schedule, epochs=1, warmup_epochs=warmup_epochs, cycle_epochs=4
    )
    rate = train_fusion(config, vectors, TRAIN, None, 0).history[-1]["lr"]
    assert 0 < rate < config.lr


def test_a_training_that_diverges_is_an_error_and_no_silent_member(vectors, quick):
    config = replace(quick, lr=1e30, clip=0.0, schedule="constant", warmup_epochs=0)
    with pytest.raises(UserError, match=r"the training diverged: its loss is nan in epoch 1; a "):
        train_fusion(config, vectors, TRAIN, VALIDATION, 0)
    # One step, whose loss was still a number.
    one_step = replace(config, epochs=1, batch=90)
    trained = train_fusion(one_step, vectors, TRAIN, None, 0)
    with pytest.raises(UserError, match="of 30 of 30 objects a model predicts no numbers"):
        trained.probabilities(vectors.subset(REST), device="cpu")


def test_the_cyclic_schedule_is_cyclic_cosine_by_steps(vectors, quick, monkeypatch):
    made = []
    original = CyclicCosine.__init__

    def noted(self, *args, **kwargs):
        made.append(kwargs)
        original(self, *args, **kwargs)

    monkeypatch.setattr(CyclicCosine, "__init__", noted)
    train_fusion(quick, vectors, TRAIN, None, 0)
    assert made[0]["steps_per_epoch"] == 3  # 90 rows in batches of 32


def test_an_epoch_has_every_row_once_in_an_order_of_its_own():
    batches = IndexBatches(10, 4, 0)
    first, second = (torch.cat(list(batches)).tolist() for _ in range(2))
    assert len(batches) == 3
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_logits_of_many_rows_are_those_of_few(vectors, quick, monkeypatch):
    model = build_fusion_model(quick.model, DataShape.of(vectors), 0)
    rows = vectors.batch(ROWS, "cpu")
    whole = model_logits(model, rows)
    monkeypatch.setattr("pyseq.training.fusion.module.ROWS", 32)
    torch.testing.assert_close(model_logits(model, rows), whole)
