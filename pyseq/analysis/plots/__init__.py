"""Charts as inline SVG for the report's page; each file holds the charts of one question."""

from pyseq.analysis.plots.bars import bits_chart, grouped_bits_chart
from pyseq.analysis.plots.curves import loss_chart, step_chart
from pyseq.analysis.plots.heat_maps import attention_chart, confusion_chart
from pyseq.analysis.plots.reliability import entropy_chart, reliability_chart

__all__ = [
    "attention_chart",
    "bits_chart",
    "confusion_chart",
    "entropy_chart",
    "grouped_bits_chart",
    "loss_chart",
    "reliability_chart",
    "step_chart",
]
