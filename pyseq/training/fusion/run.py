"""One run of a strategy: split, train, score the test part once, write record and page."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pyseq.analysis.fusion import FusionRecord, write_fusion_report, write_record
from pyseq.data.durable_file import replace_file
from pyseq.data.modalities import (
    ModalityData,
    Standardiser,
    corrupted,
    find_data,
    folds,
    locked_split,
)
from pyseq.errors import UserError
from pyseq.models.device import choose_device
from pyseq.models.fusion import DataShape, FusionModel
from pyseq.training.folder_lock import locked
from pyseq.training.fusion.config import TrainFusionConfig
from pyseq.training.fusion.ensembles import (
    MEMBER,
    VALIDATION_SHARE,
    FusionEnsemble,
    HeldOut,
    Member,
    Told,
    combine,
    ensemble,
    k_fold,
    own_seed,
    silent,
    super_ensemble,
)
from pyseq.training.fusion.fit import train_fusion
from pyseq.training.fusion.model_store import StoredEnsemble, save_ensemble
from pyseq.training.fusion.module import snapshot_epochs
from pyseq.training.interruption import Interruption, TrainingStopped

MODEL, RECORD, REPORT, SETTINGS = "model.safetensors", "record.json", "report.html", "config.yaml"
NOISE = 0.5  # of the report's noisy version, in training deviations
TITLES = {
    "single": "single model",
    "k_fold": "k-fold",
    "ensemble": "ensemble",
    "super_ensemble": "super-ensemble",
}
SELECTION = {
    "single": "the validation part",
    "k_fold": "nothing but the temperature, which the held-out folds gave",
    "ensemble": "each member's own validation part",
    "super_ensemble": "members' validation parts and held-out folds",
}


@dataclass(frozen=True)
class SplitData:
    """Data with what each row is for.

    Attributes:
        data (ModalityData): all objects.
        train, validation, test (array, int64): rows; every row is in one of them.
    """

    data: ModalityData
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def development(self) -> ModalityData:
        """All objects but those of the test."""
        return self.data.subset(np.sort(np.concatenate([self.train, self.validation])))

    @property
    def tested(self) -> ModalityData:
        """The objects of the test."""
        return self.data.subset(self.test)


def load_data(config: TrainFusionConfig) -> ModalityData:
    """The data of a run.

    Args:
        config (TrainFusionConfig): data, its settings, and split_seed.

    Returns:
        ModalityData: all objects.

    Raises:
        UserError: there are no such data, they have a fault, or a flag is for others.
    """
    settings = {
        name: getattr(config, name)
        for name in ("count", "missing", "duplicates")
        if getattr(config, name) is not None
    }
    if settings and config.data != "synthetic":
        raise UserError(
            f"--{next(iter(settings))} is for --data synthetic; --data {config.data} has none"
        )
    return find_data(config.data, seed=config.split_seed, **settings)


def fingerprint(data: ModalityData) -> str:
    """A hash of all values, labels and groups, by which the same data are known again."""
    found = hashlib.sha256()
    arrays = {"label": data.label, "group": data.group}
    for modality, present in zip(data.modalities, data.present.T, strict=True):
        arrays[f"{modality.name}.present"] = present  # apart, so that their order is no matter
        arrays[f"{modality.name}.values"] = modality.values
        arrays[f"{modality.name}.adjacency"] = modality.adjacency
        arrays[f"{modality.name}.nodes"] = modality.nodes
    for name in sorted(arrays):
        array = arrays[name]
        if array is not None:
            found.update(f"{name} {array.shape} {array.dtype}".encode())
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def run_fusion(config: TrainFusionConfig, told: Told = silent) -> FusionRecord:
    """Train what the strategy says, score the test part once, and leave a run folder.

    Args:
        config (TrainFusionConfig): the flags; `threads` is set for the whole process.
        told (Callable): is given a line about each stage.

    Returns:
        FusionRecord: what record.json in the run folder holds.

    Raises:
        UserError: a flag or the data do not fit, or a file cannot be written; one sentence.
        TrainingStopped: SIGTERM or Ctrl-C, in the main thread.
    """
    config = config.resolved()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    choose_device(config.device)
    data = load_data(config)
    split = SplitData(data, *locked_split(data, config.split_seed))
    refuse_early(config, split)
    folder = Path(str(config.out))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: {error.strerror}") from error
    try:
        with Interruption() as interruption, locked(folder, "--out"):
            interruption.next = "stopping after this step"
            return _run(config, split, folder, told)
    except TrainingStopped as end:
        # A SIGTERM too: unlike trainings that save their state, this one has lost its steps.
        raise TrainingStopped(
            end.received, "nothing is kept of the training", "the same command begins anew",
            128 + end.received,
        ) from None  # fmt: skip


def refuse_early(config: TrainFusionConfig, split: SplitData) -> None:
    """What would end a run after what an earlier one left was removed, or models were trained.

    Args:
        config (TrainFusionConfig): resolved.
        split (SplitData): of the data.

    Raises:
        UserError: a model cannot read such data, or they cannot be parted as the strategy says.
    """
    development = split.development
    with torch.device("meta"):  # no weights are drawn
        FusionModel(config.model, DataShape.of(development))
    if config.strategy in ("k_fold", "super_ensemble"):
        folds(development, config.folds, config.seed)
    if config.strategy in ("ensemble", "super_ensemble"):
        for number in range(1, len(config.widths) + 1):
            folds(development, VALIDATION_SHARE, own_seed(config.seed, MEMBER, number))


def _run(config: TrainFusionConfig, split: SplitData, folder: Path, told: Told) -> FusionRecord:
    for leftover in (MODEL, RECORD, REPORT):
        (folder / leftover).unlink(missing_ok=True)
    replace_file(folder / SETTINGS, lambda path: path.write_text(config.to_yaml()))
    began = time.monotonic()
    told(
        f"{split.data.name}: {len(split.data)} objects, {split.data.classes} classes,"
        f" {', '.join(split.data.names)}; {len(split.test)} of them locked away for the test"
    )
    held = train_strategy(config, split, told)
    standardiser = Standardiser.fit(split.development)
    told("scoring the test part, once")
    predictions = predicted_parts(config, held.ensemble, split.tested)
    without, noisy = _robustness(config, held.ensemble, split.tested, standardiser)
    record = FusionRecord(
        data=split.data.name,
        protocol="locked split",
        class_names=split.data.class_names,
        label=split.tested.label,
        predictions=predictions,
        strategy=config.strategy,
        selection=SELECTION[config.strategy],
        group=split.tested.group,
        without=without,
        corrupted=noisy,
        histories={m.name: m.trained.history for m in held.ensemble.members},
        snapshots=snapshot_epochs(config),
        techniques=config.techniques,
        config=config.to_dict(),
        seed=config.seed,
        bayes_accuracy=split.tested.bayes_accuracy,
        parameters=_parameters(held.ensemble),
        seconds=time.monotonic() - began,
        device=str(choose_device(config.device)),
        facts=_facts(held, split),
    )
    write_record(folder / RECORD, record)
    write_fusion_report(folder / REPORT, record)
    if config.save:
        stored = StoredEnsemble(
            held.ensemble, config, split.data.class_names, fingerprint(split.data), standardiser
        )
        save_ensemble(folder / MODEL, stored)
    return record


def train_strategy(config: TrainFusionConfig, split: SplitData, told: Told = silent) -> HeldOut:
    """Train what the strategy says, without the test part.

    Args:
        config (TrainFusionConfig): resolved.
        split (SplitData): its test part is not looked at.
        told (Callable): is given a line about each model.

    Returns:
        HeldOut: of the development objects; of a single model, of the validation objects.
    """
    seed = config.seed
    match config.strategy:
        case "k_fold":
            return k_fold(config, split.development, config.folds, seed, told)
        case "ensemble":
            return ensemble(config, split.development, config.widths, seed, told)
        case "super_ensemble":
            return super_ensemble(config, split.development, seed, told)
    trained = train_fusion(config, split.data, split.train, split.validation, seed)
    validated = split.data.subset(split.validation)
    found = trained.probabilities(validated, device=config.device)
    right = float((found.argmax(1) == validated.label).mean())
    told(f"single model: {100 * right:.2f} % of the validation part, weights of epoch"
         f" {trained.best_epoch}")  # fmt: skip
    members = (Member("single model", trained, 1.0),)
    return HeldOut(FusionEnsemble(members, config.average), found[None], validated.label)


def predicted_parts(
    config: TrainFusionConfig, served: FusionEnsemble, tested: ModalityData
) -> dict[str, np.ndarray]:
    """What the run serves says of the test objects, and for comparison what its parts say.

    Args:
        config (TrainFusionConfig): strategy and average.
        served (FusionEnsemble): of `train_strategy`.
        tested (ModalityData): N objects.

    Returns:
        dict str -> array (N, C): the served predictions first.
    """
    each = served.member_probabilities(tested, device=config.device)
    weights = [member.weight for member in served.members]
    found = {TITLES[config.strategy]: combine(each, weights, served.average)}
    if config.strategy == "super_ensemble":
        ends = {"k-fold": (0, config.folds), "ensemble": (config.folds, len(each) - 1),
                "full-data model": (len(each) - 1, len(each))}  # fmt: skip
        for name, (start, end) in ends.items():
            found[name] = combine(each[start:end], [1.0] * (end - start), served.average)
    return found


def _robustness(
    config: TrainFusionConfig,
    served: FusionEnsemble,
    tested: ModalityData,
    standardiser: Standardiser,
) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]:
    """Predictions with each modality hidden, and with noise; none of them is asked for: empty."""
    if not config.robustness:
        return {}, {}
    hidden = {
        name: served.probabilities(tested.without(name), device=config.device)
        for name in tested.names
        if len(tested.names) > 1
    }
    noisy = corrupted(tested, noise=NOISE, seed=config.split_seed, standardiser=standardiser)
    said = f"noise of {NOISE} deviations"
    return hidden, {said: served.probabilities(noisy, device=config.device)}


def _parameters(served: FusionEnsemble) -> int:
    models = [
        model
        for member in served.members
        for model in (
            member.trained.snapshots if member.trained.using.snapshots else [member.trained.model]
        )
    ]
    return sum(parameter.numel() for model in models for parameter in model.parameters())


def _facts(held: HeldOut, split: SplitData) -> dict[str, object]:
    known = [each for each in held.accuracies if not np.isnan(each)]
    facts: dict[str, object] = {
        "objects trained, validated, tested": [
            len(split.train), len(split.validation), len(split.test)
        ],
        "held-out accuracy of the models, mean": float(np.mean(known)),
    }  # fmt: skip
    if len(known) > 1:
        facts["held-out accuracy of the models, deviation"] = float(np.std(known, ddof=1))
    facts["weights of the models"] = [round(m.weight, 4) for m in held.ensemble.members]
    facts["temperatures"] = [round(m.trained.temperature, 4) for m in held.ensemble.members]
    return facts | {"torch": torch.__version__}
