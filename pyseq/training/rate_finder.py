"""A learning rate found by a short trial in which it grows from step to step."""

import copy
import csv
import dataclasses
import math
import sys

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from pyseq.data.durable_file import replace_file
from pyseq.training.batches import TrainingBatches
from pyseq.training.lightning_module import SequenceTraining
from pyseq.training.lightning_trainer import make_trainer, quietly
from pyseq.training.run import Run
from pyseq.training.schedules import peak_factor

# Lightning's own finder works on the training itself, and takes the slope of the loss over the rate
# instead of its logarithm, by which noise at the smallest rates always looks steepest.
RATES = np.geomspace(1e-6, 10.0, 100)  # one for each step of the trial
DIVERGED = 2.0  # times the first loss
SMOOTHING = 5.0  # steps; standard deviation of the bell that the curve is smoothed with
LEAST_FALL = 0.01  # of what guessing evenly costs; less may be chance
CURVE = "lr_find.csv"


def with_found_rate(run: Run) -> Run:
    """The run with the learning rate that a trial finds, if `--lr_find` asks for one.

    The trial works on copies: weights, random state, data and metrics stay as they were, so that
    the training that follows is the one that `--lr` with the found rate gives. It prints what it
    found and leaves its curve in the run folder. Where the loss never falls below what guessing
    evenly costs, `--lr` is kept, and that is said.

    Args:
        run (Run): what is to be trained; its folder exists.

    Returns:
        Run: with the rate in its config, which asks for no search any more.

    Source: Smith 2015, Cyclical learning rates for training neural networks, section 3.3 (arXiv
        1506.01186): there the rate grows linearly, here geometrically, as it spans decades.
    """
    config = run.config
    if not config.lr_find:
        return run
    print(f"--lr_find: up to {len(RATES)} trial steps", file=sys.stderr, flush=True)
    bits = _trial(run)
    rates = RATES[: len(bits)]
    replace_file(run.folder / CURVE, lambda path: _write(path, rates, bits))
    chance = math.log2(run.binning.classes)
    found = fastest_fall(rates, bits, chance)
    tried = f"{len(rates)} trial steps from {rates[0]:.3g} to {rates[-1]:.3g}"
    if found is None:
        rate = config.lr
        why = f"as given: in {tried} the loss never fell clearly below the {chance:.3f} bits/symbol"
        why += " that guessing evenly costs"
    else:
        peak = peak_factor(config.schedule)
        rate = float(f"{found / peak:.2e}")  # what is printed is what is used
        why = f"at which the loss fell fastest in {tried}"
        if peak != 1:
            why = f"since {config.schedule} rises to {peak:g} times that, {why}"
    print(f"learning rate: {rate:g}, {why}; {run.folder / CURVE}", flush=True)
    config = dataclasses.replace(config, lr=rate, lr_find=False)
    card = dataclasses.replace(run.card, training=config.to_dict())
    return dataclasses.replace(run, config=config, card=card)


def fastest_fall(rates: np.ndarray, bits: np.ndarray, chance: float) -> float | None:
    """The rate at which the loss fell fastest per step, where it fell to less than chance.

    Losses above chance, at which an untrained model starts and a diverging one ends, count as
    chance: to become as good as guessing is no learning.

    Args:
        rates (array (N,), float): of each step, growing geometrically.
        bits (array (N,), float): loss before each step, bits/symbol; may be inf or NaN.
        chance (float): what guessing evenly costs, bits/symbol.

    Returns:
        float: one of the rates, or None: nothing was learned in the trial.
    """
    smooth = gaussian_filter1d(np.fmin(bits, chance), SMOOTHING, mode="nearest")
    if len(bits) < 2 or not smooth.min() < (1 - LEAST_FALL) * chance:
        return None
    return float(rates[np.argmin(np.gradient(smooth))])


class _Trial(SequenceTraining):
    """A training whose rate is one of RATES after the other, until its loss is too high."""

    def __init__(self, *args):
        super().__init__(*args)
        self.bits: list[float] = []  # before each optimiser step

    def _rate(self, step: int) -> float:
        return float(RATES[min(step, len(RATES) - 1)] / RATES[0])

    def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
        if self.trainer.global_step == len(self.bits):
            return  # accumulating
        self.bits.append(float(self.train_bits.compute()))
        self.train_bits.reset()
        if not self.bits[-1] < DIVERGED * self.bits[0]:  # also if it is NaN
            self.trainer.should_stop = True


def _trial(run: Run) -> np.ndarray:
    """Loss in bits/symbol before each step with growing rates; the run stays as it was."""
    config = dataclasses.replace(run.config, lr=float(RATES[0]), compile=False)
    model = copy.deepcopy(run.model)
    trial = _Trial(model, config, run.binning, len(RATES), run.card.data, run.augmentation)
    batches = TrainingBatches(
        copy.copy(run.batches.loader), len(RATES) * config.gradient_accumulation
    )
    trainer = make_trainer(
        config, run.device, logger=False, enable_progress_bar=False, limit_val_batches=0
    )
    devices = [run.device] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        quietly(trainer.fit, trial, batches)
    return np.array(trial.bits)


def _write(path, rates: np.ndarray, bits: np.ndarray) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("lr", "bits"))
        writer.writerows(zip(rates.tolist(), bits.tolist(), strict=True))
