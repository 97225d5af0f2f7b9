"""The Lightning side of a fusion model's training: its loss, its rates, its validation."""

import math
from collections.abc import Iterator
from typing import Any

import lightning
import torch
from torch import Tensor

from pyseq.data.modalities import Batch
from pyseq.errors import UserError
from pyseq.models.fusion import FusionModel
from pyseq.training.cyclic_cosine import CyclicCosine, cycle_ends
from pyseq.training.fusion.config import TrainFusionConfig
from pyseq.training.fusion.losses import soft_cross_entropy, soft_targets
from pyseq.training.fusion.mixup import Mixup

ROWS = 1024  # objects at a time where nothing is learned


class IndexBatches:
    """Rows of every batch of an epoch, in a new order each time it is gone through.

    Args:
        count (int): objects.
        batch (int): rows per batch; the last batch has what is left.
        seed (int): of the orders.
    """

    def __init__(self, count: int, batch: int, seed: int):
        self.count, self.batch = count, batch
        self._draw = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-self.count // self.batch)

    def __iter__(self) -> Iterator[Tensor]:
        yield from torch.randperm(self.count, generator=self._draw).split(self.batch)


def snapshot_epochs(config: TrainFusionConfig) -> list[int]:
    """After how many epochs weights are kept: at the ends of cycles, where that is asked for."""
    if not config.snapshots:
        return []
    return cycle_ends(
        config.epochs, cycle_epochs=config.cycle_epochs, warmup_epochs=config.warmup_epochs
    )


class FusionTraining(lightning.LightningModule):
    """Trains a model on rows of data that lie on its device as a whole.

    Args:
        model (FusionModel): with fresh weights.
        config (TrainFusionConfig): resolved.
        train (Batch): all objects to train on, standardised.
        validation (Batch | None): all objects to validate on, likewise.
        seed (int): of batches and mixup.

    Attributes:
        batches (IndexBatches): of an epoch.
        history (list of dict): after each epoch: epoch, train_loss (with smoothing, mixing and
            dropout, as trained), lr (of the last step), and with validation validation_loss (plain,
            in nats) and validation_accuracy.
        best (dict str -> Tensor): the weights with the lowest validation loss; without validation
            those of the last epoch.
        best_epoch (int): after how many epochs that was.
        snapshots (list of dict): weights at the ends of cycles, where they are asked for.
        snapshot_epochs (list of int): after how many epochs these are.
    """

    def __init__(self, model: FusionModel, config: TrainFusionConfig, train: Batch,
                 validation: Batch | None, seed: int):  # fmt: skip
        super().__init__()
        self.model, self.config = model, config
        self.train_rows, self.validation = train, validation
        self.batches = IndexBatches(len(train), config.batch, seed)
        self.mixup = None if config.mixup_alpha is None else Mixup(config.mixup_alpha, seed)
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.snapshots: list[dict[str, Tensor]] = []
        self.snapshot_epochs = snapshot_epochs(config)
        self._losses: list[Tensor] = []
        self._rate = 0.0

    def training_step(self, index: Tensor, _: int) -> Tensor:
        config, model = self.config, self.model
        batch = self.train_rows.select(index)
        tokens, present = model.embed(batch), batch.present
        targets = soft_targets(batch.label, model.shape.classes, config.label_smoothing)
        if self.mixup is not None:
            tokens, present, targets = self.mixup(tokens, present, targets)
        loss = soft_cross_entropy(model.classify(tokens, present), targets, config.focal_gamma)
        self._losses.append(loss.detach())
        self._rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        return loss

    def on_train_epoch_end(self) -> None:
        epoch = self.current_epoch + 1
        row: dict[str, float] = {
            "epoch": epoch,
            "train_loss": float(torch.stack(self._losses).mean()),
            "lr": self._rate,
        }
        if not math.isfinite(row["train_loss"]):
            raise UserError(
                f"the training diverged: its loss is {row['train_loss']} in epoch {epoch}; a lower"
                f" --lr than {self.config.lr:g} fits"
            )
        self._losses = []
        better = True
        if self.validation is not None:
            row |= self._validate(self.validation)
            before = [past["validation_loss"] for past in self.history]
            better = not before or row["validation_loss"] < min(before)
        if better:
            self.best, self.best_epoch = _copy(self.model), epoch
        self.history.append(row)
        if epoch in self.snapshot_epochs:
            self.snapshots.append(_copy(self.model))

    def _validate(self, rows: Batch) -> dict[str, float]:
        logits = model_logits(self.model, rows)
        self.model.train()
        loss = torch.nn.functional.cross_entropy(logits, rows.label)
        right = (logits.argmax(1) == rows.label).double().mean()
        return {"validation_loss": float(loss), "validation_accuracy": float(right)}

    def configure_optimizers(self) -> Any:
        config = self.config
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        schedule: torch.optim.lr_scheduler.LRScheduler
        if config.schedule == "cyclic":
            schedule = CyclicCosine(
                optimizer, cycle_epochs=config.cycle_epochs, warmup_epochs=config.warmup_epochs,
                steps_per_epoch=len(self.batches), min_factor=config.min_factor,
                decay=config.decay,
            )  # fmt: skip
        else:
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _factor(self, step: int) -> float:
        """Of the base rate: the same rise and the same end as the cycles'."""
        config, low = self.config, self.config.min_factor
        warmup = min(1.0, config.warmup_epochs / config.epochs)
        progress = min(1.0, step / (config.epochs * len(self.batches)))
        if progress < warmup or warmup == 1:  # a rise that fills the training ends at its top
            return low + (1 - low) * progress / warmup
        if config.schedule == "constant":
            return 1.0
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def model_logits(model: FusionModel, rows: Batch) -> Tensor:
    """Logits of a model in eval mode, some rows at a time.

    Args:
        model (FusionModel): is left in eval mode.
        rows (Batch): N objects on the model's device.

    Returns:
        Tensor (N, classes), float32.
    """
    model.eval()
    return forward_rows(model, rows)


@torch.no_grad()
def forward_rows(model: FusionModel, rows: Batch) -> Tensor:
    """Logits (N, classes) of a model in the mode that it is in."""
    index = torch.arange(len(rows), device=rows.label.device)
    return torch.cat([model(rows.select(part)) for part in index.split(ROWS)])


def _copy(model: FusionModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
