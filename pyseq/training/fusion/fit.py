"""One training of a fusion model, and what predicts afterwards."""

import contextlib
import copy
from dataclasses import dataclass, replace
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from pyseq.data.modalities import Batch, ModalityData, Standardiser
from pyseq.errors import UserError
from pyseq.models.device import choose_device
from pyseq.models.fusion import DataShape, FusionModel, build_fusion_model
from pyseq.training.fusion.calibration import fit_temperature, tempered
from pyseq.training.fusion.config import TrainFusionConfig
from pyseq.training.fusion.module import FusionTraining, forward_rows
from pyseq.training.fusion.views import dropout_on, views
from pyseq.training.interruption import Interruption, present_interruption
from pyseq.training.lightning_trainer import quietly


@dataclass(frozen=True)
class Prediction:
    """How a trained model predicts; whatever is not named is done once, in eval mode.

    Attributes:
        snapshots (bool): by the weights at the ends of cycles, averaged, not by the best ones.
        tta (int): by so many different views, averaged; 0: by the object itself.
        mc_dropout (int): by so many passes with dropout on, averaged; 0: one pass with it off.
        calibrated (bool): with the model's temperature.
        seed (int): of views and dropout.
    """

    snapshots: bool = False
    tta: int = 0
    mc_dropout: int = 0
    calibrated: bool = True
    seed: int = 0

    @staticmethod
    def of(config: TrainFusionConfig) -> "Prediction":
        """As the flags say."""
        return Prediction(config.snapshots, config.tta, config.mc_dropout, config.calibrate)


@dataclass(frozen=True)
class TrainedFusion:
    """A trained model with all that it needs to predict.

    Attributes:
        model (FusionModel): the weights with the lowest validation loss, or the last ones where
            there was no validation; on the CPU, in eval mode.
        snapshots (tuple of FusionModel): at the ends of cycles, where they were asked for.
        standardiser (Standardiser): fitted to the training objects.
        temperature (float): fitted to the validation objects; 1 without any.
        history (tuple of dict): after each epoch, see `FusionTraining`.
        best_epoch (int): after how many epochs `model` is.
        using (Prediction): how the flags say that it predicts.
        seed (int): of the training.
    """

    model: FusionModel
    snapshots: tuple[FusionModel, ...]
    standardiser: Standardiser
    temperature: float
    history: tuple[dict[str, float], ...]
    best_epoch: int
    using: Prediction
    seed: int

    def probabilities(
        self, data: ModalityData, using: Prediction | None = None, device: str = "auto"
    ) -> np.ndarray:
        """Probabilities of the classes.

        Args:
            data (ModalityData): N objects as they came, not standardised.
            using (Prediction | None): how; None: as trained to.
            device (str): where; auto, cpu, cuda, or cuda:N.

        Returns:
            array (N, classes), float64: rows sum to 1.

        Raises:
            UserError: what the model says of an object is no number.
            ValueError: snapshots are asked for, and none were kept.
        """
        using = using or self.using
        if using.snapshots and not self.snapshots:
            raise ValueError(
                "TrainedFusion.probabilities: snapshots are asked for; a training with snapshots"
                " fits"
            )
        place = choose_device(device)
        rows = self.standardiser.apply(data).batch(np.arange(len(data)), place)
        models = self.snapshots if using.snapshots else (self.model,)
        found = np.mean([_predicted(model, rows, using, place) for model in models], axis=0)
        # Ensembles take NaN for "was trained on this object", and would leave the model out.
        if not np.isfinite(found).all():
            wrong = int((~np.isfinite(found).all(1)).sum())
            raise UserError(
                f"of {wrong} of {len(found)} objects a model predicts no numbers: its training"
                " diverged, or their features are far from all that it learned; a lower --lr fits"
            )
        return tempered(found, self.temperature) if using.calibrated else found

    def with_temperature(self, temperature: float) -> "TrainedFusion":
        """The same with another temperature."""
        return replace(self, temperature=temperature)

    def predicting(
        self, using: Prediction, validation: ModalityData | None, device: str = "auto"
    ) -> "TrainedFusion":
        """The same model that predicts otherwise, with the temperature that fits this way.

        Args:
            using (Prediction): how.
            validation (ModalityData | None): objects that were not trained on, as they came; None,
                or a `using` that is not calibrated: the temperature is 1.
            device (str): where; auto, cpu, cuda, or cuda:N.

        Returns:
            TrainedFusion: shares the models with this one.

        Raises:
            ValueError: snapshots are asked for, and none were kept.
        """
        plain = replace(self, using=using, temperature=1.0)
        if validation is None or not using.calibrated:
            return plain
        found = plain.probabilities(validation, device=device)
        return plain.with_temperature(fit_temperature(found, validation.label))


def _predicted(
    model: FusionModel, rows: Batch, using: Prediction, device: torch.device
) -> np.ndarray:
    """Probabilities (N, classes) of one model, averaged over views and passes."""
    model.to(device).eval()
    seen = views(rows, using.tta, using.seed) if using.tta else [rows]
    total, count = torch.zeros(len(rows), model.shape.classes, dtype=torch.float64), 0
    for number, view in enumerate(seen):
        if not using.mc_dropout:
            total, count = total + _softmax(model, view), count + 1
            continue
        with dropout_on(model, using.seed + number):
            for _ in range(using.mc_dropout):
                total, count = total + _softmax(model, view), count + 1
    model.cpu()
    return (total / count).numpy()


def _softmax(model: FusionModel, rows: Batch) -> Tensor:
    return forward_rows(model, rows).double().softmax(-1).cpu()


def train_fusion(
    config: TrainFusionConfig,
    data: ModalityData,
    train: np.ndarray,
    validation: np.ndarray | None,
    seed: int,
) -> TrainedFusion:
    """Train one model; nothing but the rows that are named is looked at.

    Everything random follows from the seed: a training gives the same model whatever was trained
    before it, on the same machine with as many threads.

    Args:
        config (TrainFusionConfig): what to train and how; its strategy and seeds are not read.
        data (ModalityData): objects as they came; standardised here by the training rows.
        train (array (n,), int64): rows to learn from.
        validation (array (m,), int64 | None): rows that say which epoch's weights are kept and
            which temperature fits; None: the last epoch's are kept, with temperature 1.
        seed (int): of weights, batches, dropout and mixup.

    Returns:
        TrainedFusion: on the CPU.

    Raises:
        UserError: the model cannot read such data, or the training diverges.
        TrainingStopped: a signal came, and there is an `Interruption` around this.
    """
    device = choose_device(config.device)
    learned = data.subset(train)
    standardiser = Standardiser.fit(learned)
    model = build_fusion_model(config.model, DataShape.of(learned), seed)
    standard = standardiser.apply(data)
    held = None if validation is None else standard.batch(validation, device)
    module = FusionTraining(model, config, standard.batch(train, device), held, seed)
    interruption = present_interruption()
    stop = [] if interruption is None else [StopBySignal(interruption)]
    deferred = contextlib.nullcontext() if interruption is None else interruption.deferred()
    trainer = make_fusion_trainer(device, config, [*stop])
    # Dropout draws from torch's generators, which whoever calls keeps as they are.
    with torch.random.fork_rng(), deferred:
        torch.manual_seed(seed)
        quietly(trainer.fit, module, module.batches)
    model.cpu().load_state_dict(module.best)
    snapshots = tuple(_loaded(model, weights) for weights in module.snapshots)
    if snapshots and module.best_epoch == module.snapshot_epochs[-1]:
        model = snapshots[-1]  # the same weights need no second place
    trained = TrainedFusion(
        model=model.eval(),
        snapshots=snapshots,
        standardiser=standardiser,
        temperature=1.0,
        history=tuple(module.history),
        best_epoch=module.best_epoch,
        using=Prediction.of(config),
        seed=seed,
    )
    held_out = None if validation is None else data.subset(validation)
    return trained.predicting(trained.using, held_out, config.device)


def _loaded(model: FusionModel, weights: dict[str, Tensor]) -> FusionModel:
    made = copy.deepcopy(model)
    made.load_state_dict(weights)
    return made.eval()


class StopBySignal(lightning.Callback):
    """Ends a training after the step in which a signal came.

    An exception out of the signal's handler could be lost: Python drops those that are raised in
    callbacks of weak references.

    Args:
        interruption (Interruption): in whose deferred block the training is.
    """

    def __init__(self, interruption: Interruption):
        self._interruption = interruption

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self._interruption.listen()  # Lightning has put a handler of its own in place

    def on_train_batch_end(self, *_: Any) -> None:
        self._interruption.obey("")


def make_fusion_trainer(
    device: torch.device, config: TrainFusionConfig, callbacks: list[lightning.Callback]
) -> lightning.Trainer:
    """A Trainer that computes on one device and writes nothing; it takes a fraction of a second.

    Args:
        device (torch.device): where the model runs.
        config (TrainFusionConfig): epochs and clipping.
        callbacks (list of Callback): what else happens around the steps.
    """
    return quietly(
        lightning.Trainer,
        accelerator=device.type,
        devices=[device.index or 0] if device.type == "cuda" else 1,
        max_epochs=config.epochs,
        gradient_clip_val=config.clip or None,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=False,
        callbacks=callbacks,
    )
