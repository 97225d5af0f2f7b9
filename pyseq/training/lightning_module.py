"""The Lightning module: loss, optimiser and validation of a next-symbol model."""

import math
from typing import Any

import lightning
import torch
from torch import Tensor
from torchmetrics import MeanMetric

from pyseq.data.augmentation import Augmentation
from pyseq.data.binning import Binning
from pyseq.models.sequence_model import SequenceModel
from pyseq.training.config import TrainConfig
from pyseq.training.schedules import Progress, rate_factor

BITS = 1 / math.log(2)  # bits per nat


class SequenceTraining(lightning.LightningModule):
    """Trains a model by its `objective`; `loss(window)` is in nats per symbol.

    Where the model reads augmented windows in training, its training loss is that of predicting the
    true symbols from them, and not to be compared with the loss in validation, which reads the
    stream as it is.

    Args:
        model (SequenceModel): what is trained.
        config (TrainConfig): optimiser and schedule.
        binning (Binning): from symbols of the stream to the model's classes.
        steps (int): optimiser steps at the most.
        data (dict): what the checkpoint should know of the stream.
        augmentation (Augmentation | None): what training does to what the model reads.
    """

    def __init__(
        self,
        model: SequenceModel,
        config: TrainConfig,
        binning: Binning,
        steps: int,
        data: dict[str, Any],
        augmentation: Augmentation | None = None,
    ):
        super().__init__()
        self.data = data
        self.finished = False  # whether no step is left, for whatever reason
        self.model = model
        self.config, self.binning, self.augmentation = config, binning, augmentation
        seconds = None if config.max_time is None else 60 * config.max_time
        self.progress = Progress(steps, seconds)
        compiled = torch.compile if config.compile else lambda function: function
        self.objective, self.loss = compiled(model.objective), compiled(model.loss)
        self.train_bits = MeanMetric(nan_strategy="disable")  # NaN must show
        self.train_bits.persistent(True)  # a checkpoint may fall between two rows of metrics
        self.validation_bits = MeanMetric(nan_strategy="disable")
        self._saved_rng: dict | None = None

    def transfer_batch_to_device(
        self, batch: dict[str, Tensor], device: torch.device, dataloader_idx: int
    ) -> dict[str, Tensor]:
        # Loaders made for a GPU have put the windows there; nobody reads the offsets on it.
        return {**batch, "window": batch["window"].to(device, non_blocking=True)}

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        window = batch["window"]
        seen = None if self.augmentation is None else self.augmentation(window[:, :-1])
        objective, loss = self.objective(self.binning.apply(window), seen)
        self.train_bits.update(loss * BITS)
        return objective

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        loss = self.loss(self.binning.apply(batch["window"]))
        self.validation_bits.update(loss * BITS, weight=len(batch["window"]))

    def on_validation_epoch_end(self) -> None:
        # MetricsRows tells the logger; this is for early stopping.
        self.log("val_bits", self.validation_bits.compute(), logger=False)
        self.validation_bits.reset()

    def configure_gradient_clipping(
        self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None
    ) -> None:
        # Lightning refuses to clip for a fused optimiser under autocast, for the sake of a gradient
        # scaler that bfloat16 does not have.
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["data"] = self.data
        checkpoint["edges"] = self.binning.edges
        checkpoint["finished"] = self.finished
        checkpoint["elapsed"] = self.progress.elapsed
        checkpoint["rng"] = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self._saved_rng = checkpoint["rng"]
        self.progress.resume(checkpoint["elapsed"])

    def on_train_start(self) -> None:
        if self._saved_rng is not None:
            torch.set_rng_state(self._saved_rng["cpu"])
            torch.cuda.set_rng_state_all(self._saved_rng["cuda"])

    def configure_optimizers(self):
        config = self.config
        matrices = [p for p in self.model.parameters() if p.dim() >= 2]
        others = [p for p in self.model.parameters() if p.dim() < 2]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer: torch.optim.Optimizer
        match config.optimizer:
            case "adamw":
                optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.95), fused=True)
            case "adam":
                optimizer = torch.optim.Adam(groups, lr=config.lr, betas=(0.9, 0.95), fused=True)
            case "sgd":
                optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=0.9)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _rate(self, step: int) -> float:
        return rate_factor(self.config.schedule, self.progress(step), self.config.warmup_ratio)
