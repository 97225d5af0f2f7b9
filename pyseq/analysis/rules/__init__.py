"""Rule extrapolation: completions and their scores, run records, the table and a run's page."""

from pyseq.analysis.rules.decoding import greedy_completions, validation_loss
from pyseq.analysis.rules.examination import Examination, examine
from pyseq.analysis.rules.published import CHANCE, PUBLISHED
from pyseq.analysis.rules.run_record import RunRecord, read_record, write_record
from pyseq.analysis.rules.run_report import rules_report, write_rules_report
from pyseq.analysis.rules.scores import (
    METRICS,
    Completion,
    RuleScores,
    score,
    select_best,
    select_minimum_loss,
)
from pyseq.analysis.rules.table import (
    best_table,
    metric_table,
    statement,
    summarise,
    table_markdown,
)
from pyseq.analysis.rules.table_page import table_page, write_table_page

__all__ = [
    "CHANCE",
    "METRICS",
    "PUBLISHED",
    "Completion",
    "Examination",
    "RuleScores",
    "RunRecord",
    "best_table",
    "examine",
    "greedy_completions",
    "metric_table",
    "read_record",
    "rules_report",
    "score",
    "select_best",
    "select_minimum_loss",
    "statement",
    "summarise",
    "table_markdown",
    "table_page",
    "validation_loss",
    "write_record",
    "write_rules_report",
    "write_table_page",
]
