"""`pyseq train`: train a model on a stream, score it, write the report."""

from typing import TYPE_CHECKING

from pyseq.cli import flags
from pyseq.training.config import TrainConfig

if TYPE_CHECKING:
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
    from pyseq.training.fit import fit
    from pyseq.training.resume import checkpoint_to_resume
    from pyseq.training.trial import trial_memory_mib

    config, ceiling = run.config, run.ceiling
    resumed = checkpoint_to_resume(run)  # refuses what does not fit before anything is computed
    for remark in run.remarks:
        print(remark)
    print(f"ceiling: {ceiling.bits:.5f} bits/symbol for independent draws ({ceiling.reason})")
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
    outcome = fit(run)
    print_evaluation(outcome.evaluation, run.described.entropy_rate)
    print(f"model: {config.ckpt}")
    print(f"report: {outcome.report}")
