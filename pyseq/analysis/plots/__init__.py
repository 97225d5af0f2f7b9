"""Charts as inline SVG for the report's page; each file holds the charts of one question."""

from pyseq.analysis.plots.bands import band_chart, band_multiples, has_points, leaves_band
from pyseq.analysis.plots.bars import bits_chart, code_length_chart, grouped_bits_chart
from pyseq.analysis.plots.comparison import comparison_chart
from pyseq.analysis.plots.curves import loss_chart, step_chart
from pyseq.analysis.plots.evidence import evidence_chart, p_value_chart
from pyseq.analysis.plots.gains import gain_chart
from pyseq.analysis.plots.heat_maps import attention_chart, confusion_chart
from pyseq.analysis.plots.outcomes import attention_maps, balance_chart, outcome_chart
from pyseq.analysis.plots.reliability import entropy_chart, reliability_chart
from pyseq.analysis.plots.seed_curves import seed_chart

__all__ = [
    "attention_chart",
    "attention_maps",
    "balance_chart",
    "band_chart",
    "band_multiples",
    "bits_chart",
    "code_length_chart",
    "comparison_chart",
    "confusion_chart",
    "entropy_chart",
    "evidence_chart",
    "gain_chart",
    "grouped_bits_chart",
    "has_points",
    "leaves_band",
    "loss_chart",
    "outcome_chart",
    "p_value_chart",
    "reliability_chart",
    "seed_chart",
    "step_chart",
]
