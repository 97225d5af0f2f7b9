"""`pyseq rules sweep`: trainings over sizes, rates and dropouts, ranked."""

import sys
from dataclasses import dataclass
from typing import Any

import tyro

from pyseq.cli import flags
from pyseq.cli.rules.narrow_table import print_narrow
from pyseq.errors import UserError
from pyseq.training.rules.config import RulesConfig

Lists = tyro.conf.UseAppendAction[tuple[str, ...]]


@dataclass(frozen=True)
class SweepConfig(RulesConfig):
    """Train every combination of some settings and rank them by rule extrapolation at the lowest
    validation loss. Values are comma-separated, or a flag is repeated. What has ended is not
    trained again: the same command goes on. Time is set by --budget for all, or by --max_time for
    each."""

    lrs: Lists = ()
    """Learning rates; --lr_find looks for one instead."""
    sizes: Lists = ()
    """Widths: of the Transformer, of the LSTM's hidden state, of Linear's embedding."""
    dropouts: Lists = ()
    """Dropouts of the Transformer or the LSTM."""
    vary: Lists = ()
    """Any other setting: NAME=VALUES, such as transformer.layers=5,7 or optimizer=adamw,sgd."""
    budget: float | None = None
    """Minutes for all; each combination gets an equal share."""


def main(arguments: list[str]) -> int:
    """Train and print the ranking."""
    config = flags.parse(SweepConfig, "rules sweep", arguments)
    from pyseq.training.rules.sweep import parse_varied, ranking, run_trials, trials

    if config.budget is not None and not config.budget > 0:
        raise UserError(f"--budget {config.budget}; a positive number of minutes fits")
    base = RulesConfig(**{name: v for name, v in vars(config).items() if name in _SHARED})
    varied = parse_varied(base.model, _lists(config))
    ended = run_trials(
        trials(base, varied, config.budget), lambda line: print(line, file=sys.stderr, flush=True)
    )
    columns = ("settings", "val. loss", "OOD R1", "finished", "best", "steps", "minutes")
    rows = [
        [row["name"], _number(row["validation_loss"], 5), _number(row["ood_rule_1"]),
         _number(row["ood_finished"]), _number(row["best_ood_rule_1"]), f"{row['steps']:,}",
         f"{row['minutes']:.1f}"]
        for row in ranking(ended)
    ]  # fmt: skip
    title = f"{base.model} on {base.grammar}, means over {base.seeds} seeds"
    print_narrow(title, columns, rows)
    print("at each seed's lowest validation loss; best: OOD R1 over each seed's history, which"
          " favours noise")  # fmt: skip
    return 0


_SHARED = set(RulesConfig.__dataclass_fields__)


def _lists(config: SweepConfig) -> list[tuple[str, str]]:
    found = [
        (name, text) for name in ("lrs", "sizes", "dropouts") for text in getattr(config, name)
    ]
    for text in config.vary:
        name, equals, values = text.partition("=")
        if not equals:
            raise UserError(f"--vary {text}; NAME=VALUE,VALUE fits")
        found.append((name.replace("-", "_"), values))
    return found


def _number(value: Any, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"
