"""The data and models that the tests of this folder go through."""

import numpy as np
import torch

from pyseq.data.modalities import Modality, ModalityData
from pyseq.models.fusion import DataShape, FusionConfig, build_fusion_model

CLASSES = 3
SMALL = {
    "width": 16,
    "heads": 2,
    "classifier_layers": 2,
    "dropout": 0.0,
    "modality_dropout": 0.0,
    "patch": 3,
}
CONFIGS = {
    "attention": FusionConfig(**SMALL),
    "cosine": FusionConfig(**SMALL, attention="cosine"),
    "concatenation": FusionConfig(**SMALL, fusion="concatenation"),
}


def modality_data(count=6, seed=0, present=None):
    """Objects with a modality of every kind; graphs of 1 to 5 nodes."""
    draw = np.random.default_rng(seed)

    def normal(*shape):
        return draw.normal(size=(count, *shape)).astype(np.float32)

    modalities = (
        Modality("scalars", "vector", normal(5)),
        Modality("series", "sequence", normal(7, 2)),  # 7 steps, patches of 3: the last is filled
        Modality("words", "tokens", draw.integers(0, 11, size=(count, 4)), vocabulary=11),
        Modality(
            "crystal",
            "graph",
            normal(5, 3),
            adjacency=abs(normal(5, 5)),
            nodes=1 + np.arange(count) % 5,
        ),
    )
    present = np.ones((count, 4), bool) if present is None else present
    label = np.arange(count) % CLASSES
    return ModalityData("cases", modalities, label, ("a", "b", "c"), None, present)


SHAPE = DataShape.of(modality_data())


def some_missing(count=6):
    """Every modality is missing of some object, and no object misses all."""
    present = np.ones((count, 4), bool)
    present[np.arange(count), np.arange(count) % 4] = False
    present[0] = [False, False, False, True]
    return present


def build(config, seed=3, shape=SHAPE):
    """A model in evaluation mode, whose parameters all are away from 0 and 1."""
    model = build_fusion_model(config, shape, seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model
