"""`pyseq fusion train`: a strategy on a data set, the test part scored once."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pyseq.cli import flags
from pyseq.cli.fusion.scores_table import print_scores
from pyseq.training.fusion.config import TrainFusionConfig

if TYPE_CHECKING:
    from pyseq.analysis.fusion import FusionRecord


def main(arguments: list[str]) -> int:
    """Train as the flags say; prints each stage, the scores, and where everything lies."""
    config = flags.parse(TrainFusionConfig, "fusion train", arguments).resolved()
    from pyseq.training.fusion.run import MODEL, REPORT, run_fusion

    print(f"{config.strategy.replace('_', '-')} on {config.data}: {', '.join(config.techniques)}",
          flush=True)  # fmt: skip
    print_record(run_fusion(config, lambda line: print(line, file=sys.stderr, flush=True)))
    folder = Path(str(config.out))
    if config.save:
        print(f"model: {folder / MODEL}")
    print(f"report: {folder / REPORT}")
    return 0


def print_record(record: "FusionRecord") -> None:
    """Print the scores of what is served, and below it those of its parts."""
    from pyseq.analysis.fusion import scores

    found = {
        name: scores(given, record.label, group=record.group)
        for name, given in record.predictions.items()
    }
    print_scores(f"{len(record.label)} test objects of {record.data}", found)
    print(
        f"{record.served} is served, and was named before the test part was scored, once, by a"
        f" locked split; choices were made on {record.selection}"
    )
    if record.bayes_accuracy is not None:
        print(f"best that any classifier can expect: {100 * record.bayes_accuracy:.2f} %")
    facts = record.facts
    if "held-out accuracy of the models, deviation" in facts:
        mean, deviation = (facts[f"held-out accuracy of the models, {what}"]
                           for what in ("mean", "deviation"))  # fmt: skip
        print(f"held-out accuracy of the models: {100 * mean:.2f} %, deviation"
              f" {100 * deviation:.2f}")  # fmt: skip
    print(f"{record.parameters:,} parameters; {record.seconds:.0f} s on {record.device}")
