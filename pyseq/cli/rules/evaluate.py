"""`pyseq rules evaluate`: a trained stack scored again."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from pyseq.cli import flags
from pyseq.cli.evaluation_table import print_table

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
            config.model, grammar=config.grammar, prompt_length=config.prompt_length,
            device=config.device,
        )  # fmt: skip
    )
    return 0


def print_evaluated(evaluated: "Evaluated") -> None:
    """Print the scores of seeds and ensemble beside what they are to be held against."""
    from pyseq.analysis.rules import METRICS
    from pyseq.analysis.rules.published import PUBLISHED
    from pyseq.analysis.rules.table import TITLES
    from pyseq.cli.rules.train import SHORT_TITLES, compact

    config = evaluated.config
    published = PUBLISHED.get((evaluated.grammar.name, config.model), {})
    seeds = config.all_seeds
    head = ("", *(f"seed {n}" for n in seeds), "mean", "ensemble", "published",
            *evaluated.references)  # fmt: skip
    losses = [f"{loss:.4f}" for loss in evaluated.losses]
    mean = sum(evaluated.losses) / len(losses)
    loss_published = compact(published.get("validation_loss"), "validation_loss")
    rows = [[SHORT_TITLES["validation_loss"], *losses, f"{mean:.4f}", "", loss_published, "", ""]]
    for metric in METRICS:
        shares = [getattr(scores, metric) for scores in evaluated.scores]
        rows.append(
            [
                SHORT_TITLES.get(metric, TITLES[metric]),
                *(f"{share:.3f}" for share in shares),
                f"{sum(shares) / len(shares):.3f}",
                f"{getattr(evaluated.ensemble, metric):.3f}",
                compact(published.get(metric), metric),
                *(f"{r[metric]:.3f}" if metric in r else "" for r in evaluated.references.values()),
            ]
        )
    inside, outside = evaluated.prompts
    title = (
        f"{config.model} on {evaluated.grammar.name}, length {config.max_length}, weights:"
        f" {evaluated.weights}; {inside} prompts in and {outside} out of distribution"
    )
    print_table(Console(highlight=False), title, head, rows)
    print(f"floor of the loss: {evaluated.floor:.5f} nats per target")
    print("shares are of the completions that finish, and 0 where none does; published: the best of"
          " each history")  # fmt: skip
    if config.max_length != 256:
        print(f"published runs had words of up to 256 symbols, these of {config.max_length}")
