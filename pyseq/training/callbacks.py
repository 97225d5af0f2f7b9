"""What happens around the steps: metrics, checkpoints, the clock, the progress bar."""

import math
import resource
import sys
import time
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from torch import Tensor

from pyseq.errors import UserError
from pyseq.models.checkpoint import ModelCard, save_model
from pyseq.training.batches import TrainingBatches
from pyseq.training.interruption import Interruption
from pyseq.training.metrics_file import MetricsFile


class MetricsRows(Callback):
    """Writes a row every `log_every` steps and after each validation, also to TensorBoard."""

    def __init__(self, file: MetricsFile, batches: TrainingBatches, symbols_per_batch: int,
                 log_every: int):  # fmt: skip
        self.file, self.batches, self.log_every = file, batches, log_every
        self.symbols_per_batch = symbols_per_batch
        self.seconds_before = 0.0  # of earlier runs of a resumed training
        self.latest: dict = {}

    def state_dict(self):
        return {"seconds": self.seconds_before + time.perf_counter() - self._began}

    def load_state_dict(self, state):
        self.seconds_before = state["seconds"]

    def setup(self, trainer, module, stage):
        self._began = time.perf_counter()

    def on_train_start(self, trainer, module):
        self._mark = (time.perf_counter(), self.batches.served, self.batches.wait_seconds)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        step = trainer.global_step
        if step_is_whole(trainer, batch_idx) and (step % self.log_every == 0 or step == 1):
            self._write(
                trainer, {"train_bits": float(module.train_bits.compute()), **self._speed()}
            )
            module.train_bits.reset()

    def on_validation_end(self, trainer, module):
        self._write(trainer, {"val_bits": float(trainer.callback_metrics["val_bits"])})
        now, served, waited = self._mark
        spent = time.perf_counter() - self._validation_began
        self._mark = (now + spent, served, waited)  # validating is not training

    def on_validation_start(self, trainer, module):
        self._validation_began = time.perf_counter()

    def _speed(self) -> dict[str, float]:
        then, served, waited = self._mark
        self._mark = now, _, now_waited = (
            time.perf_counter(), self.batches.served, self.batches.wait_seconds)  # fmt: skip
        seconds = max(now - then, 1e-9)
        return {
            "symbols_per_second": (self.batches.served - served) * self.symbols_per_batch / seconds,
            "data_wait_share": (now_waited - waited) / seconds,
        }

    def _write(self, trainer, values: dict[str, float]) -> None:
        row = {
            "step": trainer.global_step,
            "epoch": self.batches.loader.epoch,
            "symbols": self.batches.served * self.symbols_per_batch,
            "seconds": self.seconds_before + time.perf_counter() - self._began,
            "lr": trainer.optimizers[0].param_groups[0]["lr"] if trainer.optimizers else None,
            "memory_mib": peak_memory_mib(),
            **values,
        }
        row = {name: round(v, 6) if isinstance(v, float) else v for name, v in row.items()}
        self.latest.update(row)
        self.file.append(row)
        if trainer.logger is not None:
            scalars = {
                name: float(v) for name, v in row.items() if v is not None and name != "step"
            }
            trainer.logger.log_metrics(scalars, step=trainer.global_step)


class BestModel(Callback):
    """Keeps the model with the lowest validation loss in the model file.

    It belongs to the training's state: what is resumed may end before it reaches the validation
    that wrote the file last.
    """

    def __init__(self, path: Path, card: ModelCard):
        self.path, self.card = path, card
        self.best = float("inf")
        self.step = 0
        self.weights: dict[str, Tensor] = {}

    def state_dict(self):
        return {"best": self.best, "step": self.step, "weights": self.weights}

    def load_state_dict(self, state):
        self.best, self.step, self.weights = state["best"], state["step"], state["weights"]

    def on_train_start(self, trainer, module):
        if self.weights:
            save_model(self.path, self.weights, self.card)

    def on_validation_end(self, trainer, module):
        bits = float(trainer.callback_metrics["val_bits"])
        if not math.isfinite(bits):
            raise UserError(
                f"the training diverged: at step {trainer.global_step} the validation loss is"
                f" {bits}; a lower --lr, or --clip, helps"
            )
        if bits < self.best:
            self.best, self.step = bits, trainer.global_step
            weights = module.model.state_dict()
            self.weights = {name: w.detach().to("cpu", copy=True) for name, w in weights.items()}
            save_model(self.path, self.weights, self.card)


class LastCheckpoint(Callback):
    """Saves the whole state of the training every `every` optimiser steps, and when it ends.

    Where a validation is due at the same step it comes first, so that its row and its best model
    are part of the state. It also stops the training when a signal asks for that.
    """

    def __init__(self, folder: Path, every: int, file: MetricsFile, interruption: Interruption):
        self.folder, self.every, self.file = folder, every, file
        self.interruption = interruption

    def on_train_start(self, trainer, module):
        # Lightning has just put a handler of its own in front, which would end the training after
        # any batch, also while gradients accumulate, and in the middle of a validation.
        self.interruption.listen()
        self.interruption.obey("no step was made")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        # Lightning validates wherever the training is told to stop.
        validates = trainer.should_stop or (batch_idx + 1) % trainer.val_check_batch == 0
        if step_is_whole(trainer, batch_idx) and not validates:
            self._end_step(trainer, module)

    def on_validation_end(self, trainer, module):
        self._end_step(trainer, module)

    def _end_step(self, trainer, module) -> None:
        module.finished = trainer.should_stop
        # Read once: a signal that comes while the state is saved is for the next step.
        stop = self.interruption.received is not None
        if stop or module.finished or trainer.global_step % self.every == 0:
            # First, as who goes on from this state writes no row of the steps before it.
            self.file.sync()
            for logger in trainer.loggers:
                logger.save()
            trainer.save_checkpoint(self.folder)
        if stop:
            # Raised, since `should_stop` would bring a validation that nobody planned.
            self.interruption.obey(f"saved step {trainer.global_step:,} in {self.folder}")


class StopAtEnd(Callback):
    """Ends the training, with a validation, when its batches or its time have run out."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        seconds = module.progress.seconds
        late = seconds is not None and module.progress.elapsed >= seconds
        if batch_idx + 1 == trainer.num_training_batches or (
            late and step_is_whole(trainer, batch_idx)
        ):
            trainer.should_stop = True


def step_is_whole(trainer, batch_idx: int) -> bool:
    """Whether the optimiser has made its step after this batch, or gradients still accumulate."""
    batches = batch_idx + 1
    return batches % trainer.accumulate_grad_batches == 0 or batches == trainer.num_training_batches


class BitsProgressBar(TQDMProgressBar):
    """Loss in bits per symbol beside its ceiling, speed, time left and memory."""

    def __init__(self, rows: MetricsRows, ceiling_bits: float):
        super().__init__(refresh_rate=10)
        self.rows, self.ceiling_bits = rows, ceiling_bits

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if module.progress.seconds is not None:
            share = module.progress(trainer.global_step)  # fewer batches than there are
            self.train_progress_bar.total = round((batch_idx + 1) / share)
        super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)

    def on_exception(self, trainer, module, exception):
        if self._train_progress_bar is not None:
            self.on_train_end(trainer, module)  # or it would show itself again after the last word

    def get_metrics(self, trainer, module):
        latest = self.rows.latest
        shown = {}
        for name, key in (("bits", "train_bits"), ("val", "val_bits")):
            if latest.get(key) is not None:
                shown[name] = f"{latest[key]:.3f}"
        shown["ceiling"] = f"{self.ceiling_bits:.3f}"
        if "symbols_per_second" in latest:
            shown["symbols/s"] = f"{latest['symbols_per_second']:,.0f}"
            shown["MiB"] = f"{latest['memory_mib']:,.0f}"
        return shown


class LinePrinter(Callback):
    """A line per validation, for logs and pipes, where a progress bar would be noise."""

    def __init__(self, rows: MetricsRows, ceiling_bits: float, steps: int):
        self.rows, self.ceiling_bits, self.steps = rows, ceiling_bits, steps

    def on_validation_end(self, trainer, module):
        latest = self.rows.latest
        train = latest.get("train_bits")
        speed = latest.get("symbols_per_second", 0.0)
        step = f"{trainer.global_step:,}/{self.steps:,}"
        if module.progress.seconds is not None:
            step = (
                f"{trainer.global_step:,} ({module.progress(trainer.global_step):.0%} of the time)"
            )
        print(
            f"step {step}"
            f"  train {'-' if train is None else format(train, '.3f')}"
            f"  validation {latest['val_bits']:.3f} bits/symbol (ceiling {self.ceiling_bits:.3f})"
            f"  {speed:,.0f} symbols/s  {latest['memory_mib']:,.0f} MiB",
            file=sys.stderr,
            flush=True,
        )


def peak_memory_mib() -> float:
    """Peak memory in MiB: of the GPU's allocator if one is used, else of the process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # Linux counts KiB
