"""A trained ensemble as one file, with all that it needs to predict."""

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyseq.data.modalities import ModalityData, Standardiser
from pyseq.errors import UserError
from pyseq.models.fusion import FusionModel, load_fusion, save_fusion
from pyseq.training.fusion.config import TrainFusionConfig
from pyseq.training.fusion.ensembles import FusionEnsemble, Member
from pyseq.training.fusion.fit import Prediction, TrainedFusion


@dataclass(frozen=True)
class StoredEnsemble:
    """What a model file holds.

    Attributes:
        ensemble (FusionEnsemble): what predicts.
        config (TrainFusionConfig): its training's.
        class_names (tuple of str): of the classes.
        fingerprint (str): of the data that it was split from, test part included.
        standardiser (Standardiser): of all objects that were not of the test, the unit of noise.
    """

    ensemble: FusionEnsemble
    config: TrainFusionConfig
    class_names: tuple[str, ...]
    fingerprint: str
    standardiser: Standardiser

    def conformed(self, data: ModalityData) -> ModalityData:
        """Data with its modalities and classes in the order of the models.

        Args:
            data (ModalityData): of any name; of its classes and tokens there may be fewer than in
                training, as few objects need not have all of them.

        Returns:
            ModalityData: the same objects.

        Raises:
            UserError: a modality that the models do not know, one that is not there, another form
                of it, or a class that they do not know.
        """
        shape = self.ensemble.members[0].trained.model.shape
        for name in data.names:
            if name not in shape.names:
                raise UserError(
                    f"data {data.name} has modality {name}, which the model does not know; it was"
                    f" trained on {', '.join(shape.names)}"
                )
        for known in shape.modalities:
            if known.name not in data.names:
                raise UserError(
                    f"data {data.name} has no modality {known.name}; the model was trained on"
                    f" {', '.join(shape.names)}"
                )
            given = data[known.name]
            length = given.values.shape[1] if given.kind in ("sequence", "tokens") else 0
            found = (given.kind, given.features, length, given.vocabulary)
            wanted = (known.kind, known.features, known.length, known.vocabulary)
            if found[:3] != wanted[:3] or given.vocabulary > known.vocabulary:
                raise UserError(
                    f"modality {known.name} is a {found[0]} of {found[1]} features, length"
                    f" {found[2]} and vocabulary {found[3]}; in training it was a {wanted[0]} of"
                    f" {wanted[1]}, {wanted[2]} and {wanted[3]}"
                )
        if not set(data.class_names) <= set(self.class_names):
            raise UserError(
                f"data {data.name} has classes {', '.join(data.class_names)}; the model tells"
                f" {', '.join(self.class_names)} apart"
            )
        places = [data.names.index(name) for name in shape.names]
        modalities = tuple(
            dataclasses.replace(data.modalities[place], vocabulary=known.vocabulary)
            for place, known in zip(places, shape.modalities, strict=True)
        )
        numbers = np.array([self.class_names.index(name) for name in data.class_names], np.int64)
        same = data.class_names == self.class_names
        return dataclasses.replace(
            data,
            modalities=modalities,
            present=data.present[:, places],
            label=numbers[data.label],
            class_names=self.class_names,
            # Their columns are of the data's own classes.
            bayes_posteriors=data.bayes_posteriors if same else None,
        )


def save_ensemble(path: str | os.PathLike[str], stored: StoredEnsemble) -> None:
    """Write an ensemble's file: of each member the models that it predicts by.

    Args:
        path (path): of the file; its folder must exist.
        stored (StoredEnsemble): what it holds.

    Raises:
        UserError: the file cannot be written.
    """
    models: list[FusionModel] = []
    members: list[dict[str, Any]] = []
    for member in stored.ensemble.members:
        trained = member.trained
        served = trained.snapshots if trained.using.snapshots else (trained.model,)
        members.append(
            {
                "name": member.name,
                "weight": member.weight,
                "models": len(served),
                "standardiser": trained.standardiser.to_dict(),
                "temperature": trained.temperature,
                "history": list(trained.history),
                "best_epoch": trained.best_epoch,
                "using": dataclasses.asdict(trained.using),
                "seed": trained.seed,
            }
        )
        models += served
    metadata = {
        "members": members,
        "average": stored.ensemble.average,
        "config": stored.config.to_dict(),
        "class_names": list(stored.class_names),
        "fingerprint": stored.fingerprint,
        "standardiser": stored.standardiser.to_dict(),
    }
    save_fusion(path, models, metadata)


def load_ensemble(path: str | os.PathLike[str]) -> StoredEnsemble:
    """Read an ensemble's file; nothing in it is executed.

    Args:
        path (path): of the file.

    Returns:
        StoredEnsemble: on the CPU, in eval mode.

    Raises:
        UserError: the file is missing, or none that `save_ensemble` wrote.
    """
    models, metadata = load_fusion(path)
    try:
        return _stored(models, metadata)
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"{path} holds models without what `pyseq fusion train` writes with them: {error!r}"
        ) from error


def _stored(models: list[FusionModel], metadata: dict[str, Any]) -> StoredEnsemble:
    members, start = [], 0
    for kept in metadata["members"]:
        own = models[start : start + kept["models"]]
        start += kept["models"]
        using = Prediction(**kept["using"])
        trained = TrainedFusion(
            model=own[-1],
            snapshots=tuple(own) if using.snapshots else (),
            standardiser=Standardiser.from_dict(kept["standardiser"]),
            temperature=kept["temperature"],
            history=tuple(kept["history"]),
            best_epoch=kept["best_epoch"],
            using=using,
            seed=kept["seed"],
        )
        members.append(Member(kept["name"], trained, kept["weight"]))
    return StoredEnsemble(
        ensemble=FusionEnsemble(tuple(members), metadata["average"]),
        config=TrainFusionConfig.from_dict(metadata["config"]),
        class_names=tuple(metadata["class_names"]),
        fingerprint=metadata["fingerprint"],
        standardiser=Standardiser.from_dict(metadata["standardiser"]),
    )
