"""A learning rate for a stack, found by a short trial in which it grows from step to step."""

import copy
import dataclasses
import math

import numpy as np
import torch

from pyseq.data.durable_file import replace_file
from pyseq.training.lightning_trainer import quietly
from pyseq.training.rate_finder import CURVE, DIVERGED, RATES, fastest_fall
from pyseq.training.rules.module import RuleTraining
from pyseq.training.rules.run import RulesRun, make_rules_trainer

BITS = 1 / math.log(2)  # per nat


class _Trial(RuleTraining):
    """A training whose rate is one of RATES after the other, until its loss is too high."""

    def __init__(self, *args):
        super().__init__(*args)
        self.bits: list[float] = []  # before each step, the mean over seeds

    def _rate(self, step: int) -> float:
        return float(RATES[min(step, len(RATES) - 1)] / RATES[0])

    def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
        self.bits.append(float(self._loss.mean()) * BITS)
        self._loss.zero_()
        if not self.bits[-1] < DIVERGED * self.bits[0]:  # also if it is NaN
            self.trainer.should_stop = True


def found_rate(run: RulesRun) -> tuple[float, str]:
    """The rate at which the stack's mean loss falls fastest, and a sentence about it.

    The trial works on copies: weights, random state and batches stay as they were. Its curve goes
    to lr_find.csv in the run folder. Where the loss never falls below what guessing evenly costs,
    the rate stays what `--lr` says.

    Args:
        run (RulesRun): what is to be trained; its folder exists.

    Returns:
        tuple (float, str): the rate for `--lr`.

    Source: Smith 2015, Cyclical learning rates for training neural networks, section 3.3 (arXiv
        1506.01186); the rate grows geometrically here.
    """
    bits = _trial(run)
    rates = RATES[: len(bits)]
    lines = ["lr,bits", *(f"{rate:.6g},{loss:.6g}" for rate, loss in zip(rates, bits, strict=True))]
    curve = run.folder / CURVE
    replace_file(curve, lambda path: path.write_text("\n".join(lines) + "\n"))
    found = fastest_fall(rates, np.array(bits), math.log2(run.language.classes))
    tried = f"{len(rates)} trial steps from {rates[0]:.3g} to {rates[-1]:.3g}; {curve}"
    if found is None:
        rate, why = run.config.lr, "as given: the loss never fell clearly below even guessing in"
    else:
        rate, why = float(f"{found:.2e}"), "at which the loss fell fastest in"
    return rate, f"learning rate: {rate:g}, {why} {tried}"


def _trial(run: RulesRun) -> list[float]:
    """Mean loss before each of the trial's steps, bits per target."""
    config = dataclasses.replace(run.config, lr=float(RATES[0]))
    batches = copy.copy(run.batches)
    batches.steps = len(RATES)
    devices = [run.device] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(run.config.first_seed)
        trial = _Trial(copy.deepcopy(run.model), config, batches, run.language, run.validation)
        quietly(make_rules_trainer(run.device, limit_val_batches=0).fit, trial, batches)
    return trial.bits
