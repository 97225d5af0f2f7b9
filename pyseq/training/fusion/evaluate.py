"""A stored ensemble on data as they come: complete, with noise, or without a modality."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from pyseq.analysis.fusion import FusionScores, scores
from pyseq.data.modalities import ModalityData, corrupted, find_data, locked_split
from pyseq.training.fusion.ensembles import combine
from pyseq.training.fusion.model_store import StoredEnsemble, load_ensemble
from pyseq.training.fusion.run import fingerprint, load_data


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
    found = load_data(config) if data in (None, config.data) else find_data(str(data))
    which = "all objects; whether it was trained on some of them is not known"
    if fingerprint(found) == stored.fingerprint:
        found = found.subset(locked_split(found, config.split_seed)[2])
        which = "the test part of the data it was trained on"
    found = corrupted(
        stored.conformed(found), noise=noise, missing=without, seed=seed,
        standardiser=stored.standardiser,
    )  # fmt: skip
    served = stored.ensemble
    each = served.member_probabilities(found, device=device)  # (members, N, C)
    whole = combine(each, [member.weight for member in served.members], served.average)
    right = (each.argmax(2) == found.label).mean(1)
    alone = [(m.name, float(share)) for m, share in zip(served.members, right, strict=True)]
    return EvaluatedFusion(
        stored,
        found,
        which,
        scores(whole, found.label, group=found.group),
        alone if len(alone) > 1 else [],
    )
