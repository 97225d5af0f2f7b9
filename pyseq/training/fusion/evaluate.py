"""A stored ensemble on data as they come: complete, with noise, or without a modality."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pyseq.analysis.fusion import FusionScores, scores
from pyseq.data.modalities import ModalityData, corrupted, find_data
from pyseq.training.fusion.model_store import StoredEnsemble, load_ensemble
from pyseq.training.fusion.run import fingerprint, load_split


@dataclass(frozen=True)
class EvaluatedFusion:
    """What an evaluation found.

    Attributes:
        stored (StoredEnsemble): the model.
        data (ModalityData): the objects that were scored, after what was done to them.
        which (str): which objects these are, for a sentence.
        scores (FusionScores): of the whole.
        members (list of (str, float)): name and accuracy of each member alone; empty of one.
    """

    stored: StoredEnsemble
    data: ModalityData
    which: str
    scores: FusionScores
    members: list[tuple[str, float]]


def evaluate_fusion(
    path: str | os.PathLike[str],
    *,
    data: str | None = None,
    without: Sequence[str] = (),
    noise: float = 0.0,
    seed: int = 0,
    device: str = "auto",
) -> EvaluatedFusion:
    """Score a stored ensemble.

    Of the data that it was trained on only the test part is scored: they are known again by their
    values, whatever they are called.

    Args:
        path (path): a file that `pyseq fusion train` wrote.
        data (str | None): a data set or an .npz; None: those of the training.
        without (sequence of str): modalities that are hidden.
        noise (float): added to every feature, in training deviations.
        seed (int): of the noise.
        device (str): auto, cpu, cuda, or cuda:N.

    Returns:
        EvaluatedFusion: scores with their intervals.

    Raises:
        UserError: the file or the data have a fault, or do not fit each other.
    """
    stored = load_ensemble(path)
    config = stored.config
    if data in (None, config.data):
        split = load_split(config)
        found, test = split.data, split.test
    else:
        found, test = find_data(str(data)), np.arange(0)
    if fingerprint(found) == stored.fingerprint:
        test = test if len(test) else load_split(replace(config, data=str(data))).test
        found, which = found.subset(test), "the test part of the data it was trained on"
    else:
        which = "all objects, none of which it was split from"
    found = corrupted(
        stored.conformed(found), noise=noise, missing=without, seed=seed,
        standardiser=stored.standardiser,
    )  # fmt: skip
    probabilities = stored.ensemble.probabilities(found, device=device)
    alone: list[tuple[str, float]] = []
    if len(stored.ensemble.members) > 1:
        each = stored.ensemble.member_probabilities(found, device=device)
        right = (each.argmax(2) == found.label).mean(1)
        names = [member.name for member in stored.ensemble.members]
        alone = [(name, float(share)) for name, share in zip(names, right, strict=True)]
    return EvaluatedFusion(
        stored, found, which, scores(probabilities, found.label, group=found.group), alone
    )
