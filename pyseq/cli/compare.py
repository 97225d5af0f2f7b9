"""`pyseq compare`: the baseline and the supercharged model on one budget, beside each other."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console

from pyseq.cli import flags
from pyseq.cli.train import print_decisions, train_model
from pyseq.training.config import TrainConfig

if TYPE_CHECKING:
    from pyseq.training.comparison import Compared
    from pyseq.training.fit import Outcome

QUICK = "--quick"
Scored = Annotated[int, tyro.conf.arg(aliases=["--samples"])]


@dataclass(frozen=True)
class CompareConfig(TrainConfig):
    """Train the baseline and the supercharged model, one after the other, on the same budget, score
    both on the same held-out symbols, and say which is better, if the symbols show that. Flags that
    begin with "Supercharged:" are for that model only. --quick takes smaller models and one minute
    for each."""

    ckpt: str = "compare.pt"
    """Where the models go: x.pt stands for x.baseline.pt and x.supercharged.pt, each with its run
    folder, and x.run/ for the comparison."""
    model: Annotated[Literal["baseline", "supercharged"], tyro.conf.Fixed, tyro.conf.Suppress] = (
        "baseline"
    )
    """Both are trained."""
    epochs: int = 0
    """Passes over the training windows; 0: as many as --max_time or --max_steps lets happen."""
    max_time: float | None = None
    """Minutes to train each model, validations included; the schedule then follows the clock.
    Default: 2 (--quick: 1), unless --max_steps or --epochs is given."""
    eval_symbols: Scored = 100_000
    """Symbols scored at each validation, and in the final test."""


@dataclass(frozen=True)
class QuickConfig(CompareConfig):
    """Train a small baseline and a small supercharged model, one after the other, for a minute
    each, score both on the same held-out symbols, and say which is better, if the symbols show
    that. --samples counts the symbols to score, --max_samples those to train on."""

    ckpt: str = "quick.pt"
    seq_len: int = 128
    stride: int | None = 1
    batch: int = 16
    d_model: int = 128
    nlayers: int = 3
    nhead: int = 4
    dim_ff: int = 512
    local_width: int = 64
    lr: float = 3e-3
    eval_every: int = 100
    eval_symbols: Scored = 50_000


def main(arguments: list[str]) -> int:
    """Train both as the flags say; prints how they compare and where everything lies."""
    if QUICK in arguments:
        rest = [argument for argument in arguments if argument != QUICK]
        compare(flags.parse(QuickConfig, f"compare {QUICK}", rest), minutes=1)
    else:
        compare(flags.parse(CompareConfig, "compare", arguments), minutes=2)
    return 0


def compare(config: TrainConfig, minutes: float) -> None:
    """Train both models and print what they used, how good they are and what that shows.

    Args:
        config (TrainConfig): the flags, as `comparison.contestants` takes them.
        minutes (float): time for each model where the flags set no limit.
    """
    from pyseq.training import comparison
    from pyseq.training.interruption import TrainingStopped

    configs = comparison.contestants(config, minutes)
    shared = comparison.prepare_both(configs)
    folder = comparison.open_folder(config)
    print_decisions(shared)
    print(f"budget: {comparison.budget(shared.config)}")
    try:
        outcomes = {name: _train(one) for name, one in configs.items()}
        compared = comparison.judge_both(outcomes)
        report = comparison.write_comparison(folder, compared)
    except TrainingStopped as stop:
        advice = "to go on with the comparison: the same flags and --resume auto"
        raise TrainingStopped(stop.received, stop.what, advice, stop.exit_code) from None
    print_comparison(compared, shared.described.entropy_rate)
    print(f"\nmodels: {', '.join(one.ckpt for one in configs.values())}")
    print(f"report: {report}")


def _train(config: TrainConfig) -> "Outcome":
    """Train one model, from the random state that it would have on its own."""
    from pyseq.training.run import prepare

    print()
    return train_model(prepare(config))


def print_comparison(compared: "Compared", entropy_rate: float | None) -> None:
    """Print every predictor in one table, what each training used, and what that shows.

    Args:
        compared (Compared): what is shown.
        entropy_rate (float | None): of the source, bits/symbol; None where it is not known.
    """
    from pyseq.cli.evaluation_table import print_ceiling, print_table

    console = Console(highlight=False)
    scored = len(compared.evaluation.scores.bits)
    print_table(
        console,
        f"{scored:,} held-out symbols, with 95 % intervals",
        ("predictor", "bits/symbol", "perplexity", "top-1 accuracy"),
        # Value and interval side by side would not fit 80 columns.
        [[cell.replace(" [", "\n[") for cell in row] for row in compared.rows()],
    )
    print_ceiling(console, compared.evaluation, entropy_rate)
    console.print()
    print_table(console, "what each used", ("", *compared.outcomes), compared.spent_rows())
    for subject, sentence in compared.statements():
        console.print(f"\n{subject}: {sentence}", soft_wrap=True, markup=False)
