"""Rule extrapolation: completions and their scores, run records, the table and a run's page."""

from pyseq.analysis.rules.decoding import greedy_completions, validation_loss
from pyseq.analysis.rules.run_record import RunRecord, read_record, write_record
from pyseq.analysis.rules.scores import (
    METRICS,
    Completion,
    RuleScores,
    score,
    select_best,
    select_minimum_loss,
)

__all__ = [
    "METRICS",
    "Completion",
    "RuleScores",
    "RunRecord",
    "greedy_completions",
    "read_record",
    "score",
    "select_best",
    "select_minimum_loss",
    "validation_loss",
    "write_record",
]
