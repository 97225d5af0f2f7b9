"""Fusion of modalities judged: scores, gains, peers, records, tables and a run's page."""

from pyseq.analysis.fusion.fusion_scores import FusionScores, macro_f1, scores
from pyseq.analysis.fusion.gains import Gain, gain_of, mean_interval, paired_gain, verdict
from pyseq.analysis.fusion.peer_models import PEERS, Peer, features, peers
from pyseq.analysis.fusion.record import FusionRecord, read_record, write_record
from pyseq.analysis.fusion.run_report import fusion_report, write_fusion_report
from pyseq.analysis.fusion.technique_runs import TechniqueRun, append_run, read_runs
from pyseq.analysis.fusion.technique_table import (
    MissingRow,
    TechniqueRow,
    missing_rows,
    missing_texts,
    technique_rows,
    technique_texts,
)

__all__ = [
    "PEERS",
    "FusionRecord",
    "FusionScores",
    "Gain",
    "MissingRow",
    "Peer",
    "TechniqueRow",
    "TechniqueRun",
    "append_run",
    "features",
    "fusion_report",
    "gain_of",
    "macro_f1",
    "mean_interval",
    "missing_rows",
    "missing_texts",
    "paired_gain",
    "peers",
    "read_record",
    "read_runs",
    "scores",
    "technique_rows",
    "technique_texts",
    "verdict",
    "write_fusion_report",
    "write_record",
]
