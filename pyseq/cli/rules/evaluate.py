"""`pyseq rules evaluate`: a trained stack scored again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from pyseq.cli import flags
from pyseq.cli.rules.narrow_table import LEGEND, SHORT_TITLES, print_narrow

if TYPE_CHECKING:
    from pyseq.training.rules.evaluate import Evaluated


@dataclass(frozen=True)
class EvaluateConfig:
    """Complete the prompts of a trained model's grammar, with every seed and with all seeds as one,
    whose probabilities are averaged at every step, and print the scores beside the paper's."""

    model: Annotated[Path, tyro.conf.Positional]
    """A model.pt or last.pt that pyseq rules train wrote."""
    grammar: str | None = None
    """Refuse a model of another grammar; of a multi-task model, which of its grammars to test."""
    prompt_length: int | None = None
    """Symbols of a prompt; default: as in the training."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""


def main(arguments: list[str]) -> int:
    """Score as the flags say."""
    config = flags.parse(EvaluateConfig, "rules evaluate", arguments)
    from pyseq.training.rules.evaluate import evaluate_rules

    print_evaluated(
        evaluate_rules(
            config.model,
            grammar=config.grammar,
            prompt_length=config.prompt_length,
            device=config.device,
        )
    )
    return 0


def print_evaluated(evaluated: "Evaluated") -> None:
    """Print the scores of seeds and ensemble above what they are to be held against."""
    from pyseq.analysis.rules.published import PUBLISHED
    from pyseq.training.rules.published import variant

    config = evaluated.config
    published = PUBLISHED.get((evaluated.grammar.name, config.model), {})
    seeds = [{"validation_loss": loss, **vars(scores)}
             for loss, scores in zip(evaluated.losses, evaluated.scores, strict=True)]  # fmt: skip
    mean = {name: sum(seed[name] for seed in seeds) / len(seeds) for name in COLUMNS}
    rows = [
        *((f"seed {n}", seed) for n, seed in zip(config.all_seeds, seeds, strict=True)),
        ("mean", mean),
        ("ensemble", vars(evaluated.ensemble)),
        (PUBLISHED_ROW, {name: spread.mean for name, spread in published.items()}),
        ("chance", evaluated.references["chance"]),
        ("EOS", evaluated.references["EOS at once"]),
    ]
    inside, outside = evaluated.prompts
    print(
        f"{config.model} on {evaluated.grammar.name}, words of up to {config.max_length} symbols;"
        f" weights: {evaluated.weights}; {inside} prompts in and {outside} out of distribution"
    )
    print_narrow(
        "", ("", *(SHORT_TITLES[name] for name in COLUMNS)), [_cells(*row) for row in rows]
    )
    if said := variant(config):
        print(f"trained with other settings than the published: {said}")
    print(f"EOS: of completions that end at once. {LEGEND}")
    print(f"lowest possible loss: {evaluated.floor:.5f} nats per target")
    if not outside:
        print("no prompt is out of distribution: the grammar has no second rule")
    print("shares are of the completions that finish, and 0 where none does; published: the mean"
          " over seeds of the best of each history")  # fmt: skip
    if config.max_length != 256:
        print(f"published runs had words of up to 256 symbols, these of {config.max_length}")


# What the prompts forbid is left out: out of distribution the whole breaks R2 and is no word.
COLUMNS = ("validation_loss", "id_rule_1", "id_rule_2", "ood_rule_1", "ood_rule_2_completion",
           "id_finished", "ood_finished", "id_grammatical")  # fmt: skip


PUBLISHED_ROW = "published"


def _cells(name: str, shares: Mapping[str, float]) -> list[str]:
    loss_digits = 3 if name == PUBLISHED_ROW else 5  # no more were printed
    shown = {metric: loss_digits if metric == "validation_loss" else 3 for metric in COLUMNS}
    told = {m: f"{shares[m]:.{d}f}" for m, d in shown.items() if m in shares}
    return [name, *("" if told.get(m) == "nan" else told.get(m, "") for m in shown)]
