"""What `pyseq fusion train` can be told; flags, help, saved YAML and record come from here."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from pyseq.errors import UserError
from pyseq.models.fusion.config import FusionConfig

# Each training of a run has a seed of its own below 2^32, see `ensembles.own_seed`.
MOST_SEED, MOST_FOLDS = 400_000, 999


@dataclass(frozen=True)
class TrainFusionConfig:
    """Train a classifier over several views of each object, alone or as one of many, and score the
    test part of the data once, at the end."""

    data: str = "digits"
    """digits, wine, breast_cancer, synthetic, or an .npz: one array per modality, `label`, and
    perhaps `group`. Whole numbers in rows are tokens; numbers that are no ids need a dtype of
    floats."""
    out: str | None = None
    """The run folder; default: DATA-STRATEGY. What an earlier run left there is replaced."""
    strategy: Literal["single", "k_fold", "ensemble", "super_ensemble"] = "single"
    """What is trained. single: one model; k_fold: --folds models, each without one fold;
    ensemble: a model for each of --widths, each with its own seed and its own validation part;
    super_ensemble: all these, and one more on everything but the test part."""

    count: int | None = None
    """Synthetic data: objects; default: the generator's."""
    missing: float | None = None
    """Synthetic data: share of views that are missing."""
    duplicates: int | None = None
    """Synthetic data: grouped near-copies of each object."""

    epochs: int = 9
    """Passes over the training part."""
    batch: int = 128
    """Objects per batch; the last batch of an epoch has what is left."""
    lr: float = 7e-4
    """Highest learning rate of AdamW."""
    weight_decay: float = 0.01
    """Decay of all parameters."""
    clip: float = 1.0
    """Largest gradient norm; 0 does not clip."""
    schedule: Literal["cyclic", "cosine", "constant"] = "cyclic"
    """After a linear rise from --min_factor of the rate: cosine cycles with falling peaks, one half
    cosine to that factor, or nothing more."""
    warmup_epochs: int = 1
    """Epochs of the rise."""
    cycle_epochs: int = 4
    """Epochs of a cycle; training ends best with one."""
    min_factor: float = 0.01
    """Lowest rate as a share of --lr."""
    decay: float = 0.8
    """A cycle's peak as a share of the one before."""

    label_smoothing: float = 0.2
    """Share of each target spread over all classes, in training."""
    focal_gamma: float = 0.0
    """Training weighs a class that the model gives probability p by (1 - p) to this power."""
    mixup_alpha: tuple[float, float] | None = None
    """Mixup: the range from which each batch draws its alpha, such as 0.1 0.4; all modalities and
    the label are mixed by one permutation and one weight."""

    snapshots: bool = False
    """Predict by the weights at the ends of the cycles, averaged, not by one state."""
    tta: int = 0
    """Predict by so many different views of each object, 2 or more, averaged; 0: by the object
    itself."""
    mc_dropout: int = 0
    """Predict by so many passes with dropout on, averaged; 0: dropout off, one pass."""
    calibrate: bool = True
    """Divide log-probabilities by a temperature that fits objects that were not trained on."""
    folds: int = 5
    """Folds of k_fold and super_ensemble; objects of one group stay together."""
    widths: tuple[int, ...] = (512, 384, 256)
    """Widths of the members of ensemble and super_ensemble, one each; --model.width is that of all
    other models."""
    weights: Literal["uniform", "fitted"] = "uniform"
    """Weights of super_ensemble's parts: equal, or such that out-of-fold predictions get the
    highest likelihood."""
    average: Literal["probabilities", "logits"] = "probabilities"
    """What is averaged over models; logits: logarithms of probabilities."""

    robustness: bool = True
    """Also predict the test part with each modality hidden and with noise, for the report."""
    save: bool = True
    """Keep the models in the run folder; 70 MB for each of width 512."""

    seed: int = 0
    """Of weights, batches, dropout, mixup, folds and members' parts; up to 400000."""
    split_seed: int = 0
    """Of the data, where they are generated, and of the split into training, validation and
    test."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""
    threads: int | None = None
    """CPU threads to compute with; default: torch's choice."""

    model: FusionConfig = field(default_factory=FusionConfig)

    def resolved(self) -> "TrainFusionConfig":
        """The same with a folder; raises UserError as `check` does."""
        self.check()
        name = self.data.rpartition("/")[2].removesuffix(".npz")
        return dataclasses.replace(self, out=self.out or f"{name}-{self.strategy}")

    def check(self) -> None:
        """Raise UserError, one sentence, if a number makes no sense."""
        for name in ("count", "epochs", "batch", "cycle_epochs", "threads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}; at least 1 fits")
        for name in ("weight_decay", "clip", "focal_gamma", "tta", "mc_dropout", "warmup_epochs",
                     "seed", "split_seed"):  # fmt: skip
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"--{name} {getattr(self, name)}; 0 or more fits")
        if self.seed > MOST_SEED or self.folds > MOST_FOLDS:
            raise UserError(
                f"--seed {self.seed} --folds {self.folds}; up to {MOST_SEED} and {MOST_FOLDS} fit"
            )
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"--label_smoothing {self.label_smoothing}; 0 to below 1 fits")
        if not 0 < self.lr < math.inf:
            raise UserError(f"--lr {self.lr}; a positive rate fits")
        if not 0 <= self.min_factor <= 1:
            raise UserError(f"--min_factor {self.min_factor}; 0 to 1 fits")
        if not 0 < self.decay <= 1:
            raise UserError(f"--decay {self.decay}; above 0 to 1 fits")
        if self.mixup_alpha is not None:
            low, high = self.mixup_alpha
            if not 0 < low <= high < math.inf:
                raise UserError(f"--mixup_alpha {low} {high}; a rising range above 0 fits")
        self._check_parts()

    def _check_parts(self) -> None:
        if self.folds < 2:
            raise UserError(f"--folds {self.folds}; at least 2 fit")
        if not self.widths or any(w < 1 or w % self.model.heads for w in self.widths):
            raise UserError(
                f"--widths {' '.join(map(str, self.widths)) or '()'}; multiples of the"
                f" {self.model.heads} heads fit"
            )
        if self.snapshots and self.schedule != "cyclic":
            raise UserError(f"--snapshots needs cycles, and --schedule {self.schedule} has none")
        if self.snapshots and self.epochs < self.warmup_epochs + self.cycle_epochs:
            raise UserError(
                f"--snapshots: no cycle ends within {self.epochs} epochs; --epochs"
                f" {self.warmup_epochs + self.cycle_epochs} and more fit"
            )
        if self.tta == 1:
            raise UserError("--tta 1: one view is the object itself; 0, or 2 and more, fit")
        if self.mc_dropout and not self.model.dropout:
            raise UserError(
                f"--mc_dropout {self.mc_dropout}: passes without dropout are all alike;"
                " --model.dropout above 0 fits"
            )
        if self.weights == "fitted" and self.average == "logits":
            raise UserError(
                "--weights fitted is for averaged probabilities; --average logits needs uniform"
            )

    @property
    def techniques(self) -> tuple[str, ...]:
        """Names of what is done beyond plain training of one model."""
        named = {
            "cross-modal attention": self.model.fusion == "attention",
            "label smoothing": self.label_smoothing > 0,
            "focal loss": self.focal_gamma > 0,
            "mixup": self.mixup_alpha is not None,
            "cyclic cosine": self.schedule == "cyclic",
            "snapshots": self.snapshots,
            "test-time augmentation": self.tta > 0,
            "MC-dropout": self.mc_dropout > 0,
            "temperature": self.calibrate,
        }
        return tuple(name for name, used in named.items() if used)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "TrainFusionConfig":
        """The settings that `to_dict` wrote, also where JSON or YAML has made lists of tuples."""
        known: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in values.items()
        }
        return TrainFusionConfig(**(known | {"model": FusionConfig(**known["model"])}))

    def to_dict(self) -> dict[str, Any]:
        """All settings by name, with JSON's and YAML's types."""
        values = dataclasses.asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    def to_yaml(self) -> str:
        """YAML that `--config` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)
