"""Everything `pyseq rules train` can be told; flags, help, saved YAML and record come from here."""

import dataclasses
import itertools
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from pyseq.data.grammars import find_grammar
from pyseq.errors import UserError
from pyseq.models.rules import MODELS, LinearConfig, LSTMConfig, TransformerConfig
from pyseq.models.rules.options import check_choices

# Of the paper, with nested and with free brackets.
BRACKETS = ("parentheses_and_brackets", "not_nested_parentheses_and_brackets")


@dataclass(frozen=True)
class RulesConfig:
    """Train a model on the words of a grammar, several seeds at once, and see whether it keeps one
    rule of it where a prompt has broken the other. The defaults are those of the paper, but for the
    steps that the schedule counts."""

    grammar: str = "aNbN"
    """Which language: a name, or a label of the paper (L1 to L6)."""
    model: str = "transformer"
    """Which model: transformer, lstm or linear; the flags that begin with its name are its own."""
    out: str | None = None
    """The run folder; default: GRAMMAR-MODEL-LENGTH."""

    max_length: int = 256
    """Symbols of the longest word."""
    num_train: int | None = None
    """Training words of each seed, drawn anew for each; default: 15000 (Dyck and CS-Dyck: 512).
    Grammars whose words are enumerated have every word once and ignore it."""
    num_validation: int = 512
    """Validation words of each seed; of enumerated grammars again every word."""
    prompt_length: int | None = None
    """Symbols of a prompt; default: the paper's, 8 (brackets: 2 and 6), of aNbNcN 5."""
    seeds: int = 5
    """How many seeds are trained, as one stacked model."""
    first_seed: int = 0
    """The lowest seed; the others follow."""

    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """Optimiser; sgd has momentum .9."""
    lr: float = 2e-3
    """Learning rate."""
    lr_find: bool = False
    """Look for a learning rate by a short trial first, and train with that one instead of --lr."""
    weight_decay: float = 0.01
    """Decay of all parameters."""
    batch: int = 128
    """Words per batch and seed; the last batch of an epoch has what is left."""
    schedule: Literal["inverse_sqrt", "constant", "cosine"] = "inverse_sqrt"
    """Learning-rate schedule, after a linear rise."""
    warmup: int = 1000
    """Units in which the rate rises, starting from 0."""
    schedule_unit: Literal["step", "epoch"] = "step"
    """What the schedule and its warm-up count; the official code counts epochs."""
    validate_every: int | None = None
    """Units between validations; default: 250 (bbaN: 100)."""
    validate_unit: Literal["step", "epoch"] = "step"
    """What --validate_every counts; the official code counts epochs. An epoch of an enumerated
    grammar with at most --batch words is one step."""
    patience: int = 25
    """A seed leaves the stack after this many validations without a lower validation loss; 0:
    never. With a curriculum or progressive training they count from its last phase on."""
    max_steps: int = 50_000
    """Optimiser steps at the most; --resume auto goes on to more, except with --schedule cosine."""
    max_time: float | None = None
    """Minutes of training at the most; cosine then follows the clock."""
    clip: float = 0.0
    """Largest gradient norm of a seed; 0 does not clip, as the official trainer."""
    pad_targets: Literal["auto", "count", "ignore"] = "auto"
    """Whether the training loss counts PAD targets; auto: as published, for all models but Linear.
    The validation loss counts them all the same."""
    label_smoothing: float = 0.0
    """Share of each target spread over all classes, in training."""
    focal_gamma: float = 0.0
    """Training weighs a target that the model gives probability p by (1 - p) to this power."""
    auxiliary_weight: float = 0.0
    """Weight of the counting loss: an extra layer on the model's last hidden state says, after
    every symbol, which symbols have occurred an even number of times and which pairs equally
    often."""
    augment: float = 0.0
    """Share of the symbols it reads that training replaces by random ones; targets stay."""

    curriculum_lengths: tuple[int, ...] = ()
    """Curriculum: longest word of each early phase, rising."""
    curriculum_epochs: tuple[int, ...] = ()
    """Curriculum: the epoch at which each of those phases ends; then come all words."""
    progressive: tuple[int, ...] = ()
    """Progressive training: two epochs. Up to the first only words; up to the second also right
    completions of half of the out-of-distribution prompts; afterwards these completions alone, at a
    tenth of the rate. Only the other half of the prompts is tested."""
    multi_task: tuple[str, ...] = ()
    """Other grammars that the model learns too, with one vocabulary and a task token each; every
    batch has as many words of each."""
    adversarial: bool = False
    """A diagnostic: also train on the test's out-of-distribution prompts with completions that
    break R1 by one symbol."""
    oracle: bool = False
    """An upper bound: also train on the test's out-of-distribution prompts with right
    completions."""

    resume: Literal["auto", "never"] = "never"
    """auto: go on from the run folder's last state, if there is one; settings must agree."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""
    threads: int | None = None
    """CPU threads to compute with; default: torch's choice."""

    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    lstm: LSTMConfig = field(default_factory=LSTMConfig)
    linear: LinearConfig = field(default_factory=LinearConfig)

    @property
    def model_config(self) -> Any:
        """The settings of the model that is trained."""
        return getattr(self, self.model)

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds by number."""
        return tuple(range(self.first_seed, self.first_seed + self.seeds))

    @property
    def strategies(self) -> tuple[str, ...]:
        """Names of what this training does beyond plain training on words."""
        named = {
            "curriculum": bool(self.curriculum_lengths),
            "progressive": bool(self.progressive),
            "multi-task": bool(self.multi_task),
            "adversarial": self.adversarial,
            "oracle": self.oracle,
            "label smoothing": self.label_smoothing > 0,
            "focal loss": self.focal_gamma > 0,
            "counting loss": self.auxiliary_weight > 0,
            "augmentation": self.augment > 0,
        }
        return tuple(name for name, used in named.items() if used)

    def resolved(self) -> "RulesConfig":
        """The same with full names and a folder; raises UserError as `check` does."""
        grammar = find_grammar(self.grammar)
        others = tuple(find_grammar(name).name for name in self.multi_task)
        if self.model not in MODELS:
            raise UserError(f"--model {self.model}; known: {', '.join(MODELS)}")
        out = self.out or f"{grammar.name}-{self.model}-{self.max_length}"
        length = grammar.prompt_length if self.prompt_length is None else self.prompt_length
        train = 512 if grammar.name in BRACKETS else 15_000
        every = 100 if grammar.name == "bbaN" else 250
        pad: Literal["count", "ignore"] = "ignore" if self.model == "linear" else "count"
        config = dataclasses.replace(
            self,
            grammar=grammar.name,
            multi_task=others,
            out=out,
            prompt_length=length,
            num_train=train if self.num_train is None else self.num_train,
            validate_every=every if self.validate_every is None else self.validate_every,
            pad_targets=pad if self.pad_targets == "auto" else self.pad_targets,
        )
        config.check()
        return config

    def check(self) -> None:
        """Raise UserError, one sentence, if a value makes no sense."""
        check_choices(self)
        for name in ("max_length", "num_train", "num_validation", "prompt_length", "seeds", "batch",
                     "warmup", "validate_every", "max_steps", "threads"):  # fmt: skip
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}; at least 1 fits")
        for name in ("first_seed", "patience", "weight_decay", "clip", "focal_gamma",
                     "auxiliary_weight"):  # fmt: skip
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"--{name} {getattr(self, name)}; 0 or more fits")
        if self.first_seed + self.seeds > 2**32:
            raise UserError(
                f"--first_seed {self.first_seed} with {self.seeds} seeds; seeds below 2^32 fit"
            )
        for name in ("label_smoothing", "augment"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}; 0 to below 1 fits")
        if not 0 < self.lr < math.inf:
            raise UserError(f"--lr {self.lr}; a positive rate fits")
        if self.max_time is not None and not 0 < self.max_time < math.inf:
            raise UserError(f"--max_time {self.max_time}; a positive number of minutes fits")
        if self.prompt_length is not None and self.prompt_length > self.max_length:
            raise UserError(
                f"prompts of {self.prompt_length} symbols are longer than the longest word,"
                f" --max_length {self.max_length}"
            )
        self._check_strategies()

    def _check_strategies(self) -> None:
        lengths, epochs = self.curriculum_lengths, self.curriculum_epochs
        rising = all(a < b for part in (lengths, epochs) for a, b in itertools.pairwise(part))
        if len(lengths) != len(epochs) or not rising or any(n < 1 for n in (*lengths, *epochs)):
            raise UserError(
                f"--curriculum_lengths {_spaced(lengths)} and --curriculum_epochs"
                f" {_spaced(epochs)}; two equally long, rising lists fit"
            )
        if self.progressive and not (
            len(self.progressive) == 2 and 0 <= self.progressive[0] < self.progressive[1]
        ):
            raise UserError(f"--progressive {_spaced(self.progressive)}; two rising epochs fit")
        on_prompts = [name for name in ("progressive", "adversarial", "oracle")
                      if getattr(self, name)]  # fmt: skip
        if len(on_prompts) > 1:
            raise UserError(f"--{' and --'.join(on_prompts)} contradict each other; one fits")
        grammars = [self.grammar, *self.multi_task]
        if len(set(grammars)) < len(grammars):
            raise UserError(f"--multi_task {_spaced(self.multi_task)} repeats a grammar")

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "RulesConfig":
        """The settings that `to_dict` wrote, also where JSON or YAML has made lists of tuples."""
        known: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in values.items()
        }
        model = known["model"]
        return RulesConfig(**(known | {model: MODELS[model](**known[model])}))

    def to_dict(self) -> dict[str, Any]:
        """All settings by name; those of the other models are left out."""
        values = dataclasses.asdict(self)
        return {name: v for name, v in values.items() if name == self.model or name not in MODELS}

    def to_yaml(self) -> str:
        """YAML that `--config` reads back."""
        return yaml.safe_dump(_plain(self.to_dict()), sort_keys=False)


def _plain(value: Any) -> Any:
    """The same with lists for tuples, which YAML has none of."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _spaced(values: tuple) -> str:
    return " ".join(map(str, values)) or "()"
