"""`pyseq train`: train a model on a stream, score it, write the report."""

from typing import TYPE_CHECKING

from pyseq.cli import flags
from pyseq.training.config import TrainConfig

if TYPE_CHECKING:
    from pyseq.training.fit import Outcome
    from pyseq.training.run import Run


def main(arguments: list[str]) -> int:
    """Train as the flags say; prints the evaluation and where everything lies."""
    config = flags.parse(TrainConfig, "train", arguments)
    from pyseq.training.run import prepare

    train(prepare(config))
    return 0


def train(run: "Run") -> None:
    """Train and print what was decided, how good it is and where it lies."""
    from pyseq.cli.evaluation_table import print_evaluation
    from pyseq.training.resume import checkpoint_to_resume

    checkpoint_to_resume(run)  # refuses what does not fit before anything is computed
    print_decisions(run)
    outcome = train_model(run)
    print_evaluation(outcome.evaluation, run.described.entropy_rate)
    print(f"model: {run.config.ckpt}")
    print(f"report: {outcome.report}")


def print_decisions(run: "Run") -> None:
    """Print what was decided about the stream, and the ceiling."""
    for remark in run.remarks:
        print(remark)
    ceiling = run.ceiling
    print(f"ceiling: {ceiling.bits:.5f} bits/symbol for independent draws ({ceiling.reason})")


def train_model(run: "Run") -> "Outcome":
    """Print what the model is and what its training costs, and train it."""
    from pyseq.training.fit import fit
    from pyseq.training.resume import checkpoint_to_resume
    from pyseq.training.trial import trial_memory_mib

    config, resumed = run.config, checkpoint_to_resume(run)
    parameters = sum(p.numel() for p in run.model.parameters())
    print(
        f"model: {config.model}, {parameters:,} parameters,"
        f" {run.model.flops_per_symbol(config.seq_len) / 1e6:.1f} MFLOP per symbol and step,"
        f" {trial_memory_mib(run):,.0f} MiB at the process's peak in one step"
    )
    per_step = config.batch * config.gradient_accumulation * config.seq_len
    length = f"{run.steps:,} steps" if config.max_time is None else f"{config.max_time:g} minutes"
    print(f"training: {length}, {per_step:,} symbols a step, on {run.device}", flush=True)
    if resumed is not None:
        print(f"resumed from {resumed}", flush=True)
    elif config.resume == "auto":
        print(f"nothing to resume in {run.folder}: a new training begins", flush=True)
    return fit(run)
