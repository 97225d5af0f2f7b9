"""Everything `pyseq train` can be told; flags, help, saved YAML and report come from here."""

import dataclasses
import math
import os
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from pyseq.errors import UserError


@dataclass(frozen=True)
class TrainConfig:
    """Train a model to predict the next symbol of a u16 stream."""

    u16_path: str
    """The stream: a raw little-endian u16 file, or a glob of shards."""
    ckpt: str = "model.pt"
    """Where the best model goes (a safetensors file); the run folder is this without its suffix
    plus .run/."""

    model: Literal["baseline", "supercharged"] = "baseline"
    """Which model."""
    d_model: int = 256
    """Width of the model."""
    nlayers: int = 4
    """Decoder blocks (supercharged: of the decoder over patches)."""
    nhead: int = 8
    """Query heads."""
    nhead_kv: int | None = None
    """Key and value heads; default: as many as query heads (supercharged: half as many)."""
    dim_ff: int = 1024
    """Feed-forward width without its gate; the gated layer has two thirds of it."""
    dropout: float | None = None
    """Dropout probability; default: 0 (supercharged: .1)."""

    patch: int = 16
    """Supercharged: symbols that the decoder over patches reads at once."""
    local_width: int = 128
    """Supercharged: width of the decoder inside the patch."""
    local_layers: int = 1
    """Supercharged: blocks of the decoder inside the patch."""
    local_reach: int = 4
    """Supercharged: symbols before it that each place inside the patch reads at once, by a short
    convolution, across borders of patches; 1: only the one just before it."""
    memory: int = 20
    """Supercharged: learned memory tokens; 0: none."""
    memory_read: Literal["prefix", "gate"] = "prefix"
    """Supercharged: memory tokens in front of the patches, or read by each through a gate."""
    hard: bool = True
    """Supercharged: even blocks attend to one position only."""
    hard_train: Literal["soft", "straight_through"] = "straight_through"
    """Supercharged: how those blocks are trained."""
    hard_serve: Literal["hard", "adaptive", "soft"] = "hard"
    """Supercharged: what those blocks compute after training, and in validation."""
    fourier: bool = True
    """Supercharged: causal Fourier mixing after every third block."""
    smoothing: bool = False
    """Supercharged: exponential smoothing with trend after the last block."""
    scale_bins: tuple[int, ...] = (256, 1024, 4096)
    """Supercharged, values: the loss also scores the alphabet in so many bins."""
    scale_weight: float = 0.1
    """Supercharged: weight of the mean loss over those bins; 0: none."""
    horizons: int = 4
    """Supercharged: auxiliary heads predict the symbols 2 to this many steps ahead; 1: none."""
    pattern_weight: float = 0.03
    """Supercharged: weight of the mean loss of those heads."""
    label_smoothing: float = 0.0
    """Supercharged: share of each target spread over all classes, in training."""
    stochastic_depth: float = 0.0
    """Supercharged: probability that training skips the last block; earlier ones less."""

    kind: Literal["auto", "tokens", "values"] = "auto"
    """Whether magnitude means something; auto asks the JSON, then the data."""
    alphabet: int | None = None
    """Declared alphabet size; default: the JSON's, or the highest symbol + 1."""
    bins: int | Literal["auto", "none"] = "auto"
    """Classes that the alphabet is divided into; auto: 1024 for values with more symbols than
    that, else none (every symbol is a class)."""
    binning: Literal["uniform", "adaptive"] = "uniform"
    """Bins of equal width over the alphabet, or (values only) of about equally many training
    symbols."""
    augment_noise: float = 0.0
    """Values: standard deviation, in symbols, of the noise that training adds to what the model
    reads, before binning."""
    augment_replace: float = 0.0
    """Tokens: share of the symbols it reads that training replaces by ones drawn from the training
    range's frequencies."""
    augment_mask: float = 0.0
    """Tokens: share of the symbols it reads that training hides."""
    io: Literal["mmap", "pread", "ram", "gpu"] = "mmap"
    """How the file is read; gpu: once, into the memory of the GPU that the model runs on."""
    split: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of the stream for training, validation and test, in this order."""
    max_samples: int | None = None
    """Train on this many symbols only, from the start of the training range."""
    seq_len: int = 256
    """Symbols of context."""
    stride: int | None = None
    """Distance between training windows; default: seq_len, so an epoch sees each symbol once."""

    epochs: int = 1
    """Passes over the training windows."""
    max_steps: int | None = None
    """Stop after this many optimiser steps."""
    max_time: float | None = None
    """Stop after this many minutes; the schedule then follows the clock."""
    batch: int = 64
    """Windows per batch."""
    gradient_accumulation: int = 1
    """Batches per optimiser step."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """Optimiser; sgd has momentum .9."""
    lr: float = 1e-3
    """Learning rate."""
    lr_find: bool = False
    """Look for a learning rate by a short trial first, and train with that one instead of --lr;
    the peak of onecycle will be that rate."""
    schedule: Literal["cosine", "onecycle", "constant"] = "cosine"
    """Learning-rate schedule."""
    warmup_ratio: float = 0.05
    """Share of the optimiser steps in which the rate rises."""
    weight_decay: float = 0.01
    """Decay of matrices (not of gains and temperatures)."""
    clip: float = 1.0
    """Largest gradient norm; 0 does not clip."""
    use_amp: bool = False
    """Compute in bfloat16 where it is safe (autocast) and the machine has products of it."""
    compile: bool = False
    """Compile the model with torch.compile."""

    eval_every: int = 500
    """Optimiser steps between validations."""
    eval_symbols: int = 100_000
    """Symbols scored at each validation, and in the final test."""
    patience: int | None = None
    """Stop after this many validations without improvement."""
    save_every: int = 500
    """Optimiser steps between checkpoints of the training state."""
    log_every: int = 20
    """Optimiser steps between rows of metrics."""
    resume: Literal["auto", "never"] = "never"
    """auto: go on from the run folder's last checkpoint, if there is one; settings must agree."""
    ignore_fingerprint: bool = False
    """Resume although the stream is not the one the training began with."""

    seed: int = 0
    """Seed of weights, order of windows and dropout."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""
    threads: int | None = None
    """CPU threads to compute with; default: torch's choice, one per core. They wait for each other
    many times a step, so where other programs keep a core busy, fewer can be many times faster."""
    workers: int = 0
    """Threads that gather batches (there are no worker processes); 0: as many as torch uses."""

    def check(self) -> None:
        """Raise UserError, one sentence, if a number makes no sense."""
        at_least_one = ("seq_len", "batch", "epochs", "gradient_accumulation", "eval_every",
                        "eval_symbols", "save_every", "log_every")  # fmt: skip
        for name in at_least_one:
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}; at least 1 fits")
        for name in ("stride", "max_steps", "max_samples", "patience", "threads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}; at least 1 fits")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise UserError(f"--lr {self.lr}; a positive rate fits")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"--seed {self.seed}; 0 to 2^63 - 1 fits")
        if not 0 <= self.warmup_ratio <= 1:
            raise UserError(f"--warmup_ratio {self.warmup_ratio}; 0 to 1 fits")
        if self.max_time is not None and not 0 < self.max_time < math.inf:
            raise UserError(f"--max_time {self.max_time}; a positive number of minutes fits")
        for name in ("clip", "weight_decay", "workers", "augment_noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"--{name} {getattr(self, name)}; 0 or more fits")
        for name in ("augment_replace", "augment_mask"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}; 0 to below 1 fits")
        if self.augment_replace + self.augment_mask >= 1:
            raise UserError(
                f"--augment_replace {self.augment_replace} and --augment_mask {self.augment_mask}"
                " leave nothing as it was; a sum below 1 fits"
            )

    def to_dict(self) -> dict[str, Any]:
        """All settings by name."""
        return dataclasses.asdict(self)

    def to_yaml(self) -> str:
        """YAML that `--config` reads back."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in vars(self).items()}
        return yaml.safe_dump(values, sort_keys=False)


def threads_to_use(workers: int) -> tuple[int | None, str | None]:
    """Gather threads for `--workers`, and a sentence if it had to be capped."""
    if workers == 0:
        return None, None
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if workers <= cores:
        return workers, None
    return cores, f"--workers {workers} is capped at this machine's {cores} cores"
