"""Small data of every kind, and settings that train in a moment."""

import dataclasses

import numpy as np
import pytest

from pyseq.data.modalities import ModalityData, synthetic
from pyseq.models.fusion import FusionConfig
from pyseq.training.fusion.config import TrainFusionConfig

TINY = FusionConfig(
    width=16, encoder_layers=1, fusion_layers=1, heads=2, classifier_layers=1, dropout=0.1
)
QUICK = TrainFusionConfig(
    epochs=3, batch=32, lr=3e-3, warmup_epochs=1, cycle_epochs=1, folds=3, widths=(16, 8),
    device="cpu", model=TINY,
)  # fmt: skip


@pytest.fixture(scope="session")
def four_kinds() -> ModalityData:
    """A vector, a sequence, tokens and a graph of 150 objects, some of them missing."""
    return synthetic(150, seed=0, missing=0.1)


@pytest.fixture(scope="session")
def vectors(four_kinds: ModalityData) -> ModalityData:
    """The first modality as two of half its width: the quickest data to train on."""
    whole = four_kinds.modalities[0]
    half = whole.features // 2
    return ModalityData(
        name="vectors",
        modalities=(
            dataclasses.replace(whole, name="left", values=whole.values[:, :half].copy()),
            dataclasses.replace(whole, name="right", values=whole.values[:, half:].copy()),
        ),
        label=four_kinds.label,
        class_names=four_kinds.class_names,
        group=None,
        present=np.ones((len(four_kinds), 2), bool),
    )


@pytest.fixture
def quick() -> TrainFusionConfig:
    return QUICK
