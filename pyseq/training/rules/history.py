"""After each validation: a row for every seed, its best weights kept, and who leaves the stack."""

import math
import sys
import time
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from pyseq.analysis.rules import METRICS
from pyseq.training.metrics_file import MetricsFile

COLUMNS = ("seed", "step", "epoch", "seconds", "train_loss", "validation_loss", "grad_norm", "lr",
           *METRICS)  # fmt: skip


class History(Callback):
    """The part of a training's state that belongs to seeds and not to steps.

    Args:
        file (MetricsFile): for the rows.
        seeds (sequence of int): of the whole stack.
        patience (int): validations without a lower loss after which a seed leaves; 0: none leaves.
        patience_from (int): the step from which they are counted.
        told (bool): whether to print a line for each validation.

    Attributes:
        best (dict name -> Tensor (S, ...)): weights of each seed at its lowest validation loss, on
            the CPU.
        last (dict name -> Tensor (S, ...)): of each seed when it left, or now.
        stops (list of str): why each seed's training ended.
        seconds (float): of all sessions so far.
    """

    def __init__(self, file: MetricsFile, seeds, patience: int, patience_from: int, told: bool):
        self.file, self.seeds = file, list(seeds)
        self.patience, self.patience_from, self.told = patience, patience_from, told
        self.best: dict[str, Tensor] = {}
        self.last: dict[str, Tensor] = {}
        self.lowest = [math.inf] * len(self.seeds)
        self.waits = [0] * len(self.seeds)
        self.stops = ["running"] * len(self.seeds)
        self.seconds_before = 0.0
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall clock of all sessions so far."""
        return self.seconds_before + time.perf_counter() - self._began

    def state_dict(self) -> dict[str, Any]:
        names = ("best", "last", "lowest", "waits", "stops", "seconds")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds_before = state["seconds"]
        for name in ("best", "last", "lowest", "waits", "stops"):
            setattr(self, name, state[name])

    def on_train_start(self, trainer, module):
        ended = {"max_time", "max_steps"}  # by what may be more now
        self.stops = ["running" if stop in ended else stop for stop in self.stops]
        if not self.best:  # a seed whose loss is never finite keeps these
            for held in (self.best, self.last):
                held.update(_weights(module.model))

    def on_validation_end(self, trainer, module):
        active = module.batches.active  # changes below
        rows = module.measured
        weights = _weights(module.model)
        better, leaving = [], []
        for i, (place, row) in enumerate(zip(active, rows, strict=True)):
            self._write(row)
            loss = row["validation_loss"]
            if loss < self.lowest[place]:
                self.lowest[place], self.waits[place] = loss, 0
                better.append(i)
            elif trainer.global_step > self.patience_from:
                self.waits[place] += 1
            if not math.isfinite(loss):
                leaving.append(i)
                self.stops[place] = "diverged"
            elif self.patience and self.waits[place] >= self.patience:
                leaving.append(i)
                self.stops[place] = "patience"
        for name, values in weights.items():
            self.last[name][active] = values
            self.best[name][[active[i] for i in better]] = values[better]
        self._tell(trainer, rows)
        if len(leaving) == len(active):
            trainer.should_stop = True
        elif leaving:
            staying = [i for i in range(len(active)) if i not in leaving]
            module.keep(staying, trainer.optimizers[0])
        if trainer.should_stop and len(leaving) < len(active):
            stop = "max_steps" if trainer.global_step >= module.steps else "max_time"
            for place in module.batches.active:
                self.stops[place] = stop

    def _write(self, row: dict[str, Any]) -> None:
        self.file.append(
            {
                name: value if not isinstance(value, float) or math.isfinite(value) else None
                for name, value in (row | {"seconds": round(self.seconds, 3)}).items()
            }
        )

    def _tell(self, trainer, rows: list[dict[str, Any]]) -> None:
        if not self.told:
            return
        loss, kept, finished = (
            sum(row[name] for row in rows) / len(rows)
            for name in ("validation_loss", "ood_rule_1", "ood_finished")
        )
        line = f"step {trainer.global_step:,}  seeds {len(rows)}  validation {loss:.5f} nats/target"
        if not math.isnan(finished):  # there are prompts out of distribution
            line += f"  OOD R1 {kept:.3f} of the {finished:.2f} that finish"
        print(f"{line}  {self.seconds:,.0f} s", file=sys.stderr, flush=True)


def _weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """Copies of a stack's parameters on the CPU."""
    return {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters()}
